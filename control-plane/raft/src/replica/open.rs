//! Recovers a replica from its folder and starts its tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwapOption;
use flotilla_store::State;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Core;
use crate::aging;
use crate::consensus::Raft;
use crate::leadership::{self, Leadership};
use crate::members::Members;
use crate::network::{Cluster, Peers};
use crate::options::Options;
use crate::proposer::Proposer;
use crate::reader::Reader;
use crate::retention::Keeper;
use crate::runtime::Clock;
use crate::shared::Shared;
use crate::space::{Measuring, Space};
use crate::storage::{self, About, LogStore, Machine, OpenError, Saved, SnapshotFolder};

/// What the folder held.
struct Recovered {
    about: Option<About>,
    log: LogStore,
    snapshots: SnapshotFolder,
    saved: Option<Saved>,
}

/// Opens a replica and starts its tasks.
pub(super) async fn open(options: Options) -> Result<Core, OpenError> {
    let recovered = recover(&options).await?;
    let tracker = TaskTracker::new();
    let peers = Peers::new(Arc::clone(&options.platform.transport), tracker.clone());
    let clock = Arc::new(Clock::default());

    let saved = recovered.saved.unwrap_or_default();
    let applied = storage::applied_to(saved.meta.last_log_id);
    let state = State::new(saved.objects, saved.term, options.limits.history);
    let shared = Arc::new(Shared::new(state, applied, CancellationToken::new()));
    let snapshots = Arc::new(recovered.snapshots);
    let unsaved_bytes = Arc::new(AtomicU64::new(0));
    let machine = Machine::new(
        Arc::clone(&shared),
        Arc::clone(&snapshots),
        options.limits.history,
        saved.meta,
        Arc::clone(&unsaved_bytes),
        options.platform.clone(),
    );
    let raft = clock
        .rule(start_raft(&options, &peers, &recovered.log, machine))
        .await?;
    let keeper = Keeper {
        raft: raft.clone(),
        shared: Arc::clone(&shared),
        log: recovered.log.clone(),
        unsaved_bytes,
        limits: options.limits,
    };
    tracker.spawn(keeper.run());
    let core = start_tasks(options, (raft, clock), peers, shared, snapshots, recovered.log);
    // A member's folder from before folders said whose they are.
    let legacy = core.is_initialized().then(|| About::new(storage::FIRST_CLUSTER));
    if let Some(about) = recovered.about.or(legacy) {
        let belongs = core.belong_to(about).await;
        belongs.map_err(OpenError::folder(&core.options.data_dir))?;
    }
    Ok(core)
}

/// Starts what runs beside openraft; every task ends when the replica is closed.
fn start_tasks(
    options: Options,
    (raft, clock): (Raft, Arc<Clock>),
    peers: Peers,
    shared: Arc<Shared>,
    snapshots: Arc<SnapshotFolder>,
    log: LogStore,
) -> Core {
    let (id, timing, closed) = (options.id, options.timing, shared.closed.clone());
    let tracker = peers.tracker.clone();
    let (leadership_tx, leadership) = watch::channel(Leadership::default());
    let silence_max = timing.election_max * 2;
    tracker.spawn(leadership::observe(
        id,
        raft.clone(),
        Arc::clone(&shared),
        silence_max,
        leadership_tx,
    ));
    let cluster = Cluster {
        id,
        raft: raft.clone(),
        peers: peers.clone(),
        leadership: leadership.clone(),
    };
    let space = Arc::new(Space::new(options.name.clone(), options.limits.quota_bytes));
    let measuring = Measuring {
        id,
        space: Arc::clone(&space),
        platform: options.platform.clone(),
        log: log.clone(),
        snapshots: Arc::clone(&snapshots),
        raft: raft.clone(),
        shared: Arc::clone(&shared),
        peers: peers.clone(),
        leadership: leadership.clone(),
        closed: closed.clone(),
    };
    tracker.spawn(measuring.run());
    let (proposer, gather) = Proposer::new(
        cluster.clone(),
        Arc::clone(&shared),
        Arc::clone(&space),
        timing.patience,
    );
    tracker.spawn(gather);
    let (reader, rounds) = Reader::new(cluster, timing.patience, Arc::clone(&shared));
    tracker.spawn(rounds);
    tracker.spawn(aging::forget_old(Arc::clone(&shared), options.limits.history_age));
    let members = Arc::new(Members::new(raft.clone()));
    let promoting = Arc::clone(&members);
    tracker.spawn(async move { promoting.promote_learners(closed).await });

    let core = Core {
        options,
        raft,
        proposer,
        reader,
        members,
        peers,
        leadership,
        tracker,
        snapshots,
        space,
        admitted: watch::Sender::new(false),
        about: ArcSwapOption::empty(),
        clock,
        ended_term: AtomicU64::new(0),
        shared,
        log,
    };
    core.admitted.send_replace(core.is_initialized());
    core
}

/// Reads and verifies everything in the folder.
async fn recover(options: &Options) -> Result<Recovered, OpenError> {
    let (platform, folder) = (&options.platform, options.data_dir.clone());
    let files = Arc::clone(&platform.files);
    let made = platform.blocking(move || files.create_folder(&folder)).await;
    let folder = &options.data_dir;
    made.unwrap_or_else(Err).map_err(OpenError::folder(folder))?;
    let (files, path) = (Arc::clone(&platform.files), folder.clone());
    let about = platform
        .blocking(move || About::read(&*files, &path))
        .await
        .map_err(OpenError::folder(folder))??;
    let log = LogStore::open(platform, folder, options.id, options.limits.cache_bytes).await?;
    let (files, path) = (Arc::clone(&platform.files), folder.clone());
    let (snapshots, saved) = platform
        .blocking(move || SnapshotFolder::open(files, &path))
        .await
        .map_err(OpenError::folder(folder))??;
    let snapshot_end = saved.as_ref().and_then(|saved| saved.meta.last_log_id);
    storage::check_whole(&log, snapshot_end, folder)?;
    Ok(Recovered {
        about,
        log,
        snapshots,
        saved,
    })
}

async fn start_raft(
    options: &Options,
    peers: &Peers,
    log: &LogStore,
    machine: Machine,
) -> Result<Raft, OpenError> {
    let consensus = |error: &dyn std::error::Error| OpenError::Consensus(error.to_string());
    let timing = options.timing;
    let config = Config {
        cluster_name: "flotilla".to_owned(),
        heartbeat_interval: timing.heartbeat.as_millis() as u64,
        election_timeout_min: timing.election_min.as_millis() as u64,
        election_timeout_max: timing.election_max.as_millis() as u64,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.limits.snapshot_entries),
        max_in_snapshot_log_to_keep: options.limits.kept_entries,
        purge_batch_size: 64,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| consensus(&error))?);
    let raft = Raft::new(options.id, config, peers.clone(), log.clone(), machine)
        .await
        .map_err(|error| consensus(&error))?;
    // The answer comes after openraft's first report of its state, on which the rest builds.
    raft.is_initialized().await.map_err(|error| consensus(&error))?;
    Ok(raft)
}
