//! How long nothing can be written when the server that leads goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla_cluster_tests::store::{servers, signal};
use flotilla_cluster_tests::{Cluster, eventually};
use flotilla_workload::{Access, Probe, Server};

use crate::{milliseconds, row};

const LIMIT: Duration = Duration::from_secs(60);
/// Writing goes on for so long after the fault, so that what comes late is seen.
const AFTER: Duration = Duration::from_secs(3);
const BEFORE: Duration = Duration::from_millis(300);

/// Prints the longest times between two acknowledged writes when the leader is killed, and when it is stopped.
pub(crate) fn measure(times: usize) {
    let cluster = Cluster::up(3, 0);
    let access = Access::read(cluster.kubeconfig()).expect("the cluster's kubeconfig is usable");
    for (what, sent, promised) in [
        (
            "the leader is killed",
            "KILL",
            "1,000 ms at the median, 2,000 ms at most",
        ),
        ("the leader is stopped in order", "TERM", "100 ms"),
    ] {
        let mut outages: Vec<Duration> = (0..times)
            .map(|number| {
                outage(
                    &cluster,
                    &access,
                    sent,
                    &format!("{}-{number}", sent.to_lowercase()),
                )
            })
            .collect();
        outages.sort_unstable();
        let worst = outages.last().copied().unwrap_or_default();
        let median = outages.get(times / 2).copied().unwrap_or_default();
        let value = format!(
            "{} at the median, {} at most of {times}",
            milliseconds(median),
            milliseconds(worst)
        );
        row(
            &format!("{what}, until another server acknowledges a write"),
            &value,
            promised,
        );
    }
}

/// The longest time between two writes that another server acknowledged around the end of the leader.
fn outage(cluster: &Cluster, access: &Access, sent: &str, name: &str) -> Duration {
    let leader = cluster.leader();
    let servers = servers(cluster);
    let others: Vec<&Server> = servers.iter().filter(|server| server.name != leader).collect();
    let stop = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(access, others[0], name, &stop));
        std::thread::park_timeout(BEFORE);
        signal(cluster, &leader, sent);
        std::thread::park_timeout(AFTER);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    });
    eventually("its process has ended", LIMIT, || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array()?;
        let dead = |node: &serde_json::Value| node["name"] == leader.as_str() && node["state"] == "dead";
        nodes.iter().any(dead).then_some(())
    });
    cluster.local(&["start", &leader]);
    let back = servers.iter().find(|server| server.name == leader);
    let back = back.expect("it is one of the servers").clone();
    let mut probe = Probe::new(access.clone(), back).expect("there are threads and sockets");
    eventually("it is ready again", LIMIT, || {
        probe.get("/readyz").filter(|(code, _)| *code == 200).map(drop)
    });
    longest
}

/// Writes through one server until told to stop; the longest time between two acknowledgements.
fn write(access: &Access, server: &Server, name: &str, stop: &AtomicBool) -> Duration {
    let mut probe = Probe::new(access.clone(), server.clone()).expect("there are threads and sockets");
    let (mut longest, mut last) = (Duration::ZERO, None::<Instant>);
    for number in 0.. {
        if probe.create("default", &format!("{name}-{number}")) {
            let now = Instant::now();
            longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    longest
}
