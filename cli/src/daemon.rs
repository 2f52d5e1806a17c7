//! What the long-running verbs share: runtime, log, signals.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs `main` until it ends; SIGTERM and SIGINT ask it to. The log goes to standard error; `FLOTILLA_LOG` filters it
/// (`info`, `debug`, `flotilla_raft=trace`).
pub(crate) fn run<F, M>(main: M) -> anyhow::Result<()>
where
    M: FnOnce(CancellationToken) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    // openraft calls each heartbeat that failed an error; what an operator can act on, our own crates say.
    let filter =
        EnvFilter::try_from_env("FLOTILLA_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let main = main(shutdown.clone());
        let mut main = std::pin::pin!(main);
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // The main future is polled on after a signal, so that it can drain.
        tokio::select! {
            ended = main.as_mut() => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        shutdown.cancel();
        main.await
    })
}

/// A cluster of a few machines needs few threads; each costs memory.
fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4)
}

/// Runs a part, and when it has ended asks the rest to end as well.
pub(crate) async fn ending<T>(part: impl Future<Output = T>, shutdown: &CancellationToken) -> T {
    let ended = part.await;
    shutdown.cancel();
    ended
}
