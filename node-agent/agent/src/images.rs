//! Keeps the images from filling the disk.

use std::sync::Arc;
use std::time::Duration;

use flotilla_report::report;
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;

/// Between looks at the disk.
const SPACE_CHECK: Duration = Duration::from_secs(60);

/// Removes images that nobody needs whenever the disk is too full, until shutdown.
pub(crate) async fn keep_space(machine: Arc<dyn Machine>, shutdown: CancellationToken) {
    loop {
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SPACE_CHECK) => {}
        }
        let machine = machine.clone();
        let Ok(freed) = tokio::task::spawn_blocking(move || machine.free_space()).await else {
            continue;
        };
        match freed {
            Ok(freed) if freed.bytes_wanted == 0 => {}
            Ok(freed) if freed.bytes >= freed.bytes_wanted => {
                tracing::info!(images = ?freed.images, bytes = freed.bytes, "the disk was too full: images were removed");
            }
            Ok(freed) => tracing::warn!(
                images = ?freed.images,
                bytes = freed.bytes,
                bytes_wanted = freed.bytes_wanted,
                "the disk is too full, and no more images can be removed"
            ),
            Err(error) => tracing::error!(
                error = report(&error),
                "the disk of the images cannot be looked at"
            ),
        }
    }
}
