//! Where manifests come from: files, folders, standard input, and URLs that were given as such.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A file may hold many objects, but reading without limit would let one command fill the memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The flags that name manifests.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct FileOptions {
    /// A file, a folder, a URL, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Go through folders within folders as well
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// Reads all of them; a name for messages goes with each text.
pub(crate) async fn read(options: &FileOptions) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for name in options.files.iter().flat_map(|names| names.split(',')) {
        if name == "-" {
            let mut text = String::new();
            let mut input = std::io::stdin().lock().take(FILE_BYTES_MAX);
            input
                .read_to_string(&mut text)
                .context("cannot read manifests from standard input")?;
            texts.push(("STDIN".to_owned(), text));
        } else if name.starts_with("https://") || name.starts_with("http://") {
            texts.push((name.to_owned(), fetch(name).await?));
        } else {
            read_path(Path::new(name), options.recursive, &mut texts)?;
        }
    }
    Ok(texts)
}

fn read_path(path: &Path, recursive: bool, texts: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("the path \"{}\" does not exist or cannot be read", path.display()))?;
    if !metadata.is_dir() {
        texts.push((path.display().to_string(), read_file(path, metadata.len())?));
        return Ok(());
    }
    let before = texts.len();
    for entry in sorted_entries(path)? {
        let metadata =
            std::fs::metadata(&entry).with_context(|| format!("cannot read {}", entry.display()))?;
        if metadata.is_dir() {
            if recursive {
                read_path(&entry, true, texts)?;
            }
        } else if is_manifest(&entry) {
            texts.push((entry.display().to_string(), read_file(&entry, metadata.len())?));
        }
    }
    if texts.len() == before && !recursive {
        bail!(
            "the folder {} holds no file that ends in .yaml, .yml or .json (use -R for folders in it)",
            path.display()
        );
    }
    Ok(())
}

fn sorted_entries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut entries = std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    };
    list().with_context(|| format!("cannot read the folder {}", path.display()))
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

fn read_file(path: &Path, bytes: u64) -> anyhow::Result<String> {
    if bytes > FILE_BYTES_MAX {
        bail!(
            "{} has {} MiB; a file of manifests may have {} MiB: split it",
            path.display(),
            bytes >> 20,
            FILE_BYTES_MAX >> 20
        );
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            bail!(
                "{}:{line}:1: this line is not UTF-8 text; is it a manifest?",
                path.display()
            )
        }
    }
}

/// The `kube` client brings TLS with the machine's roots of trust; no cluster is involved here.
async fn fetch(url: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    let authority = uri
        .authority()
        .map(ToString::to_string)
        .with_context(|| format!("{url} names no host"))?;
    let base = format!("{}://{authority}", uri.scheme_str().unwrap_or("https"));
    let client = kube::Client::try_from(kube::Config::new(base.parse()?))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::get(path).body(Vec::new())?;
    client
        .request_text(request)
        .await
        .with_context(|| format!("cannot fetch {url}"))
}
