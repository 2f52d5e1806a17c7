//! A network that is cut, in both directions or in one, while the store is written to and watched. Clients still reach all
//! servers, also those that hear nobody: these must say that they cannot answer, or answer right.
//!
//! `FLOTILLA_STORE_PARTITIONS=30 cargo nextest run -p flotilla-cluster-tests --test store_partitions` cuts thirty times
//! instead of a few.

#![allow(clippy::print_stderr, reason = "figures of long runs are wanted")]

use std::time::Duration;

use flotilla_cluster_tests::Cluster;
use flotilla_cluster_tests::dice::{Dice, number};
use flotilla_cluster_tests::store::Store;
use flotilla_workload::Plan;

const PARTITIONS: u64 = 3;
/// Some are over before anybody has noticed, most are not.
const CUT_MAX: Duration = Duration::from_millis(3000);
const WRITES: u64 = 30;

/// A cut, and whether those that can hear each other are still a majority.
fn cut(dice: &mut Dice, leader: &str) -> (String, bool) {
    let mut servers = vec!["server-1", "server-2", "server-3"];
    // Mostly it is the leader who is cut off.
    let alone = match dice.below(3) {
        0 => servers[dice.below(3)],
        _ => leader,
    };
    servers.retain(|server| *server != alone);
    let others = servers.join(",");
    match dice.below(6) {
        0 => (format!("{alone}>{others}"), true),
        1 => (format!("{others}>{alone}"), true),
        // Only one of the others no longer hears it, or is no longer heard by it.
        2 => (format!("{alone}|{}", servers[0]), true),
        3 => ("server-1|server-2|server-3".to_owned(), false),
        _ => (format!("{alone}|{others}"), true),
    }
}

#[test]
fn a_cut_network_loses_nothing_and_misleads_nobody() {
    let partitions = number("FLOTILLA_STORE_PARTITIONS").unwrap_or(PARTITIONS);
    let mut dice = Dice::seeded_by("FLOTILLA_STORE_SEED");
    eprintln!("FLOTILLA_STORE_SEED={}", dice.seed());
    let cluster = Cluster::up(3, 0);
    let store = Store::load(&cluster, Plan::default());
    for _ in 0..partitions {
        let (groups, has_majority) = cut(&mut dice, &cluster.leader());
        eprintln!("{groups}");
        cluster.local(&["partition", &groups]);
        std::thread::park_timeout(dice.pause(CUT_MAX));
        if has_majority {
            store.make_progress(WRITES);
        }
        cluster.local(&["heal"]);
        store.make_progress(WRITES);
    }
    let counts = store.judge();
    eprintln!("{partitions} partitions: {counts}");
}
