//! `flotilla image pull`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_images::{Credential, Keyring, Progress, Puller, Settings, Store, Ticket};

/// Between two lines, or two states of one line, that tell how far a pull is.
const TOLD_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(
    store: Store,
    data_dir: &Path,
    images: &[String],
    username: Option<String>,
) -> anyhow::Result<()> {
    let mut keyring = Keyring::default();
    if let Some(username) = username {
        let mut password = String::new();
        io::stdin()
            .read_line(&mut password)
            .context("cannot read the password from standard input")?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        keyring.add_for_all(Credential {
            username,
            password,
            ..Credential::default()
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let puller = Puller::new(store, Settings::of_node(data_dir));
        for image in images {
            let failed = || format!("cannot pull {image}");
            let ticket = puller.pull(image, keyring.clone(), true).with_context(failed)?;
            follow(image, ticket).await.with_context(failed)?;
        }
        Ok(())
    })
}

async fn follow(image: &str, mut ticket: Ticket) -> anyhow::Result<()> {
    let mut told = None;
    let pulled = loop {
        // Both arms only wait.
        tokio::select! {
            done = ticket.done() => break done,
            () = tokio::time::sleep(TOLD_EVERY) => {}
        }
        let progress = ticket.progress();
        if told.replace(progress) != Some(progress) {
            tell(image, progress)?;
        }
    };
    if told.is_some() && io::stderr().is_terminal() {
        writeln!(io::stderr())?;
    }
    let pulled = pulled?;
    writeln!(io::stdout(), "pulled {image} ({})", pulled.digest)?;
    Ok(())
}

/// On a terminal one line is written over and over.
fn tell(image: &str, progress: Progress) -> io::Result<()> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let line = format!(
        "{image}: {:.1} of {:.1} MB",
        megabytes(progress.bytes_done),
        megabytes(progress.bytes_total)
    );
    if io::stderr().is_terminal() {
        write!(io::stderr(), "\r{line}")?;
        io::stderr().flush()
    } else {
        writeln!(io::stderr(), "{line}")
    }
}
