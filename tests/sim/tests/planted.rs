//! The simulation finds bugs: each that can be planted is found within a bound of seeds.
#![allow(
    missing_docs,
    clippy::print_stdout,
    reason = "tests have names that say all, and may print"
)]

use std::sync::{Mutex, PoisonError};

use flotilla_sim::run_seed;
use flotilla_store::planted::{PlantedBug, plant};

/// A bug is planted in the whole process: one at a time.
static PLANTING: Mutex<()> = Mutex::new(());

const SEEDS_MAX: u64 = 200;

/// One of the seeds finds the bug.
fn is_found(bug: PlantedBug) {
    let _one = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    plant(Some(bug));
    let found = (0..SEEDS_MAX).find_map(|seed| run_seed(seed, false).err());
    plant(None);
    match found {
        Some(failure) => println!("{bug:?} is found: {failure}"),
        None => panic!("{bug:?} is not found by {SEEDS_MAX} seeds"),
    }
}

#[test]
fn a_write_that_is_acknowledged_before_it_is_synced_is_found() {
    is_found(PlantedBug::AcknowledgeBeforeSync);
}

#[test]
fn a_read_without_the_read_index_is_found() {
    is_found(PlantedBug::ReadWithoutIndex);
}

#[test]
fn a_vote_that_is_not_written_is_found() {
    is_found(PlantedBug::ForgetVote);
}

#[test]
fn a_watch_that_skips_an_event_at_a_snapshot_is_found() {
    is_found(PlantedBug::SkipEventAtSnapshot);
}

#[test]
fn an_entry_that_is_applied_twice_is_found() {
    is_found(PlantedBug::ApplyTwice);
}

#[test]
fn a_compare_and_set_that_ignores_the_revision_is_found() {
    is_found(PlantedBug::IgnoreRevision);
}
