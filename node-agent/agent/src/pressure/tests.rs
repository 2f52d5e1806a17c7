//! The node runs short of something because the test says so; pods are on a machine without containers.

use std::sync::Mutex;

use flotilla_lifecycle::pressure::Thresholds;
use flotilla_proto::node::{AgentMessage, PodAssignment, agent_message::Kind};
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use tokio_util::task::TaskTracker;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::disk_use::Folders;
use crate::gauges::{Disk, Memory as HostMemory, Reading};
use crate::machine::fake::{FakeMachine, IMAGE};
use crate::worker::Surroundings;

const LIMIT: Duration = Duration::from_secs(20);
const SESSION: u64 = 1;

/// What the test says.
#[derive(Default)]
struct Dial(Mutex<Reading>);

impl Gauges for Dial {
    fn read(&self) -> Reading {
        *self.0.lock().unwrap()
    }
}

impl Dial {
    fn free_memory(&self, bytes: u64) {
        self.0.lock().unwrap().memory = Some(HostMemory {
            total_bytes: 1 << 30,
            working_set_bytes: (1 << 30) - bytes,
            ..HostMemory::default()
        });
    }

    fn free_disk(&self, percent: u64) {
        self.0.lock().unwrap().node_disk = Some(Disk {
            available_bytes: percent,
            capacity_bytes: 100,
            ..Disk::default()
        });
    }
}

struct Bench {
    folder: tempfile::TempDir,
    dial: Arc<Dial>,
    machine: Arc<FakeMachine>,
    pods: Arc<Pods>,
    outbox: Arc<Outbox>,
    watch: PressureWatch,
    limits: LimitWatch,
    memory: Memory,
    statuses: BTreeMap<String, PodStatus>,
    events: Vec<String>,
}

impl Bench {
    /// A node that may have two pods.
    async fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (machine, dial) = (FakeMachine::new(), Arc::<Dial>::default());
        let (pressures, pressures_rx) = watch::channel(Pressures::default());
        let outbox = Arc::<Outbox>::default();
        let allocatable = [("cpu", "1"), ("pods", "2")];
        let allocatable = allocatable.map(|(name, amount)| {
            let amount = flotilla_api::quantity::QuantityField(amount.to_owned());
            (name.to_owned(), amount)
        });
        let mut follow = crate::follow::Follow::new(folder.path().join("follow"));
        let surroundings = Arc::new(Surroundings {
            claims: Default::default(),
            machine: machine.clone(),
            outbox: outbox.clone(),
            checkpoints: Checkpoints::open(folder.path().join("checkpoints")).unwrap(),
            host_addresses: vec!["10.0.0.1".parse().unwrap()],
            allocatable: allocatable.into(),
            permits: flotilla_lifecycle::Permits::default(),
            pressures: pressures_rx,
            cluster: watch::channel(None).1,
            logs_dir: folder.path().join("pods"),
            files_dir: folder.path().join("etc"),
            gone: Arc::new(crate::gone::GoneLogs::open(folder.path().join("gone-pods"))),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            services: follow.mirror(|service| flotilla_lifecycle::ServiceAddress::of(service)),
            tokens: Arc::default(),
        });
        let pods = Arc::new(Pods::new(
            surroundings,
            TaskTracker::new(),
            CancellationToken::new(),
        ));
        let folders = Folders::below(folder.path());
        let disks = Arc::new(DiskUses::new(machine.clone(), folders, CancellationToken::new()));
        let limits = LimitWatch {
            pods: pods.clone(),
            outbox: outbox.clone(),
            disks: disks.clone(),
        };
        let watch = PressureWatch {
            gauges: dial.clone(),
            machine: machine.clone(),
            pods: pods.clone(),
            outbox: outbox.clone(),
            thresholds: Thresholds::default(),
            transition: Duration::from_secs(300),
            pressures,
            disks,
        };
        pods.begin_sync(SESSION, 1);
        assert!(pods.end_sync(SESSION));
        Bench {
            folder,
            dial,
            machine,
            pods,
            outbox,
            watch,
            limits,
            memory: Memory::default(),
            statuses: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn assign(&self, name: &str, priority: i32, requests: &str) {
        let container = format!(r#""resources":{{"requests":{requests}}}"#);
        self.assign_with(name, priority, &container);
    }

    fn assign_with(&self, name: &str, priority: i32, container: &str) {
        let pod = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"uid-{name}"}},
                "spec":{{"priority":{priority},"containers":[
                    {{"name":"web","image":"{IMAGE}",{container}}}]}}}}"#
        );
        let assignment = PodAssignment {
            pod_json: pod.into(),
            references: Vec::new(),
        };
        self.pods.assign(SESSION, assignment).unwrap();
    }

    /// Reads reports until a pod's newest status fits.
    async fn until(&mut self, name: &str, fits: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let reads = async {
            loop {
                if let Some(status) = self.statuses.get(name).filter(|status| fits(status)) {
                    return status.clone();
                }
                self.outbox.due(SESSION).await;
                for AgentMessage { kind } in self.outbox.take(SESSION) {
                    match kind {
                        Some(Kind::Pod(report)) => {
                            self.outbox.acknowledge(report.sequence);
                            let status = serde_json::from_slice(&report.status_json).unwrap();
                            self.statuses.insert(report.name, status);
                        }
                        Some(Kind::Event(event)) => {
                            self.events.push(format!("{} {}", event.pod_name, event.reason))
                        }
                        _ => {}
                    }
                }
            }
        };
        tokio::time::timeout(LIMIT, reads).await.expect("no such status")
    }

    async fn running(&mut self, name: &str) {
        self.until(name, |status| status.phase.as_deref() == Some("Running"))
            .await;
    }

    async fn look(&mut self) -> Vec<&'static str> {
        self.watch.look(&mut self.memory).await;
        let conditions = self.watch.pressures.borrow().list();
        conditions.into_iter().map(Condition::name).collect()
    }
}

fn failed(status: &PodStatus) -> bool {
    status.phase.as_deref() == Some("Failed")
}

#[tokio::test]
async fn the_pod_that_uses_most_beyond_its_requests_is_evicted_and_only_that_one() {
    let mut bench = Bench::new().await;
    bench.assign("modest", 0, "{}");
    bench.assign("greedy", 0, "{}");
    bench.running("modest").await;
    bench.running("greedy").await;
    bench.machine.fill_memory("uid-modest", 10 << 20);
    bench.machine.fill_memory("uid-greedy", 500 << 20);
    bench.dial.free_memory(200 << 20);
    assert!(bench.look().await.is_empty());
    bench.dial.free_memory(50 << 20);
    assert_eq!(bench.look().await, ["MemoryPressure"]);
    let status = bench.until("greedy", failed).await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = status.message.unwrap();
    assert_eq!(
        message,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
         Container web was using 500Mi, request is 0, has larger consumption of memory. "
    );
    assert!(
        bench.events.contains(&" EvictionThresholdMet".to_owned()),
        "{:?}",
        bench.events
    );
    assert!(
        bench.events.contains(&"greedy Evicted".to_owned()),
        "{:?}",
        bench.events
    );
    bench
        .machine
        .until(|log| log.iter().any(|line| line == "remove uid-greedy"))
        .await;
    bench.dial.free_memory(500 << 20);
    // The condition outlasts the shortage; no further pod goes for it.
    assert_eq!(bench.look().await, ["MemoryPressure"]);
    assert_eq!(bench.statuses["modest"].phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn images_go_before_pods_on_a_full_disk() {
    let mut bench = Bench::new().await;
    bench.assign("web", 0, "{}");
    bench.running("web").await;
    bench.dial.free_disk(5);
    assert_eq!(bench.look().await, ["DiskPressure"]);
    assert!(bench.machine.log().contains(&"collect images".to_owned()));
    let status = bench.until("web", failed).await;
    assert!(
        status
            .message
            .unwrap()
            .contains("low on resource: ephemeral-storage")
    );
}

#[tokio::test]
async fn a_pod_that_does_not_fit_or_comes_at_a_bad_time_is_refused() {
    let mut bench = Bench::new().await;
    bench.assign("large", 0, r#"{"cpu":"600m"}"#);
    bench.running("large").await;
    bench.assign("another", 0, r#"{"cpu":"600m"}"#);
    let status = bench.until("another", failed).await;
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(
        status.message.as_deref(),
        Some(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        )
    );
    assert!(bench.machine.observe("uid-another").is_none());
    bench.dial.free_memory(1);
    bench.machine.fill_memory("uid-large", 1);
    bench.watch.pressures.send_replace(Pressures {
        memory: true,
        ..Pressures::default()
    });
    bench.assign("late", 0, "{}");
    let status = bench.until("late", failed).await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    bench.assign("critical", 2_000_000_000, "{}");
    bench.running("critical").await;
}

#[tokio::test]
async fn a_pod_that_fills_more_than_it_may_is_evicted_for_its_own_fault() {
    let mut bench = Bench::new().await;
    bench.assign_with(
        "modest",
        0,
        r#""resources":{"limits":{"ephemeral-storage":"1Mi"}}"#,
    );
    bench.assign_with(
        "greedy",
        0,
        r#""resources":{"limits":{"ephemeral-storage":"1Mi"}}"#,
    );
    bench.running("modest").await;
    bench.running("greedy").await;
    let fill = |name: &str, kibibytes: usize| {
        let layer = bench
            .folder
            .path()
            .join(format!("runtime/uid-{name}/web-0/upper"));
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join("file"), vec![1; kibibytes << 10]).unwrap();
    };
    fill("modest", 900);
    fill("greedy", 1100);
    bench.limits.look().await;
    let status = bench.until("greedy", failed).await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")
    );
    let is_disruption = |condition: &PodCondition| condition.type_ == "DisruptionTarget";
    assert!(!status.conditions.unwrap().iter().any(is_disruption));
    bench
        .machine
        .until(|log| log.iter().any(|line| line == "remove uid-greedy"))
        .await;
    assert!(
        bench.events.contains(&"greedy Evicted".to_owned()),
        "{:?}",
        bench.events
    );
    bench.limits.look().await;
    assert_eq!(bench.statuses["modest"].phase.as_deref(), Some("Running"));
}
