//! What a replica is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use flotilla_store::HistoryLimits;

use crate::platform::Platform;

/// What a replica is told at its start.
#[derive(Clone)]
pub struct Options {
    /// Identity of the member, never zero and never used twice. Its address may change, this never.
    pub id: u64,
    /// The server's node name.
    pub name: String,
    /// `host:port` that other servers dial.
    pub address: String,
    /// Folder of this replica alone; made when absent.
    pub data_dir: PathBuf,
    /// The machine that it runs on, and the way to others: [`Platform::real`].
    pub platform: Platform,
    /// How fast a lost leader is noticed.
    pub timing: Timing,
    /// How much is kept.
    pub limits: Limits,
}

/// How fast a lost leader is noticed.
///
/// A follower waits `election_max` (the leader's lease) and then between `election_min` and `election_max`
/// before it stands for election: with the defaults a dead leader is replaced after 0.75 to 1.2 seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between a leader's heartbeats; also the limit of one append to a follower.
    pub heartbeat: Duration,
    /// Shortest time after the lease.
    pub election_min: Duration,
    /// The lease, and longest time after it.
    pub election_max: Duration,
    /// How long a proposal or a read is tried before it fails, for example while there is no leader.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
            patience: Duration::from_secs(10),
        }
    }
}

/// How much is kept in memory and on disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Watch history.
    pub history: HistoryLimits,
    /// Events older than this are forgotten, whatever room there is: long enough for a client to come back after a
    /// restart of its machine.
    pub history_age: Duration,
    /// A snapshot is taken after this many log entries,
    pub snapshot_entries: u64,
    /// or after half as many bytes of them as are stored, whichever comes first; but not before this many,
    pub snapshot_bytes_min: u64,
    /// and after this many at the latest. Bounds the time of a restart.
    pub snapshot_bytes_max: u64,
    /// Log entries kept behind a snapshot, so that a follower that was away shortly needs no snapshot. Under
    /// load an entry has hundreds of kilobytes, and a restart reads all of them.
    pub kept_entries: u64,
    /// Of those, a sixteenth as many bytes as are stored; but not less than this, if there is as much,
    pub kept_bytes_min: u64,
    /// and not more than this.
    pub kept_bytes_max: u64,
    /// What log and snapshot may take of the disk before writes are refused; zero for no limit. A snapshot that is being
    /// written beside the last one is not counted.
    pub quota_bytes: u64,
    /// Memory for sled's pages.
    pub cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history: HistoryLimits::default(),
            history_age: Duration::from_secs(30 * 60),
            snapshot_entries: 10_000,
            snapshot_bytes_min: 4 << 20,
            snapshot_bytes_max: 64 << 20,
            kept_entries: 200,
            kept_bytes_min: 1 << 20,
            kept_bytes_max: 16 << 20,
            quota_bytes: 2 << 30,
            cache_bytes: 2 << 20,
        }
    }
}
