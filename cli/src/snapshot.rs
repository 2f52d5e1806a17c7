//! `flotilla snapshot`: a whole cluster in one file, and a cluster made of such a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use flotilla_server::backup::{Backup, Header, RestoreOptions, Summary, read_snapshot, restore};
use futures::AsyncReadExt as _;
use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::agent::host_name;
use crate::client::Cluster;
use crate::output;
use crate::output::object::{Format, render};
use crate::output::tabwriter::{TABLE, align};

const PATH: &str = "/flotilla.dev/snapshot";
const PIECE_BYTES: usize = 64 << 10;

/// Flags of `snapshot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Save the whole cluster to a file, while it runs. Whoever has the file has the cluster: its keys are in it
    Save(SaveArguments),
    /// Check a file and tell what is in it
    Inspect(InspectArguments),
    /// Make the data folder of a new cluster's first server out of a file
    Restore(RestoreArguments),
}

#[derive(Debug, clap::Args)]
struct SaveArguments {
    /// The file to make
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct InspectArguments {
    /// The file
    file: PathBuf,
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RestoreArguments {
    /// The file
    file: PathBuf,
    /// The new server's data folder: absent or empty
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/flotilla/server")]
    data_dir: PathBuf,
    /// The new server's name; the host name by default
    #[arg(long)]
    name: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    match arguments.what {
        What::Save(arguments) => save(&arguments.file, global).await,
        What::Inspect(arguments) => inspect(&arguments),
        What::Restore(arguments) => restore_folder(&arguments).await,
    }
}

/// Saves under another name first: a file of the right name is whole and was read back.
async fn save(file: &Path, global: &GlobalOptions) -> anyhow::Result<()> {
    if file.exists() {
        bail!(
            "{} is there already: a snapshot never replaces a file",
            file.display()
        );
    }
    let cluster = Cluster::connect(global).await?;
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let saved = receive(&cluster, &partial).await;
    let saved = saved.and_then(|()| Ok(read_snapshot(&partial)?));
    let backup = match saved {
        Ok(backup) => backup,
        Err(error) => {
            // What is not whole helps nobody; the error says more than a second one could.
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
    };
    std::fs::rename(&partial, file).with_context(|| format!("cannot make {}", file.display()))?;
    sync_folder_of(file)?;
    output::line(format!(
        "saved {}: revision {}, {} objects, {} bytes, SHA-256 {}",
        file.display(),
        backup.header.revision,
        backup.summary.objects,
        backup.bytes,
        backup.sha256
    ));
    output::error_line("Keep it as you would keep the cluster's keys: they are in it.");
    Ok(())
}

async fn receive(cluster: &Cluster, partial: &Path) -> anyhow::Result<()> {
    let stream = cluster.stream(PATH, false).await?;
    let mut stream = std::pin::pin!(stream);
    let cannot = || format!("cannot write {}", partial.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(partial)
        .with_context(cannot)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = stream
            .read(&mut piece)
            .await
            .context("the connection to the server broke")?;
        if read == 0 {
            break;
        }
        file.write_all(&piece[..read]).with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)
}

fn sync_folder_of(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot make {} durable", file.display()))
}

fn inspect(arguments: &InspectArguments) -> anyhow::Result<()> {
    let format = Format::parse(arguments.output.as_deref())?;
    let backup = read_snapshot(&arguments.file)?;
    let text = match format.is_table() {
        true => describe(&backup.header, &backup.summary, &backup.sha256, backup.bytes),
        false => render(&format, &value(&backup), true)?,
    };
    output::text(&text);
    Ok(())
}

fn value(backup: &Backup) -> Value {
    json!({
        "header": backup.header,
        "summary": backup.summary,
        "fileBytes": backup.bytes,
        "sha256": backup.sha256,
    })
}

fn describe(header: &Header, summary: &Summary, sha256: &str, bytes: u64) -> String {
    let mut text = align(
        TABLE,
        &format!(
            "Cluster:\t{}\nRevision:\t{}\nTerm:\t{}\nTaken:\t{} by {}, flotilla {}\nFormat:\t{}\nFile:\t{} bytes\nChecksum:\tgood, SHA-256 {}\nObjects:\t{}, {} bytes\n",
            header.cluster,
            header.revision,
            header.term,
            header.taken_at,
            header.server,
            header.flotilla,
            header.format,
            bytes,
            sha256,
            summary.objects,
            summary.bytes
        ),
    );
    let mut table = "\nKIND\tOBJECTS\tBYTES\n".to_owned();
    for kind in &summary.kinds {
        let name = match kind.group.as_str() {
            "" => kind.resource.clone(),
            group => format!("{}.{group}", kind.resource),
        };
        table += &format!("{name}\t{}\t{}\n", kind.objects, kind.bytes);
    }
    text += &align(TABLE, &table);
    text
}

async fn restore_folder(arguments: &RestoreArguments) -> anyhow::Result<()> {
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let options = RestoreOptions {
        file: arguments.file.clone(),
        data_dir: arguments.data_dir.clone(),
        name: name.clone(),
    };
    let restored = restore(&options).await?;
    let folder = arguments.data_dir.display();
    output::line(format!(
        "restored {} objects of revision {} to {folder}; the new cluster is {} and goes on at revision {}",
        restored.backup.summary.objects, restored.backup.header.revision, restored.cluster, restored.revision
    ));
    output::text(&format!(
        "Start its first server:  flotilla server --name {name} --data-dir {folder}\n\
         Others join it with empty data folders, --join and the token in {folder}/join-token. Agents of the old cluster\n\
         keep their certificates, but need --server if no server has an old address. Kubeconfigs and tokens of service\n\
         accounts stay good. What happened after the snapshot is gone; no server of the old cluster may run any more.\n"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use flotilla_server::backup::KindCount;

    use super::*;

    #[test]
    fn what_is_in_a_file_is_told_in_words_and_numbers() {
        let header = Header {
            format: 1,
            flotilla: "0.1.0".to_owned(),
            cluster: "blue".to_owned(),
            server: "server-1".to_owned(),
            taken_at: "2026-11-25T10:00:00Z".to_owned(),
            revision: 42,
            term: 3,
        };
        let count = |group: &str, resource: &str, objects| KindCount {
            group: group.to_owned(),
            resource: resource.to_owned(),
            objects,
            bytes: objects * 100,
        };
        let summary = Summary {
            objects: 12,
            bytes: 1200,
            kinds: vec![count("", "pods", 10), count("apps", "deployments", 2)],
        };
        expect![[r#"
            Cluster:    blue
            Revision:   42
            Term:       3
            Taken:      2026-11-25T10:00:00Z by server-1, flotilla 0.1.0
            Format:     1
            File:       2000 bytes
            Checksum:   good, SHA-256 abc
            Objects:    12, 1200 bytes

            KIND               OBJECTS   BYTES
            pods               10        1000
            deployments.apps   2         200
        "#]]
        .assert_eq(&describe(&header, &summary, "abc", 2000));
    }
}
