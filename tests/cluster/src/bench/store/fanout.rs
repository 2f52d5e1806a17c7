//! Many watchers of one space: how soon each hears of a change, and how many events all get together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::load::{Sample, ask_while};
use super::measure::{fill, open};
use super::plan::System;
use super::requests::{MARK, Protocol};

pub(super) const WATCHERS: usize = 1000;
const SPACE: &str = "bench-watch";
/// Connections to each server; its share of the watchers is divided among them.
const CONNECTIONS: usize = 4;
/// Changes made one by one, to see how long each takes to arrive.
const SINGLE_CHANGES: usize = 50;
/// Changes that are made at once and must all have arrived before the next: no watcher falls behind.
const BURST: usize = 100;
const BURST_CLIENTS: usize = 16;
const BURSTS_FOR: Duration = Duration::from_secs(5);

/// What a thousand watchers saw.
pub(super) struct Seen {
    /// From the sending of a single change to its arrival, at each watcher.
    pub(super) delays: Sample,
    pub(super) events_per_second: f64,
}

/// Events that have arrived at all watchers together.
#[derive(Default)]
struct Arrivals {
    count: AtomicUsize,
    awaited: AtomicUsize,
    reached: Notify,
}

impl Arrivals {
    fn add(&self, count: usize) {
        let before = self.count.fetch_add(count, Ordering::AcqRel);
        if before + count >= self.awaited.load(Ordering::Acquire) {
            self.reached.notify_one();
        }
    }

    async fn wait_for(&self, count: usize) {
        self.awaited.store(count, Ordering::Release);
        while self.count.load(Ordering::Acquire) < count {
            self.reached.notified().await;
        }
    }
}

/// Watches, changes, counts.
pub(super) async fn measure(system: &System) -> Seen {
    let tasks = TaskTracker::new();
    let mut connections = Vec::new();
    for server in &system.servers {
        connections.extend(open(system, std::slice::from_ref(server), CONNECTIONS, &tasks).await);
    }
    let writer = &connections[..1];
    fill(system, writer, SPACE, BURST).await;
    let arrivals = Arc::<Arrivals>::default();
    let (moments, mut arrived) = mpsc::unbounded_channel();
    for watcher in 0..WATCHERS {
        let body = watch(&connections[watcher % connections.len()], system.protocol).await;
        tasks.spawn(count(body, arrivals.clone(), moments.clone()));
    }

    let mut sent = 0;
    let mut delays = Vec::new();
    for number in 0..SINGLE_CHANGES {
        let begun = Instant::now();
        writer[0].ask(system.protocol.write(SPACE, number)).await;
        sent += 1;
        arrivals.wait_for(sent * WATCHERS).await;
        let moments = std::iter::from_fn(|| arrived.try_recv().ok());
        delays.extend(moments.map(|moment: Instant| moment.duration_since(begun)));
    }
    let begun = Instant::now();
    while begun.elapsed() < BURSTS_FOR {
        let next = |number| (number < BURST).then(|| system.protocol.write(SPACE, number));
        ask_while(writer, BURST_CLIENTS, &[], next).await;
        sent += BURST;
        arrivals.wait_for(sent * WATCHERS).await;
        while arrived.try_recv().is_ok() {}
    }
    Seen {
        delays: Sample::of_times(delays),
        events_per_second: ((sent - SINGLE_CHANGES) * WATCHERS) as f64 / begun.elapsed().as_secs_f64(),
    }
}

/// Begins a watch that surely sees every later change.
async fn watch(connection: &Connection, protocol: Protocol) -> Incoming {
    let mut body = connection.begin(protocol.watch(SPACE)).await;
    if protocol == Protocol::Etcd {
        // Its first message says that the watch is there; our headers do.
        body.frame()
            .await
            .expect("the watch goes on")
            .expect("the watch is accepted");
    }
    body
}

/// Counts the events of one watch for as long as it lasts.
async fn count(mut body: Incoming, arrivals: Arc<Arrivals>, moments: mpsc::UnboundedSender<Instant>) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(piece) = frame.into_data() else { return };
        let events = memchr::memchr_iter(MARK, &piece).count();
        if events > 0 {
            // Nobody listens once the measurement is over.
            let _ = moments.send(Instant::now());
            arrivals.add(events);
        }
    }
}
