//! Netlink and other work inside a network namespace, done by a thread that enters it and then ends.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::thread;

use futures::future::{Either, select};
use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;

/// Runs `work` on a new thread inside the namespace behind `path`.
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Runs `work` with a netlink connection to the namespace behind `path`, or to the one of the caller.
pub fn netlink<T: Send>(
    path: Option<&Path>,
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
) -> io::Result<Result<T, rtnetlink::Error>> {
    match path {
        Some(path) => enter(path, || connect(work)),
        // A thread as well: the caller may be inside a runtime, where another one cannot block.
        None => on_thread(|| connect(work)),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn connect<T>(
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> io::Result<Result<T, rtnetlink::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // Dropping the connection with the work's last answer in hand loses nothing.
        match select(pin!(work(handle)), pin!(connection)).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(((), _)) => Err(io::Error::other("the netlink connection ended")),
        }
    })
}
