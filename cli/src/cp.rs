//! `flotilla cp`: copies files to and from containers, by a tar that runs there.

mod pack;
mod place;
mod unpack;

use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::SyncIoBridge;

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::remote::{self, Ends, Exited, Target, Wanted};
use crate::{exec, output, pods};
use place::{Place, Remote};

/// Bytes of the archive between tar and this process's thread.
const PIPE_BYTES: usize = 1 << 20;
/// What tar may say about a failure.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// Flags of `cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A local path, or [NAMESPACE/]POD:PATH
    source: String,
    /// A local path, or [NAMESPACE/]POD:PATH
    destination: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Do not keep owners and permissions of what is copied into the container
    #[arg(long)]
    no_preserve: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let source = place::parse(&arguments.source)?;
    let destination = place::parse(&arguments.destination)?;
    match (source, destination) {
        (Place::Local(from), Place::Remote(to)) => {
            let container = Container::find(&to, &arguments, global).await?;
            container
                .upload(Path::new(&from), &to.path, arguments.no_preserve)
                .await
        }
        (Place::Remote(from), Place::Local(to)) => {
            let container = Container::find(&from, &arguments, global).await?;
            container.download(&from.path, Path::new(&to)).await
        }
        _ => bail!("one of the two has to be a local file, the other [NAMESPACE/]POD:PATH"),
    }
}

/// Where tar runs.
struct Container {
    cluster: Cluster,
    pod: String,
    name: String,
}

impl Container {
    async fn find(remote: &Remote, arguments: &Arguments, global: &GlobalOptions) -> anyhow::Result<Self> {
        let mut cluster = Cluster::connect(global).await?;
        if let Some(namespace) = &remote.namespace {
            cluster.namespace.clone_from(namespace);
        }
        let pod = pods::one(&cluster, &remote.pod).await?;
        let name = exec::container(&pod, arguments.container.as_deref(), false)?;
        Ok(Self {
            cluster,
            pod: remote.pod.clone(),
            name,
        })
    }

    async fn upload(&self, from: &Path, to: &str, no_preserve: bool) -> anyhow::Result<()> {
        let real = from.canonicalize().with_context(|| from.display().to_string())?;
        let named = from.file_name().or(real.file_name()).unwrap_or_default();
        let is_folder = self.is_folder(to).await?;
        let (folder, name) = place::target(to, &named.to_string_lossy(), is_folder, real.is_dir());
        let mut command = vec!["tar", "-xmf", "-"];
        if no_preserve {
            command = vec!["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"];
        }
        command.extend(["-C", &folder]);
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let handle = tokio::runtime::Handle::current();
        let packing = tokio::task::spawn_blocking(move || {
            pack::pack(&real, &name, SyncIoBridge::new_with_handle(writer, handle))
        });
        let running = self.tar(&command, reader, tokio::io::sink());
        let (packed, ran) = tokio::join!(packing, running);
        // Why tar ended tells more than that it took no more.
        ran?;
        packed?
    }

    async fn download(&self, from: &str, to: &Path) -> anyhow::Result<()> {
        let from = place::clean(from);
        let (folder, name) = place::split(&from);
        let name = if name.is_empty() { "." } else { name };
        // From its own folder, so that the names in the archive begin with the last part of the path.
        let command = ["tar", "-C", folder, "-cf", "-", "--", name];
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let (to, prefix) = (to.to_owned(), name.to_owned());
        let handle = tokio::runtime::Handle::current();
        let unpacking = tokio::task::spawn_blocking(move || {
            unpack::unpack(SyncIoBridge::new_with_handle(reader, handle), &prefix, &to)
        });
        let running = self.tar(&command, tokio::io::empty(), writer);
        let (unpacked, ran) = tokio::join!(unpacking, running);
        let unpacked = unpacked?;
        // An archive that is refused breaks tar's pipe, and an archive that is not there is tar's complaint.
        match (unpacked, ran) {
            (Err(error), _) if !error.is::<std::io::Error>() => Err(error),
            (_, Err(error)) => Err(error),
            (unpacked, Ok(())) => {
                for warning in unpacked? {
                    output::error_line(format!("warning: {warning}"));
                }
                Ok(())
            }
        }
    }

    async fn is_folder(&self, path: &str) -> anyhow::Result<bool> {
        let ran = self
            .command(&["test", "-d", path], tokio::io::empty(), tokio::io::sink())
            .await;
        match ran {
            Ok(_) => Ok(true),
            Err((error, _)) if error.is::<Exited>() => Ok(false),
            Err((error, _)) => Err(error),
        }
    }

    async fn tar(
        &self,
        command: &[&str],
        stdin: impl tokio::io::AsyncRead + Unpin,
        stdout: impl tokio::io::AsyncWrite + Unpin,
    ) -> anyhow::Result<()> {
        match self.command(command, stdin, stdout).await {
            Ok(()) => Ok(()),
            Err((error, complaint)) if complaint.is_empty() => {
                Err(error).context("tar in the container failed; cp needs a tar there")
            }
            Err((error, complaint)) if error.is::<Exited>() => bail!("{}", complaint.trim_end()),
            Err((error, complaint)) => Err(error).context(complaint.trim_end().to_owned()),
        }
    }

    /// Runs a command; with a failure comes what it complained of.
    async fn command(
        &self,
        command: &[&str],
        stdin: impl tokio::io::AsyncRead + Unpin,
        stdout: impl tokio::io::AsyncWrite + Unpin,
    ) -> Result<(), (anyhow::Error, String)> {
        let target = Target {
            pod: &self.pod,
            container: &self.name,
            wanted: Wanted {
                stdin: true,
                stderr: true,
                tty: false,
            },
        };
        let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let (complaints, stderr) = tokio::io::duplex(PIPE_BYTES);
        let ends = Ends {
            stdin,
            stdout,
            stderr,
            sizes: None,
        };
        let mut text = Vec::new();
        let ran = remote::run(&self.cluster, &target, Some(&words), ends);
        let read = async {
            let mut complaints = complaints;
            let kept = (&mut complaints)
                .take(COMPLAINT_BYTES_MAX)
                .read_to_end(&mut text)
                .await;
            // The rest is read as well, or tar would wait for it.
            kept.and(tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await)
        };
        let (ran, _) = tokio::join!(ran, read);
        ran.map_err(|error| (error, String::from_utf8_lossy(&text).into_owned()))
    }
}
