//! A thousand policies and a thousand pods, a hundred of them on this node: time until all is enforced, and time of one
//! change. Each pod of this node is picked by a policy of its own, which names peers by the labels of pods and namespaces,
//! so that a hundred sets have members. In a network namespace of its own; needs root.
//!
//! `cargo bench -p flotilla-policies`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may fail and tells what it found"
)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use flotilla_policies::{Engine, SharedModel};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const POLICIES: u32 = 1000;
const PODS: u32 = 1000;
const LOCAL: u32 = 100;
const NAMESPACES: u32 = 10;
const APPLICATIONS: u32 = 100;
const UPDATES: u32 = 200;

fn policy(number: u32, port: u32) -> NetworkPolicy {
    let policy = json!({
        "metadata": {"namespace": format!("ns-{}", number % NAMESPACES), "name": format!("policy-{number}")},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{}", number / NAMESPACES % APPLICATIONS)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": format!("app-{}", number % APPLICATIONS)}}}],
                "ports": [{"port": port}],
            }],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"tier": format!("tier-{}", number % 7)}}}]}],
        },
    });
    serde_json::from_value(policy).unwrap()
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 42, 0, 2).to_bits() + number)
}

fn pod(number: u32, application: u32) -> Pod {
    let pod = json!({
        "metadata": {
            "namespace": format!("ns-{}", number % NAMESPACES), "name": format!("pod-{number}"),
            "labels": {"app": format!("app-{application}"), "tier": format!("tier-{}", number % 7)},
        },
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address(number).to_string()},
    });
    serde_json::from_value(pod).unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let policies: Vec<NetworkPolicy> = (0..POLICIES).map(|number| policy(number, 8080)).collect();
    let pods: Vec<Pod> = (0..PODS).map(|number| pod(number, number / NAMESPACES)).collect();
    let before_kib = resident_kib();
    let (shared, shutdown) = (SharedModel::new(), CancellationToken::new());
    let tracker = TaskTracker::new();
    let engine = tracker.spawn(Engine::new(shared.clone()).run(shutdown.clone()));
    let begin = Instant::now();
    for number in 0..NAMESPACES {
        let namespace = json!({"metadata": {"name": format!("ns-{number}")}});
        shared.change(|model| model.namespace(&serde_json::from_value(namespace).unwrap()));
    }
    for (number, pod) in (0..).zip(&pods) {
        shared.change(|model| model.pod(pod));
        if number < LOCAL {
            shared.change(|model| model.local_pod(&format!("uid-{number}"), pod, address(number)));
        }
    }
    policies.iter().for_each(|policy| {
        shared.change(|model| model.policy(policy));
    });
    shared.policies_synced();
    shared.namespaces_synced();
    shared.pods_synced();
    settled(&shared).await;
    println!(
        "{POLICIES} policies, {PODS} pods, {LOCAL} of them here: enforced after {:?}",
        begin.elapsed()
    );
    println!(
        "memory: {} KiB more than before",
        resident_kib().saturating_sub(before_kib)
    );
    updates(&shared).await;
    shutdown.cancel();
    engine.await.unwrap().unwrap();
}

async fn settled(shared: &SharedModel) {
    let version = shared.change(|_| {});
    let mut programmed = shared.programmed();
    programmed
        .wait_for(|programmed| *programmed >= version)
        .await
        .unwrap();
}

async fn updates(shared: &SharedModel) {
    let mut times = Vec::new();
    for update in 0..UPDATES {
        let changed = pod(PODS - 1, update % 2 * 50);
        let begin = Instant::now();
        shared.change(|model| model.pod(&changed));
        settled(shared).await;
        times.push(begin.elapsed());
    }
    report("a pod elsewhere changes its labels", &mut times);
    times.clear();
    for update in 0..UPDATES {
        let new = pod(PODS + update, update % APPLICATIONS);
        let begin = Instant::now();
        let uid = format!("new-{update}");
        shared.admit(&uid, &new, address(PODS + update)).await.unwrap();
        times.push(begin.elapsed());
        shared.change(|model| model.local_pod_gone(&uid));
    }
    report("a pod is admitted", &mut times);
    times.clear();
    for update in 0..UPDATES {
        let changed = policy(7, 8080 + update % 2);
        let begin = Instant::now();
        shared.change(|model| model.policy(&changed));
        settled(shared).await;
        times.push(begin.elapsed());
    }
    report("a policy changes", &mut times);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: median {:?}, p99 {:?}", at(50), at(99));
}
