//! Servers that are killed or stand still while the store is written to and watched: nothing acknowledged is lost, every
//! answer can be explained, and every watcher sees every change once.
//!
//! `FLOTILLA_STORE_KILLS=300 cargo nextest run -p flotilla-cluster-tests --test store_crashes` kills three hundred times
//! instead of a few; `FLOTILLA_STORE_SEED` repeats a sequence of faults (not the moments at which they strike).

#![allow(clippy::print_stderr, reason = "figures of long runs are wanted")]

use std::time::Duration;

use flotilla_cluster_tests::Cluster;
use flotilla_cluster_tests::dice::{Dice, number};
use flotilla_cluster_tests::store::{Store, signal};
use flotilla_workload::Plan;

const SERVERS: [&str; 3] = ["server-1", "server-2", "server-3"];
const KILLS: u64 = 6;
/// A killed server stays away for less than this; longer than the others need to elect a leader.
const AWAY_MAX: Duration = Duration::from_millis(1500);
/// Writes that must be acknowledged between two faults.
const WRITES: u64 = 30;

/// One, two or all three of the servers, mostly one.
fn victims(dice: &mut Dice) -> Vec<&'static str> {
    let first = dice.below(3);
    let count = match dice.below(10) {
        0 => 3,
        1 | 2 => 2,
        _ => 1,
    };
    (0..count).map(|number| SERVERS[(first + number) % 3]).collect()
}

#[test]
fn killed_servers_lose_nothing_and_mislead_nobody() {
    let kills = number("FLOTILLA_STORE_KILLS").unwrap_or(KILLS);
    let mut dice = Dice::seeded_by("FLOTILLA_STORE_SEED");
    eprintln!("FLOTILLA_STORE_SEED={}", dice.seed());
    let cluster = Cluster::up(3, 0);
    let plan = Plan {
        seed: dice.seed(),
        ..Plan::default()
    };
    let store = Store::load(&cluster, plan);
    let mut killed = 0;
    while killed < kills {
        let victims = victims(&mut dice);
        for victim in &victims {
            cluster.local(&["kill", "--process-only", victim]);
            killed += 1;
        }
        std::thread::park_timeout(dice.pause(AWAY_MAX));
        for victim in &victims {
            cluster.local(&["start", victim]);
        }
        store.make_progress(WRITES);
    }
    let counts = store.judge();
    eprintln!("{killed} kills: {counts}");
}

#[test]
fn servers_that_stand_still_mislead_nobody() {
    let stops = number("FLOTILLA_STORE_STOPS").unwrap_or(3);
    let mut dice = Dice::seeded_by("FLOTILLA_STORE_SEED");
    eprintln!("FLOTILLA_STORE_SEED={}", dice.seed());
    let cluster = Cluster::up(3, 0);
    let store = Store::load(&cluster, Plan::default());
    for stop in 0..stops {
        // The leader every second time: it must not believe that it still leads when it goes on.
        let victim = match stop % 2 {
            0 => cluster.leader(),
            _ => SERVERS[dice.below(3)].to_owned(),
        };
        signal(&cluster, &victim, "STOP");
        // Without it the others go on; two at once leave no majority, and writes wait.
        store.make_progress(WRITES);
        std::thread::park_timeout(dice.pause(AWAY_MAX));
        signal(&cluster, &victim, "CONT");
        store.make_progress(WRITES);
    }
    let counts = store.judge();
    eprintln!("{stops} stops: {counts}");
}
