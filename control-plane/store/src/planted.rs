//! Bugs planted on purpose, so that it can be seen that the tests would find them.
//!
//! Without the feature `planted-bugs`, which no release has, none can be planted and the compiler leaves them out.

#[cfg(feature = "planted-bugs")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be planted; where it is asked for shows what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PlantedBug {
    /// A write is acknowledged before it is synced.
    AcknowledgeBeforeSync = 1,
    /// sled's buffers are handed to the kernel, and nothing makes the disk write them.
    SkipDataSync,
    /// A follower answers linearizable reads from what it has.
    ReadWithoutIndex,
    /// Only the first vote of a replica is written to its disk.
    ForgetVote,
    /// A watch that starts one revision before a snapshot is not told that this event is gone.
    SkipEventAtSnapshot,
    /// The first entry after a restart is applied twice.
    ApplyTwice,
    /// A compare-and-set asks for an object, whatever its revision.
    IgnoreRevision,
}

#[cfg(feature = "planted-bugs")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug in this process, or removes it again.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
}

/// Whether the bug is there.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Whether the bug is there: never.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_bug: PlantedBug) -> bool {
    false
}
