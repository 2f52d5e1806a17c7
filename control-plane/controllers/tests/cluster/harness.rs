//! A control plane in this process, simulated nodes, and words for the tests.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_controllers::NodeLiveness;
use flotilla_raft::{Leadership, Replica};
use flotilla_resources::{Cache, DeleteOptions, Part, Resources};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ContainerStatus, Event, Namespace, Node, NodeCondition, NodeStatus, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a node may be silent.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(30);

/// Looks at a condition again and again until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    within(what, async {
        while !holds() {
            looks.tick().await;
        }
    })
    .await;
}

/// Awaits something, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting: {what}"),
    }
}

/// Which nodes are heard: those that are alive are heard at this very moment.
#[derive(Default)]
pub(crate) struct Voices {
    silent_since: Mutex<HashMap<String, Option<Instant>>>,
    changed: watch::Sender<u64>,
}

impl NodeLiveness for Voices {
    fn last_heard(&self, node: &str) -> Option<Instant> {
        let known = self.silent_since.lock().unwrap();
        known
            .get(node)
            .map(|silent_since| silent_since.unwrap_or_else(Instant::now))
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Voices {
    fn set(&self, node: &str, silent_since: Option<Instant>) {
        self.silent_since
            .lock()
            .unwrap()
            .insert(node.to_owned(), silent_since);
        self.changed.send_modify(|count| *count += 1);
    }

    fn is_silent(&self, node: &str) -> bool {
        self.silent_since
            .lock()
            .unwrap()
            .get(node)
            .is_none_or(Option::is_some)
    }
}

/// What differs from test to test.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    /// Seconds that pods bear a silent node.
    pub(crate) toleration_seconds: Option<i64>,
    /// Published to every namespace.
    pub(crate) root_ca: String,
    /// Pods of this image never become ready.
    pub(crate) broken_image: &'static str,
}

/// A control plane and its nodes.
pub(crate) struct Cluster {
    _folder: TempDir,
    replica: Replica,
    pub(crate) resources: Resources,
    pub(crate) pods: Cache<Pod>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) namespaces: Cache<Namespace>,
    voices: Arc<Voices>,
    options: flotilla_controllers::Options,
    /// The controllers and the scheduler, while this replica leads.
    reign: Mutex<(CancellationToken, TaskTracker)>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Cluster {
    /// A cluster with nodes node-1, node-2 and so on.
    pub(crate) async fn start(nodes: usize) -> Cluster {
        Self::start_with(nodes, Setting::default()).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(nodes: usize, setting: Setting) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let replica = open(&folder).await;
        let toleration_seconds = setting.toleration_seconds.unwrap_or(30);
        let (resources, writer) = Resources::new(
            replica.clone(),
            flotilla_resources::Options {
                toleration_seconds,
                ..flotilla_resources::Options::default()
            },
        );
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let voices = Arc::new(Voices::default());
        tracker.spawn(writer.run(shutdown.clone()));
        let options = flotilla_controllers::Options {
            toleration_seconds,
            node_silence: SILENCE,
            root_ca: setting.root_ca.clone(),
            ..flotilla_controllers::Options::default()
        };
        let cluster = Cluster {
            pods: Cache::start(&replica, &tracker, &shutdown),
            deployments: Cache::start(&replica, &tracker, &shutdown),
            replica_sets: Cache::start(&replica, &tracker, &shutdown),
            nodes: Cache::start(&replica, &tracker, &shutdown),
            namespaces: Cache::start(&replica, &tracker, &shutdown),
            _folder: folder,
            replica,
            resources,
            voices,
            options,
            reign: Mutex::default(),
            shutdown,
            tracker,
        };
        cluster.run_pods(setting.broken_image);
        cluster.elect();
        eventually("the namespace default exists", || {
            cluster.namespaces.get("", "default").is_some()
        })
        .await;
        for number in 1..=nodes {
            cluster.add_node(&format!("node-{number}")).await;
        }
        cluster
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        self.depose().await;
        self.shutdown.cancel();
        self.tracker.close();
        within("all tasks end", self.tracker.wait()).await;
        self.replica.shutdown().await;
    }

    /// A node that is alive and ready.
    pub(crate) async fn add_node(&self, name: &str) {
        self.voices.set(name, None);
        let quantities = [("cpu", "8"), ("memory", "16Gi"), ("pods", "110")];
        let quantities: BTreeMap<String, Quantity> = quantities
            .into_iter()
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .collect();
        let mut node = Node {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([("kubernetes.io/hostname".to_owned(), name.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Node::default()
        };
        let mut created = self.resources.create_typed(node.clone()).await.unwrap();
        node.status = Some(NodeStatus {
            allocatable: Some(quantities.clone()),
            capacity: Some(quantities),
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        });
        created.metadata.resource_version = None;
        created.status = node.status;
        self.resources.update_status_typed(created).await.unwrap();
    }

    /// Another replica leads: controllers and scheduler have stopped when this returns.
    pub(crate) async fn depose(&self) {
        let (shutdown, tracker) = std::mem::take(&mut *self.reign.lock().unwrap());
        shutdown.cancel();
        tracker.close();
        within("the reign ends", tracker.wait()).await;
    }

    /// This replica leads: controllers and scheduler hear of it after they were started.
    pub(crate) fn elect(&self) {
        let (shutdown, tracker) = (self.shutdown.child_token(), TaskTracker::new());
        let leads = self.replica.leadership().borrow().clone();
        let follows = Leadership {
            is_self: false,
            ..leads.clone()
        };
        let (tell, leadership) = watch::channel(follows);
        let controllers = flotilla_controllers::run(
            self.options.clone(),
            self.resources.clone(),
            self.voices.clone(),
            leadership.clone(),
            shutdown.clone(),
        );
        let scheduler = flotilla_scheduler::run(self.resources.clone(), leadership, shutdown.clone());
        tracker.spawn(async move {
            let told = async {
                tell.send_replace(leads);
                // The channel stays open as long as they run.
                tell.closed().await;
            };
            tokio::join!(controllers, scheduler, told)
        });
        *self.reign.lock().unwrap() = (shutdown, tracker);
    }

    /// The node stops talking, and does nothing that is asked of it.
    pub(crate) fn silence(&self, node: &str) {
        self.voices.set(node, Some(Instant::now()));
    }

    /// The node talks again.
    pub(crate) fn revive(&self, node: &str) {
        self.voices.set(node, None);
    }

    /// Pods of a Deployment that are not being deleted.
    pub(crate) fn live_pods(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list(Some("default"));
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// Creates a Deployment of name web.
    pub(crate) async fn deploy(&self, spec: serde_json::Value) {
        let mut deployment = serde_json::json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "demo:v1"}]},
                },
            },
        });
        for (field, value) in spec.as_object().unwrap() {
            deployment["spec"][field] = value.clone();
        }
        self.resources
            .create_typed(serde_json::from_value::<Deployment>(deployment).unwrap())
            .await
            .unwrap();
    }

    /// Changes the Deployment's spec.
    pub(crate) async fn change(
        &self,
        mut change: impl FnMut(&mut k8s_openapi::api::apps::v1::DeploymentSpec),
    ) {
        let change = |deployment: &mut Deployment| {
            change(deployment.spec.as_mut().unwrap());
            true
        };
        self.resources
            .modify("default", "web", Part::Whole, change)
            .await
            .unwrap();
    }

    /// Sets the image of the Deployment.
    pub(crate) async fn set_image(&self, image: &str) {
        self.change(|spec| {
            spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        })
        .await;
    }

    /// The Deployment.
    pub(crate) fn web(&self) -> Arc<Deployment> {
        self.deployments.get("default", "web").unwrap()
    }

    /// Whether the Deployment is rolled out with this image and this many replicas.
    pub(crate) fn is_rolled_out(&self, image: &str, replicas: i32) -> bool {
        let Some(web) = self.deployments.get("default", "web") else {
            return false;
        };
        let status = web.status.clone().unwrap_or_default();
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ];
        let pods = self.pods.list(Some("default"));
        status.observed_generation == web.metadata.generation
            && counts.iter().all(|count| count.unwrap_or(0) == replicas)
            && pods.len() == usize::try_from(replicas).unwrap()
            && pods.iter().all(|pod| image_of(pod) == image && is_ready(pod))
    }

    /// Waits for [`Self::is_rolled_out`].
    pub(crate) async fn rolled_out(&self, image: &str, replicas: i32) {
        eventually(&format!("{replicas} of {image} are rolled out"), || {
            self.is_rolled_out(image, replicas)
        })
        .await;
    }

    /// Messages of events with this reason.
    pub(crate) fn events(&self, reason: &str) -> Vec<String> {
        let (events, _) = self.resources.list_typed::<Event>(Some("default"));
        let mut messages: Vec<(Option<String>, String)> = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some(reason))
            .map(|event| {
                (
                    event.metadata.resource_version.clone(),
                    event.message.clone().unwrap_or_default(),
                )
            })
            .collect();
        messages
            .sort_by_key(|(version, _)| version.as_deref().and_then(|version| version.parse::<u64>().ok()));
        messages.into_iter().map(|(_, message)| message).collect()
    }

    /// Does what agents do: bound pods run, and pods that are being deleted end.
    fn run_pods(&self, broken_image: &'static str) {
        let (tell, mut told) = mpsc::unbounded_channel::<Arc<Pod>>();
        self.pods
            .subscribe(move |event| drop(tell.send(event.object().clone())));
        let (resources, voices, shutdown) =
            (self.resources.clone(), self.voices.clone(), self.shutdown.clone());
        let tracker = self.tracker.clone();
        self.tracker.spawn(async move {
            loop {
                let pod = tokio::select! {
                    () = shutdown.cancelled() => return,
                    pod = told.recv() => match pod { Some(pod) => pod, None => return },
                };
                let node = node_of(&pod).to_owned();
                if node.is_empty() || voices.is_silent(&node) {
                    continue;
                }
                let (resources, shutdown) = (resources.clone(), shutdown.clone());
                tracker.spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = bring_on(&resources, &pod, broken_image) => {}
                    }
                });
            }
        });
    }
}

async fn open(folder: &TempDir) -> Replica {
    let options = flotilla_raft::Options {
        id: 1,
        name: "server-1".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        data_dir: folder.path().to_owned(),
        platform: flotilla_raft::Platform::real(Arc::new(|address| {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
            endpoint.connect_lazy()
        })),
        timing: flotilla_raft::Timing::default(),
        limits: flotilla_raft::Limits::default(),
    };
    let replica = Replica::open(options).await.unwrap();
    replica.bootstrap().await.unwrap();
    let mut leadership = replica.leadership();
    within(
        "the replica leads",
        leadership.wait_for(|leadership| leadership.is_self),
    )
    .await
    .unwrap();
    replica
}

async fn bring_on(resources: &Resources, pod: &Pod, broken_image: &str) {
    let (namespace, name) = (
        pod.metadata.namespace.as_deref().unwrap(),
        pod.metadata.name.as_deref().unwrap(),
    );
    if pod.metadata.deletion_timestamp.is_some() {
        let options = DeleteOptions {
            grace_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        let _ = resources.delete_typed::<Pod>(namespace, name, &options).await;
        return;
    }
    let broken = image_of(pod) == broken_image;
    let run = |pod: &mut Pod| {
        let status = pod.status.get_or_insert_default();
        let phase = status.phase.as_deref();
        if matches!(phase, Some("Running" | "Succeeded" | "Failed"))
            || pod.metadata.deletion_timestamp.is_some()
        {
            return false;
        }
        status.phase = Some("Running".to_owned());
        status.container_statuses = Some(vec![ContainerStatus {
            name: "web".to_owned(),
            ..ContainerStatus::default()
        }]);
        for type_ in ["Ready", "ContainersReady"] {
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|condition| condition.type_ != type_);
            conditions.push(PodCondition {
                type_: type_.to_owned(),
                status: if broken { "False" } else { "True" }.to_owned(),
                last_transition_time: Some(Time(jiff::Timestamp::now())),
                ..PodCondition::default()
            });
        }
        true
    };
    let _ = resources.modify::<Pod>(namespace, name, Part::Status, run).await;
}

pub(crate) fn image_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers[0].image.as_deref())
        .unwrap_or_default()
}

pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
