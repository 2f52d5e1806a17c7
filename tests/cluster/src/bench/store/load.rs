//! Clients that each ask one thing after the other.

use std::cell::Cell;
use std::time::{Duration, Instant};

use flotilla_cluster_tests::processes::processor_seconds;
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::Request;

use super::connection::{Connection, Piece};
use super::plan::Server;

/// What some clients measured.
#[derive(Clone, Default)]
pub(super) struct Sample {
    /// Of each request.
    times: Vec<Duration>,
    /// How long all of it took.
    seconds: f64,
    /// Processor time of the servers and of the clients.
    server_seconds: f64,
    client_seconds: f64,
}

impl Sample {
    pub(super) fn add(&mut self, other: Sample) {
        self.times.extend(other.times);
        self.seconds += other.seconds;
        self.server_seconds += other.server_seconds;
        self.client_seconds += other.client_seconds;
    }

    pub(super) fn of_times(times: Vec<Duration>) -> Sample {
        Sample {
            times,
            ..Sample::default()
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    /// Processor microseconds per request of all servers together, and of the client.
    pub(super) fn costs(&self) -> (f64, f64) {
        let each = 1e6 / self.times.len() as f64;
        (self.server_seconds * each, self.client_seconds * each)
    }

    /// Milliseconds within which the share of requests was answered.
    pub(super) fn at(&mut self, percent: usize) -> f64 {
        self.times.sort_unstable();
        let place = self.times.len() * percent / 100;
        let time = self.times.get(place.min(self.times.len().saturating_sub(1)));
        time.map_or(f64::NAN, Duration::as_secs_f64) * 1000.0
    }
}

/// How much of the processors was used up to now.
struct Used {
    at: Instant,
    server_seconds: f64,
    client_seconds: f64,
}

impl Used {
    fn now(servers: &[Server]) -> Used {
        let of = |pid| processor_seconds(pid).expect("the process is there");
        Used {
            at: Instant::now(),
            server_seconds: servers.iter().map(|server| of(server.pid)).sum(),
            client_seconds: of(std::process::id()),
        }
    }
}

/// Lets clients ask for a while, each over one of the connections.
pub(super) async fn ask_for(
    duration: Duration,
    connections: &[Connection],
    clients: usize,
    servers: &[Server],
    make: impl Fn(usize) -> Request<Piece>,
) -> Sample {
    let end = Instant::now() + duration;
    ask_while(connections, clients, servers, |number| {
        (Instant::now() < end).then(|| make(number))
    })
    .await
}

/// Lets clients ask as long as there are requests; `next` is told how many there were before.
pub(super) async fn ask_while(
    connections: &[Connection],
    clients: usize,
    servers: &[Server],
    next: impl Fn(usize) -> Option<Request<Piece>>,
) -> Sample {
    let before = Used::now(servers);
    let count = Cell::new(0);
    let next = || next(count.replace(count.get() + 1));
    let all: FuturesUnordered<_> = (0..clients)
        .map(|client| client_loop(&connections[client % connections.len()], &next))
        .collect();
    let times = all.collect::<Vec<_>>().await.concat();
    let after = Used::now(servers);
    Sample {
        times,
        seconds: (after.at - before.at).as_secs_f64(),
        server_seconds: after.server_seconds - before.server_seconds,
        client_seconds: after.client_seconds - before.client_seconds,
    }
}

async fn client_loop(connection: &Connection, next: &impl Fn() -> Option<Request<Piece>>) -> Vec<Duration> {
    let mut times = Vec::new();
    while let Some(request) = next() {
        let begun = Instant::now();
        connection.ask(request).await;
        times.push(begun.elapsed());
    }
    times
}
