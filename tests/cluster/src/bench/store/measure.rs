//! What is asked of the stores, in turns, and the table of it.

use std::time::Duration;

use http::Request;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Piece};
use super::fanout;
use super::load::{Sample, ask_for, ask_while};
use super::plan::{Plan, Server, System};
use super::requests::{Protocol, etcd_status, leads};

/// Live objects among which every write and read picks one.
const OBJECTS: usize = 10_000;
const LISTED_OBJECTS: usize = 100;
const SPACE: &str = "bench";
const LIST_SPACE: &str = "bench-list";
const FILL_CLIENTS: usize = 64;
/// More clients than this share connections, as those of one program do.
const CONNECTIONS_MAX: usize = 16;
/// All systems are asked for as long, one after the other, and then once more.
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// Coprime to [`OBJECTS`]: successive requests are for objects that lie apart, and all get their turn.
const STRIDE: usize = 7919;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Write,
    Read,
    List,
}

#[derive(Clone, Copy)]
enum Place {
    Leader,
    Follower,
}

/// One line of the table for each system.
struct Cell {
    what: &'static str,
    verb: Verb,
    place: Place,
    clients: usize,
}

impl Cell {
    const fn new(what: &'static str, verb: Verb, place: Place, clients: usize) -> Cell {
        Cell {
            what,
            verb,
            place,
            clients,
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.what, self.clients)
    }

    /// Servers hand transactions to their leader only, and read nothing from each other.
    fn asks(&self, protocol: Protocol) -> bool {
        let leads = matches!(self.place, Place::Leader);
        protocol != Protocol::Peer || (self.verb == Verb::Write && leads)
    }

    fn request(&self, protocol: Protocol, number: usize) -> Request<Piece> {
        let object = number.wrapping_mul(STRIDE) % OBJECTS;
        match self.verb {
            Verb::Write => protocol.write(SPACE, object),
            Verb::Read => protocol.read(SPACE, object),
            Verb::List => protocol.list(LIST_SPACE),
        }
    }
}

const CELLS: [Cell; 14] = [
    Cell::new("write at the leader", Verb::Write, Place::Leader, 1),
    Cell::new("write at the leader", Verb::Write, Place::Leader, 16),
    Cell::new("write at the leader", Verb::Write, Place::Leader, 64),
    Cell::new("write at the leader", Verb::Write, Place::Leader, 256),
    Cell::new("write at a follower", Verb::Write, Place::Follower, 1),
    Cell::new("write at a follower", Verb::Write, Place::Follower, 64),
    Cell::new("get at the leader", Verb::Read, Place::Leader, 1),
    Cell::new("get at the leader", Verb::Read, Place::Leader, 16),
    Cell::new("get at the leader", Verb::Read, Place::Leader, 64),
    Cell::new("get at the leader", Verb::Read, Place::Leader, 256),
    Cell::new("get at a follower", Verb::Read, Place::Follower, 1),
    Cell::new("get at a follower", Verb::Read, Place::Follower, 64),
    Cell::new("list of 100 at the leader", Verb::List, Place::Leader, 16),
    Cell::new("list of 100 at a follower", Verb::List, Place::Follower, 16),
];

/// Measures everything of which the name, like `write at the leader, 64`, holds `only`.
pub(super) fn run(mut plan: Plan, only: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the runtime starts").block_on(async {
        for system in &mut plan.systems {
            prepare(system).await;
        }
        row(&[
            "",
            "clients",
            "per second",
            "p50 ms",
            "p99 ms",
            "servers' µs",
            "client's µs",
        ]
        .map(str::to_owned));
        row(&["---", "---:", "---:", "---:", "---:", "---:", "---:"].map(str::to_owned));
        for cell in CELLS.iter().filter(|cell| cell.name().contains(only)) {
            measure(cell, &plan.systems).await;
        }
        if "watch".contains(only) {
            watches(&plan.systems).await;
        }
    });
}

/// Puts etcd's leader first, and fills the spaces.
async fn prepare(system: &mut System) {
    let tasks = TaskTracker::new();
    if system.protocol == Protocol::Etcd {
        let mut leader = None;
        for (place, server) in system.servers.iter().enumerate() {
            let connection = Connection::open(system, server, &tasks).await;
            if leads(&connection.first_piece(etcd_status()).await) {
                leader = Some(place);
            }
        }
        system.servers.rotate_left(leader.expect("etcd has a leader"));
    }
    if system.protocol != Protocol::Peer {
        let connections = open(system, &system.servers[..1], CONNECTIONS_MAX, &tasks).await;
        fill(system, &connections, SPACE, OBJECTS).await;
        fill(system, &connections, LIST_SPACE, LISTED_OBJECTS).await;
    }
}

/// Makes a space with some objects.
pub(super) async fn fill(system: &System, connections: &[Connection], space: &str, objects: usize) {
    if let Some(request) = system.protocol.make_space(space) {
        connections[0].ask(request).await;
    }
    let next = |number| (number < objects).then(|| system.protocol.create(space, number));
    ask_while(connections, FILL_CLIENTS, &[], next).await;
}

/// So many connections to each of the servers.
pub(super) async fn open(
    system: &System,
    servers: &[Server],
    count: usize,
    tasks: &TaskTracker,
) -> Vec<Connection> {
    let mut connections = Vec::new();
    for server in servers {
        for _ in 0..count {
            connections.push(Connection::open(system, server, tasks).await);
        }
    }
    connections
}

async fn measure(cell: &Cell, systems: &[System]) {
    let systems: Vec<&System> = systems
        .iter()
        .filter(|system| cell.asks(system.protocol))
        .collect();
    let mut samples = vec![Sample::default(); systems.len()];
    let tasks = TaskTracker::new();
    for _ in 0..ROUNDS {
        for (system, sample) in systems.iter().zip(&mut samples) {
            let server = match cell.place {
                Place::Leader => &system.servers[0],
                Place::Follower => &system.servers[1],
            };
            let count = cell.clients.min(CONNECTIONS_MAX);
            let connections = open(system, std::slice::from_ref(server), count, &tasks).await;
            let make = |number| cell.request(system.protocol, number);
            sample.add(ask_for(ROUND, &connections, cell.clients, &system.servers, make).await);
        }
    }
    for (system, sample) in systems.iter().zip(&mut samples) {
        let (server, client) = sample.costs();
        row(&[
            format!("{}: {}", cell.what, system.name),
            cell.clients.to_string(),
            format!("{:.0}", sample.per_second()),
            format!("{:.2}", sample.at(50)),
            format!("{:.2}", sample.at(99)),
            format!("{server:.0}"),
            format!("{client:.0}"),
        ]);
    }
}

async fn watches(systems: &[System]) {
    for system in systems.iter().filter(|system| system.protocol != Protocol::Peer) {
        let mut seen = fanout::measure(system).await;
        row(&[
            format!("event to {} watchers: {}", fanout::WATCHERS, system.name),
            fanout::WATCHERS.to_string(),
            format!("{:.0}", seen.events_per_second),
            format!("{:.2}", seen.delays.at(50)),
            format!("{:.2}", seen.delays.at(99)),
            String::new(),
            String::new(),
        ]);
    }
}

#[expect(clippy::print_stdout, reason = "a table is what this program is for")]
fn row(columns: &[String]) {
    println!("| {} |", columns.join(" | "));
}
