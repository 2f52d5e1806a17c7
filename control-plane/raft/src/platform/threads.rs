//! Threads of this machine.

use std::io;

use futures::future::{BoxFuture, FutureExt as _};

use super::{Join, Threads};

/// Threads of this machine: tokio's for short work, one of its own for each task.
#[derive(Clone, Copy, Debug)]
pub struct RealThreads;

impl Threads for RealThreads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, io::Result<()>> {
        tokio::task::spawn_blocking(work)
            .map(|done| done.map_err(io::Error::other))
            .boxed()
    }

    fn start(&self, name: &str, task: BoxFuture<'static, ()>) -> io::Result<Join> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || futures::executor::block_on(task))?;
        let name = name.to_owned();
        Ok(Box::new(move || {
            if thread.join().is_err() {
                tracing::error!(name, "a thread had panicked");
            }
        }))
    }
}
