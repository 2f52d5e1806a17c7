//! Clients and watchers of a real cluster that write down what they see, for [`flotilla_history`] to judge.
//!
//! The clients write, compare-and-set, delete, get and list ConfigMaps in a namespace of their own, through all servers at
//! random; the watchers follow them on different servers, resume on others when a stream breaks, and list again when
//! their revision has expired. Never sends anything twice: what was not answered is unknown.
//!
//! Knows no cluster: it is given credentials and a way to open a connection to each server, so that it works across
//! network namespaces and into virtual machines.

mod access;
mod api;
mod caller;
mod client;
mod counts;
mod probe;
mod shared;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_history::{Action, History, Listing, Operation, Outcome, Revision, Stream};
use http::{Method, StatusCode};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{Access, ReadAccessError, Server, dial};
pub use counts::Counts;
pub use probe::Probe;

use api::PREFIX;
use client::Client;
use shared::{OPERATION_LIMIT, Shared};
use watcher::Watcher;

/// A cluster that has a majority, on a busy machine, answers and catches up within this time.
const HEALED_LIMIT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What a workload does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Made when it is absent; must hold no ConfigMaps of an earlier workload.
    pub namespace: String,
    /// How many clients work at once.
    pub clients: u32,
    /// Over how many keys: few make them meet.
    pub keys: u32,
    /// How many watchers follow.
    pub watchers: usize,
    /// Between two operations of a client.
    pub pause: Duration,
    /// About how large an object is.
    pub object_bytes: usize,
    /// What the clients choose follows from it.
    pub seed: u64,
}

impl Default for Plan {
    /// Enough to make clients meet on a small machine, and little enough to leave it some time.
    fn default() -> Self {
        Self {
            namespace: "history".to_owned(),
            clients: 8,
            keys: 10,
            watchers: 4,
            pause: Duration::from_millis(5),
            object_bytes: 200,
            seed: 1,
        }
    }
}

/// A workload that is under way, on threads of its own.
pub struct Workload {
    runtime: Runtime,
    shared: Arc<Shared>,
    clients: JoinSet<Vec<Operation>>,
    watchers: JoinSet<Stream>,
    progress: Vec<watch::Receiver<Revision>>,
}

/// Why a workload could not be brought to its end: the cluster does not work although it should.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// No threads, or no sockets.
    #[error("the workload cannot run")]
    Runtime(#[source] std::io::Error),
    /// The namespace could not be made.
    #[error("no server has made the namespace {0} within a minute")]
    Namespace(String),
    /// After the end no write succeeded.
    #[error("no write has succeeded within a minute after the clients had ended")]
    NoWrite,
    /// After the end no list succeeded.
    #[error("no list has succeeded within a minute after the clients had ended")]
    NoList,
    /// A watcher has not seen the end.
    #[error("watcher {watcher} has come to revision {at} and not to {wanted} within a minute")]
    Watcher {
        /// Which one.
        watcher: usize,
        /// How far it has come.
        at: Revision,
        /// How far it should have.
        wanted: Revision,
    },
}

impl Workload {
    /// Makes the namespace, and starts clients and watchers.
    pub fn start(access: Access, servers: Vec<Server>, plan: Plan) -> Result<Self, WorkloadError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(WorkloadError::Runtime)?;
        let shared = Arc::new(Shared {
            filling: "x".repeat(plan.object_bytes),
            plan,
            access,
            servers,
            begin: Instant::now(),
            acknowledged: AtomicU64::new(0),
            stop: CancellationToken::new(),
            done: CancellationToken::new(),
            connections: TaskTracker::new(),
        });
        runtime.block_on(create_namespace(&shared))?;
        let (mut clients, mut watchers) = (JoinSet::new(), JoinSet::new());
        for number in 0..shared.plan.clients {
            clients.spawn_on(Client::new(number, &shared).run(), runtime.handle());
        }
        let mut progress = Vec::new();
        for number in 0..shared.plan.watchers {
            let (sender, receiver) = watch::channel(Revision(0));
            progress.push(receiver);
            watchers.spawn_on(Watcher::new(number, &shared, sender).run(), runtime.handle());
        }
        Ok(Self {
            runtime,
            shared,
            clients,
            watchers,
            progress,
        })
    }

    /// How many puts were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the clients, looks at everything once more and waits for the watchers to see the end. The cluster must
    /// have a majority again by now.
    pub fn finish(self) -> Result<History, WorkloadError> {
        let Self {
            runtime,
            shared,
            clients,
            watchers,
            progress,
        } = self;
        runtime.block_on(async {
            shared.stop.cancel();
            let mut operations: Vec<Operation> = clients.join_all().await.into_iter().flatten().collect();
            let mut client = Client::new(shared.plan.clients, &shared);
            let end = write_end(&mut client, &shared).await?;
            let last = look(&mut client, &shared).await?;
            operations.extend(client.into_operations());
            wait_for(progress, end).await?;
            shared.done.cancel();
            let mut streams = watchers.join_all().await;
            for stream in &mut streams {
                stream.through = Some(end);
            }
            Ok(History {
                operations,
                streams,
                last: Some(last),
            })
        })
    }
}

async fn create_namespace(shared: &Shared) -> Result<(), WorkloadError> {
    let name = &shared.plan.namespace;
    let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    let mut callers = shared.callers();
    let end = Instant::now() + HEALED_LIMIT;
    while Instant::now() < end {
        for caller in &mut callers {
            let answer = caller
                .ask(Method::POST, "/api/v1/namespaces", body.clone(), OPERATION_LIMIT)
                .await;
            // Done by this or by an earlier try: either way it is there.
            if answer.is_ok_and(|answer| [StatusCode::CREATED, StatusCode::CONFLICT].contains(&answer.code)) {
                return Ok(());
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(WorkloadError::Namespace(name.clone()))
}

/// A last write, which all watchers must come to see; its revision.
async fn write_end(client: &mut Client, shared: &Shared) -> Result<Revision, WorkloadError> {
    let end = Instant::now() + HEALED_LIMIT;
    for attempt in 0.. {
        if Instant::now() > end {
            break;
        }
        // A key for each try: what became of an earlier one may be unknown.
        let creation = client.creation(&format!("end-{attempt}"));
        let operation = client.carry_out(creation, attempt % shared.servers.len()).await;
        if let Outcome::Written(Some(revision)) = operation.outcome {
            return Ok(revision);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(WorkloadError::NoWrite)
}

/// A last look at everything.
async fn look(client: &mut Client, shared: &Shared) -> Result<Listing, WorkloadError> {
    let end = Instant::now() + HEALED_LIMIT;
    for attempt in 0.. {
        if Instant::now() > end {
            break;
        }
        let list = Action::List {
            prefix: PREFIX.to_owned(),
        };
        let operation = client.carry_out(list, attempt % shared.servers.len()).await;
        if let Outcome::Listed(listing) = &operation.outcome {
            return Ok(listing.clone());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(WorkloadError::NoList)
}

async fn wait_for(progress: Vec<watch::Receiver<Revision>>, wanted: Revision) -> Result<(), WorkloadError> {
    let end = tokio::time::Instant::now() + HEALED_LIMIT;
    for (watcher, mut progress) in progress.into_iter().enumerate() {
        let arrived = progress.wait_for(|at| *at >= wanted);
        let in_time = matches!(tokio::time::timeout_at(end, arrived).await, Ok(Ok(_)));
        if !in_time {
            let at = *progress.borrow();
            return Err(WorkloadError::Watcher { watcher, at, wanted });
        }
    }
    Ok(())
}
