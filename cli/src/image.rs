//! `flotilla image`: the images of this machine's node.

mod pull;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use flotilla_images::Store;

/// Where an agent, and the agent inside a server, keep their data by default.
const DATA_DIRS: [&str; 2] = ["/var/lib/flotilla/agent", "/var/lib/flotilla/server/agent"];

/// Imports, lists and removes the images of this machine's node.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// The agent's data folder; found by itself when the agent runs with the default one.
    #[arg(long, value_name = "FOLDER", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ImageCommand {
    /// Takes in OCI layouts (folders or tar files) and docker archives.
    Import {
        /// The layouts and archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Pulls images from their registries, as the node itself does.
    Pull {
        /// Their names, such as `docker.io/library/nginx:1.27`.
        #[arg(required = true)]
        images: Vec<String>,
        /// A user of the registries; the password is read from standard input.
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
    },
    /// Keeps images when the disk is full.
    Pin {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Lets pinned images go again when the disk is full.
    Unpin {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Lists the images.
    #[command(alias = "ls")]
    List,
    /// Removes images by name.
    #[command(alias = "remove")]
    Rm {
        /// Their names, such as `docker.io/library/nginx:1.27`.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub(crate) fn run(args: ImageArgs) -> anyhow::Result<()> {
    let data_dir = data_dir(args.data_dir)?;
    let store = Store::open(data_dir.join("images"))?;
    match args.command {
        ImageCommand::Import { files } => import(&store, &files),
        ImageCommand::Pull { images, username } => pull::run(store, &data_dir, &images, username),
        ImageCommand::Pin { images } => pin(&store, &images, true),
        ImageCommand::Unpin { images } => pin(&store, &images, false),
        ImageCommand::List => list(&store),
        ImageCommand::Rm { images } => remove(&store, &images),
    }
}

fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let found = given.or_else(|| DATA_DIRS.iter().map(PathBuf::from).find(|folder| folder.is_dir()));
    found.with_context(|| {
        format!("no agent's data folder is at {}; name it with --data-dir (a node of `flotilla local` has one below the folder that `flotilla local status` shows)", DATA_DIRS.join(" or "))
    })
}

fn import(store: &Store, files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let names = store
            .import(file)
            .with_context(|| format!("cannot import {}", file.display()))?;
        for name in names {
            writeln!(io::stdout(), "imported {name}")?;
        }
    }
    Ok(())
}

fn pin(store: &Store, images: &[String], pinned: bool) -> anyhow::Result<()> {
    for image in images {
        if !store.pin(image, pinned)? {
            bail!("there is no image {image}; `flotilla image list` shows all");
        }
        let done = if pinned { "pinned" } else { "unpinned" };
        writeln!(io::stdout(), "{done} {image}")?;
    }
    Ok(())
}

fn list(store: &Store) -> anyhow::Result<()> {
    let mut rows = vec![[
        "IMAGE".to_owned(),
        "ID".to_owned(),
        "SIZE".to_owned(),
        "KEPT".to_owned(),
    ]];
    for image in store.list()? {
        let id = image
            .id
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect::<String>();
        let size = format!("{:.1} MB", image.size_bytes as f64 / 1e6);
        let kept = match (image.is_pinned, image.is_kept) {
            (true, _) => "pinned",
            (false, true) => "imported",
            (false, false) => "",
        };
        let names = image.references.iter().map(String::as_str);
        let names = names.chain(image.references.is_empty().then_some("<none>"));
        rows.extend(names.map(|name| [name.to_owned(), id.clone(), size.clone(), kept.to_owned()]));
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (name_width, id_width, size_width) = (width(0), width(1), width(2));
    for [name, id, size, kept] in &rows {
        let line = format!("{name:name_width$}   {id:id_width$}   {size:size_width$}   {kept}");
        writeln!(io::stdout(), "{}", line.trim_end())?;
    }
    Ok(())
}

fn remove(store: &Store, images: &[String]) -> anyhow::Result<()> {
    for image in images {
        if !store.remove(image)? {
            bail!("there is no image {image}; `flotilla image list` shows all");
        }
        writeln!(io::stdout(), "removed {image}")?;
    }
    Ok(())
}
