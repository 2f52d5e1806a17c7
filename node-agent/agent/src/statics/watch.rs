//! Notices that a folder has changed.

use std::path::PathBuf;
use std::time::Duration;

use flotilla_report::report;
use futures::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// Room for some tens of notices.
const BUFFER_BYTES: usize = 4096;

/// The kernel's notices about one folder. Without them, because there are none to be had, it stays silent.
pub(super) struct FolderWatch {
    folder: PathBuf,
    notices: Option<EventStream<Vec<u8>>>,
}

impl FolderWatch {
    pub(super) fn new(folder: PathBuf) -> Self {
        let notices = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER_BYTES]));
        let notices = notices
            .inspect_err(|error| {
                tracing::warn!(error = report(error), "changes of static pods are noticed late");
            })
            .ok();
        Self { folder, notices }
    }

    /// Listens to the folder that has this name now. To be called before each look at it.
    pub(super) fn renew(&self) {
        // Files that are being written are of no interest until they are closed.
        let changes = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ONLYDIR;
        if let Some(notices) = &self.notices {
            // A folder that is not there yet is found by a later look; one that is listened to already stays so.
            let _ = notices.watches().add(&self.folder, changes);
        }
    }

    /// Returns once something has changed and then nothing for a while. Dropping it half-way may lose a notice, which
    /// is as well when the folder is looked at next.
    pub(super) async fn changed_and_quiet(&mut self, quiet: Duration) {
        self.changed().await;
        while tokio::time::timeout(quiet, self.changed()).await.is_ok() {}
    }

    async fn changed(&mut self) {
        let Some(notices) = &mut self.notices else {
            return std::future::pending().await;
        };
        match notices.next().await {
            Some(Ok(_)) => {}
            other => {
                let error = other.and_then(Result::err).map(|error| report(&error));
                tracing::warn!(error, "changes of static pods are noticed late");
                self.notices = None;
            }
        }
    }
}
