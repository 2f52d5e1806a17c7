//! Room on the servers' disks: the quota of each data folder, and what may be written once one is over it.
//!
//! Every server measures its own folder and tells the others while it is over its quota. Whoever leads refuses, before
//! it proposes, what would make the store larger. So apply knows nothing of disks, and all replicas agree whatever
//! each of them measures. What makes room is let through, and so is a little more in objects that exist: an object is
//! mostly marked before it is deleted, and its controllers note what they do.

mod measuring;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_store::{Growth, Snapshot, Transaction};
use tokio::time::Instant;

pub(crate) use self::measuring::Measuring;
use crate::proposer::ProposeError;

/// So long what another server has said is believed. It says it again while it holds.
const BELIEVED_FOR: Duration = Duration::from_secs(15);
/// By so much a transaction may let objects grow that exist.
const GROWTH_BYTES_MAX: i64 = 1024;

/// How full a server's data folder is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceUse {
    /// The server's name.
    pub server: String,
    /// What its log and its snapshot take.
    pub used_bytes: u64,
    /// What they may take; zero when nobody has set a limit.
    pub quota_bytes: u64,
}

/// How much a data folder holds writers back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pressure {
    /// Not at all.
    Room,
    /// Nothing new is written.
    Full,
    /// A tenth over the quota: nothing grows, however little.
    Beyond,
}

impl SpaceUse {
    fn pressure(&self) -> Pressure {
        let (used, quota) = (self.used_bytes, self.quota_bytes);
        if quota == 0 || used <= quota {
            Pressure::Room
        } else if used <= quota + quota / 10 {
            Pressure::Full
        } else {
            Pressure::Beyond
        }
    }

    /// Whether writes are refused because of it.
    pub fn is_over(&self) -> bool {
        self.pressure() != Pressure::Room
    }
}

/// Whether a transaction may be proposed.
fn admits(pressure: Pressure, growth: Growth) -> bool {
    match pressure {
        Pressure::Room => true,
        Pressure::Full if !growth.creates => growth.bytes <= GROWTH_BYTES_MAX,
        Pressure::Full | Pressure::Beyond => growth.bytes <= 0,
    }
}

/// What this server knows of all servers' folders.
pub(crate) struct Space {
    own: Mutex<SpaceUse>,
    /// By member, with the moment when it was said.
    others: Mutex<BTreeMap<u64, (Instant, SpaceUse)>>,
    refused: AtomicU64,
}

impl Space {
    pub(crate) fn new(server: String, quota_bytes: u64) -> Space {
        Space {
            own: Mutex::new(SpaceUse {
                server,
                used_bytes: 0,
                quota_bytes,
            }),
            others: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// This server's folder.
    pub(crate) fn own(&self) -> SpaceUse {
        lock(&self.own).clone()
    }

    /// Takes note of what was measured; true when that has raised or lifted the alarm.
    pub(crate) fn measured(&self, used_bytes: u64) -> bool {
        let mut own = lock(&self.own);
        let was_over = own.is_over();
        own.used_bytes = used_bytes;
        own.is_over() != was_over
    }

    /// Takes note of what another server says.
    pub(crate) fn heard(&self, member: u64, said: SpaceUse) {
        let mut others = lock(&self.others);
        if said.is_over() {
            others.insert(member, (Instant::now(), said));
        } else {
            others.remove(&member);
        }
    }

    /// The servers whose folders are over their quota.
    pub(crate) fn alarms(&self) -> Vec<SpaceUse> {
        let now = Instant::now();
        let mut others = lock(&self.others);
        others.retain(|_, (since, _)| now.duration_since(*since) < BELIEVED_FOR);
        let others = others.values().map(|(_, said)| said.clone());
        others.chain([self.own()]).filter(SpaceUse::is_over).collect()
    }

    /// How often a write was refused here for want of room.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Refuses a transaction that there is no room for.
    pub(crate) fn admit(&self, transaction: &Transaction, snapshot: &Snapshot) -> Result<(), ProposeError> {
        let alarms = self.alarms();
        let Some(worst) = alarms.iter().max_by_key(|alarm| alarm.pressure()) else {
            return Ok(());
        };
        if admits(worst.pressure(), snapshot.growth(transaction)) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(ProposeError::NoSpace(refusal(worst)))
    }
}

fn refusal(full: &SpaceUse) -> String {
    format!(
        "the store's data on server {:?} takes {} MiB, more than its quota of {} MiB: delete objects, which still works, or \
         raise --store-quota on every server; until then nothing new is stored",
        full.server,
        full.used_bytes >> 20,
        full.quota_bytes >> 20,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space_use(used_bytes: u64, quota_bytes: u64) -> SpaceUse {
        SpaceUse {
            server: "server-1".to_owned(),
            used_bytes,
            quota_bytes,
        }
    }

    #[test]
    fn a_folder_over_its_quota_holds_back_what_grows() {
        use Pressure::{Beyond, Full, Room};
        for (used, quota, wanted) in [
            (100, 0, Room),
            (100, 100, Room),
            (101, 100, Full),
            (110, 100, Full),
            (111, 100, Beyond),
        ] {
            assert_eq!(space_use(used, quota).pressure(), wanted, "{used} of {quota}");
        }
        for (pressure, creates, bytes, wanted) in [
            (Room, true, i64::MAX, true),
            (Full, true, 1, false),
            (Full, true, 0, true),
            (Full, false, 1024, true),
            (Full, false, 1025, false),
            (Beyond, false, 1, false),
            (Beyond, false, 0, true),
            (Beyond, true, -5, true),
        ] {
            let growth = Growth { bytes, creates };
            assert_eq!(admits(pressure, growth), wanted, "{pressure:?} {growth:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_servers_alarm_holds_until_it_is_lifted_or_the_server_is_silent() {
        let space = Space::new("server-1".to_owned(), 100);
        assert!(space.alarms().is_empty());
        space.heard(2, space_use(200, 100));
        assert_eq!(space.alarms().len(), 1);
        space.heard(2, space_use(50, 100));
        assert!(space.alarms().is_empty());
        space.heard(2, space_use(200, 100));
        tokio::time::advance(BELIEVED_FOR).await;
        assert!(space.alarms().is_empty());
        assert!(space.measured(101) && !space.measured(102));
        assert_eq!(space.alarms(), [space_use(102, 100)]);
        assert!(space.measured(99));
        assert!(space.alarms().is_empty());
    }
}
