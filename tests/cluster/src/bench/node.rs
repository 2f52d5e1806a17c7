//! What is promised of one node: how soon a pod runs, how soon a hundred do, and what an agent costs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use flotilla_cluster_tests::processes::{self, Role, proportional_mb, resident_mb};
use flotilla_cluster_tests::{Cluster, eventually, flotilla_binary};

use super::{IDLE, LIMIT, SETTLE, milliseconds, row, seconds};

const NODE: &str = "agent-1";
const STARTS: usize = 200;
/// As many pods may be on their way out while the next ones start.
const ROOM: usize = 20;
const MANY: usize = 100;
const RESIDENT: usize = 50;

/// Prints one row for each figure.
pub(super) fn measure() {
    let cluster = Cluster::up(1, 1);
    std::thread::park_timeout(SETTLE);
    let seen = Seen::watch(&cluster);
    one_by_one(&cluster, &seen);
    all_at_once(&cluster, &seen);
    cost(&cluster);
}

/// When each pod was first seen bound and first seen running, on one and the same watch.
struct Seen {
    pods: Arc<Mutex<BTreeMap<String, Moments>>>,
    watch: Child,
}

#[derive(Clone, Copy, Default)]
struct Moments {
    bound: Option<Instant>,
    running: Option<Instant>,
}

impl Seen {
    fn watch(cluster: &Cluster) -> Seen {
        let columns = "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,PHASE:.status.phase";
        let mut watch = cluster
            .command(
                flotilla_binary(),
                &["get", "pods", "--watch", "--no-headers", "-o", columns],
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary can be run");
        let output = watch.stdout.take().expect("standard output is a pipe");
        let pods = Arc::<Mutex<BTreeMap<String, Moments>>>::default();
        let noted = pods.clone();
        // Ends with the watch, which is killed when this is dropped.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                note(&noted, &line);
            }
        });
        Seen { pods, watch }
    }

    fn of(&self, pod: &str) -> Moments {
        let pods = self.pods.lock().expect("no reader panics");
        pods.get(pod).copied().unwrap_or_default()
    }

    /// How many pods of which the name begins so have been seen running.
    fn running(&self, prefix: &str) -> usize {
        let pods = self.pods.lock().expect("no reader panics");
        pods.iter()
            .filter(|(name, moments)| name.starts_with(prefix) && moments.running.is_some())
            .count()
    }
}

fn note(pods: &Mutex<BTreeMap<String, Moments>>, line: &str) {
    let now = Instant::now();
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, node, phase] = words.as_slice() else {
        return;
    };
    let mut pods = pods.lock().expect("no reader panics");
    let moments = pods.entry((*name).to_owned()).or_default();
    if *node != "<none>" {
        moments.bound.get_or_insert(now);
    }
    if *phase == "Running" {
        moments.running.get_or_insert(now);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // It may have ended with its server.
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{bench: one}}}}\nspec:\n  nodeSelector: {{kubernetes.io/hostname: {NODE}}}\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

fn one_by_one(cluster: &Cluster, seen: &Seen) {
    let mut times = Vec::new();
    for number in 0..STARTS {
        let name = format!("one-{number}");
        cluster.apply(&pod(&name));
        let moments = eventually("the pod runs", LIMIT, || {
            let moments = seen.of(&name);
            moments.running.map(|_| moments)
        });
        if let (Some(bound), Some(running)) = (moments.bound, moments.running) {
            times.push(running.duration_since(bound));
        }
        if number % ROOM == ROOM - 1 {
            cluster.flotilla(&["delete", "pods", "-l", "bench=one"]);
        }
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    row(
        &format!("a pod on an idle node, from bound to Running, median of {STARTS}"),
        &milliseconds(at(50)),
        "100 ms",
    );
    row("the same, 99th percentile", &milliseconds(at(99)), "250 ms");
    cluster.flotilla(&["delete", "pods", "-l", "bench=one"]);
}

fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{bench: many}}}}\n  template:\n    metadata: {{labels: {{bench: many}}}}\n    spec:\n      nodeSelector: {{kubernetes.io/hostname: {NODE}}}\n      terminationGracePeriodSeconds: 0\n      containers: [{{name: main, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

fn all_at_once(cluster: &Cluster, seen: &Seen) {
    let start = Instant::now();
    cluster.apply(&deployment(MANY));
    eventually("all pods run", LIMIT, || {
        (seen.running("many-") >= MANY).then_some(())
    });
    row(
        &format!("{MANY} pods on one node at once, from `apply` to all Running"),
        &milliseconds(start.elapsed()),
        "8,000 ms",
    );
    cluster.apply(&deployment(RESIDENT));
    eventually("half of them are gone", LIMIT, || {
        (cluster.pods("bench=many").len() == RESIDENT).then_some(())
    });
}

fn cost(cluster: &Cluster) {
    std::thread::park_timeout(SETTLE);
    let agent = cluster.pid(NODE);
    let shims: Vec<u32> = processes::of(cluster)
        .into_iter()
        .filter(|process| process.role == Role::Shim && process.place.starts_with(NODE))
        .map(|process| process.pid)
        .collect();
    let all: Vec<u32> = shims.iter().copied().chain([agent]).collect();
    let sum = |measure: fn(u32) -> Option<f64>| all.iter().filter_map(|pid| measure(*pid)).sum::<f64>();
    let before: f64 = all.iter().map(|pid| seconds(*pid)).sum();
    std::thread::park_timeout(IDLE);
    let used = all.iter().map(|pid| seconds(*pid)).sum::<f64>() - before;
    row(
        &format!("an agent with {RESIDENT} running pods, resident"),
        &format!("{:.1} MB", resident_mb(agent).unwrap_or_default()),
        "50 MB",
    );
    row(
        &format!("its {} shims included, resident (shared pages once)", shims.len()),
        &format!("{:.1} MB ({:.1} MB)", sum(resident_mb), sum(proportional_mb)),
        "150 MB",
    );
    row(
        "agent and shims, share of a core while nothing happens",
        &format!("{:.2} %", 100.0 * used / IDLE.as_secs_f64()),
        "2 %",
    );
}
