//! Blocking work of a simulated host: done at once, after a while of virtual time.

use std::io;

use flotilla_raft::platform::{Join, Threads};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::task::TaskTracker;

use crate::disk::Disk;

/// The only thread there is.
pub(crate) struct SimThreads {
    pub(crate) disk: Disk,
}

/// Usual time of a piece of blocking work: it is there for the disk.
const WORK_MS: u64 = 3;

impl Threads for SimThreads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, io::Result<()>> {
        let latency = self.disk.latency(WORK_MS);
        async move {
            tokio::time::sleep(latency).await;
            work();
            Ok(())
        }
        .boxed()
    }

    fn start(&self, _name: &str, task: BoxFuture<'static, ()>) -> io::Result<Join> {
        TaskTracker::new().spawn(task);
        // Nobody can wait in a simulation. The task ends by itself.
        Ok(Box::new(|| {}))
    }
}
