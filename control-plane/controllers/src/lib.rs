//! One runner, then one folder per controller.
//!
//! Runs on the replica that leads and on no other; every write carries the term as a fence, so that what a deposed
//! leader still had in mind is refused. Controllers are pure plans with thin shells: see `runner.rs` for the rules.
//! Never talks to nodes: what they report arrives as objects and as [`NodeLiveness`].

mod balancer;
mod context;
mod deployment;
mod endpoints;
mod events;
mod follow;
mod garbage;
mod ingress;
mod labels;
mod namespace;
mod node;
mod ownership;
mod persistent_volumes;
mod pod_garbage;
mod pods;
mod priority_classes;
mod replicaset;
mod runner;
mod service;
mod statefulset;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_raft::Leadership;
use flotilla_resources::{Resources, ServiceCidr};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use balancer::{AddressPool, ParsePoolError};
use context::Context;
use runner::Runner;
pub use runner::{ControllerCounts, Metrics};

/// How the controllers are set.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long pods without a toleration of their own stay bound to a node that is not ready or unreachable.
    pub toleration_seconds: i64,
    /// How long a node may be silent before it is called unreachable.
    pub node_silence: Duration,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// So many pods that have ended are kept; beyond that the oldest go.
    pub finished_pods_max: usize,
    /// The certificate of the cluster's authority, published to every namespace; empty: not published.
    pub root_ca: String,
    /// Addresses of services.
    pub service_cidr: ServiceCidr,
    /// Addresses for services of type LoadBalancer; empty: the nodes' own.
    pub load_balancer_pool: AddressPool,
    /// Counts what the controllers do.
    pub metrics: Arc<Metrics>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            toleration_seconds: 30,
            node_silence: Duration::from_secs(4),
            event_ttl: Duration::from_secs(3600),
            finished_pods_max: 12_500,
            root_ca: String::new(),
            service_cidr: ServiceCidr::default(),
            load_balancer_pool: AddressPool::default(),
            metrics: Arc::default(),
        }
    }
}

/// Which nodes are heard, in the memory of the leader.
pub trait NodeLiveness: Send + Sync + 'static {
    /// When the node was last heard; nothing when it never was since this process started.
    fn last_heard(&self, node: &str) -> Option<Instant>;
    /// Changes whenever a node is heard again after a silence, or for the first time.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Runs the controllers whenever this replica leads, until shutdown.
pub async fn run(
    options: Options,
    resources: Resources,
    liveness: Arc<dyn NodeLiveness>,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: CancellationToken,
) {
    loop {
        let term = leadership.borrow_and_update().clone();
        // Every arm only waits or may be dropped anywhere: reconciles are made for that.
        let running = async {
            match term.is_self {
                true => {
                    lead(
                        options.clone(),
                        resources.clone(),
                        term.term,
                        Arc::clone(&liveness),
                    )
                    .await
                }
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = running => return,
            changed = other_term(&mut leadership, &term) => if changed.is_err() { return },
        }
    }
}

/// Waits until this replica begins or ceases to lead, or leads in another term.
async fn other_term(
    leadership: &mut watch::Receiver<Leadership>,
    known: &Leadership,
) -> Result<(), watch::error::RecvError> {
    let differs = |now: &Leadership| now.is_self != known.is_self || (now.is_self && now.term != known.term);
    leadership.wait_for(differs).await.map(|_| ())
}

/// Runs all controllers; ends only by being dropped, which ends all that it started.
async fn lead(options: Options, resources: Resources, term: u64, liveness: Arc<dyn NodeLiveness>) {
    let runner = Runner {
        tracker: TaskTracker::new(),
        shutdown: CancellationToken::new(),
        metrics: Arc::clone(&options.metrics),
    };
    let _ends_with_us = runner.shutdown.clone().drop_guard();
    tracing::info!("this replica leads: controllers start");
    let context = Context::start(
        &resources,
        term,
        options,
        liveness,
        &runner.tracker,
        &runner.shutdown,
    )
    .await;
    let context = Arc::new(context);
    deployment::start(&context, &runner);
    replicaset::start(&context, &runner);
    statefulset::start(&context, &runner);
    priority_classes::start(&context, &runner);
    service::start(&context, &runner);
    endpoints::start(&context, &runner);
    balancer::start(&context, &runner);
    node::start(&context, &runner);
    let seen = namespace::start(&context, &runner);
    garbage::start(&context, &runner, seen);
    persistent_volumes::start(&context, &runner).await;
    ingress::start(&context, &runner).await;
    pod_garbage::start(&context, &runner);
    events::start(&context, &runner);
    std::future::pending().await
}
