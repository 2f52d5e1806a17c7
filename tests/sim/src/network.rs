//! The network between hosts: delays, loses, repeats and reorders calls and answers, and can be cut one way or both.
//!
//! A call is a piece of work that is done where it arrives. What gRPC over TCP never does is not done here either: a
//! proposal is not repeated, and a call that was lost breaks some time later.

mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_raft::{Call, CallError, PeerService, Replica};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::oneshot;

pub(crate) use self::transport::HostTransport;
use crate::TICK_MS;
use crate::chance::Chance;
use crate::trace::Trace;

/// A host: its place in the world's list.
pub(crate) type HostId = usize;
/// Where the clients are.
pub(crate) const CLIENTS: HostId = HostId::MAX;

/// What a call finds where it arrives.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) replica: Replica,
    pub(crate) service: PeerService,
    /// Which process of the host it is.
    pub(crate) incarnation: u64,
}

/// What a call does where it arrives, or where nobody listens.
pub(crate) type Arrival = Arc<dyn Fn(Option<Target>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What is on its way.
pub(crate) enum Parcel {
    Request(Arrival),
    Answer(Box<dyn FnOnce() + Send>),
    /// It was lost; whoever waits for it learns of it when this is dropped.
    Lost(#[allow(dead_code, reason = "it is only kept")] Box<Parcel>),
}

/// One parcel and its way.
pub(crate) struct Message {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) what: &'static str,
    pub(crate) parcel: Parcel,
}

/// How the network is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Longest time of a message on its way, beyond the shortest.
    pub(crate) delay_ms: u64,
    /// Messages of a thousand that are lost.
    pub(crate) lost_permille: u64,
    /// Messages of a thousand that arrive twice.
    pub(crate) repeated_permille: u64,
    /// Longest time of one piece of a snapshot.
    pub(crate) snapshot_piece_ms: u64,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather {
            delay_ms: 3,
            lost_permille: 0,
            repeated_permille: 0,
            snapshot_piece_ms: 5,
        }
    }
}

/// A lost call breaks within this time.
const BREAKS_WITHIN_MS: u64 = 2000;

/// The network. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    chance: Chance,
    trace: Trace,
}

struct State {
    now: u64,
    sent: u64,
    on_their_way: BTreeMap<(u64, u64), Message>,
    hosts: BTreeMap<String, HostId>,
    cuts: BTreeSet<(HostId, HostId)>,
    weather: Weather,
}

impl Network {
    /// A quiet network without hosts.
    pub(crate) fn new(seed: u64, trace: Trace) -> Network {
        Network {
            state: Arc::new(Mutex::new(State {
                now: 0,
                sent: 0,
                on_their_way: BTreeMap::new(),
                hosts: BTreeMap::new(),
                cuts: BTreeSet::new(),
                weather: Weather::default(),
            })),
            chance: Chance::new(seed, "network"),
            trace,
        }
    }

    /// What is sent from now on is sent at this time.
    pub(crate) fn set_now(&self, now: u64) {
        self.state().now = now;
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub(crate) fn weather(&self) -> Weather {
        self.state().weather
    }

    /// Lets an address lead to a host.
    pub(crate) fn listen(&self, address: &str, host: HostId) {
        let hosts = &mut self.state().hosts;
        hosts.retain(|_, known| *known != host);
        hosts.insert(address.to_owned(), host);
    }

    /// All addresses that lead to a host.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.state().hosts.keys().cloned().collect()
    }

    /// Lets nothing through from one host to another.
    pub(crate) fn cut(&self, from: HostId, to: HostId) {
        self.state().cuts.insert((from, to));
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        self.state().cuts.clear();
    }

    pub(crate) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.state().cuts.contains(&(from, to))
    }

    /// Does some work at an address. What cannot be repeated is never delivered twice.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        from: HostId,
        address: &str,
        what: &'static str,
        work: impl Fn(Target) -> BoxFuture<'static, Result<T, CallError>> + Send + Sync + 'static,
    ) -> Call<T> {
        let refused = || CallError::NotDelivered("connection refused".to_owned());
        let Some(to) = self.state().hosts.get(address).copied() else {
            return ready(Err(refused())).boxed();
        };
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let network = self.clone();
        let arrival: Arrival = Arc::new(move |target| {
            let (network, waiting) = (network.clone(), Arc::clone(&answer));
            let done = match target {
                Some(target) => work(target),
                None => ready(Err(refused())).boxed(),
            };
            async move {
                let done = done.await;
                let tell = move || {
                    let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(waiting) = waiting {
                        // Nobody waits for it any more.
                        let _ = waiting.send(done);
                    }
                };
                network.send(to, from, what, Parcel::Answer(Box::new(tell)));
            }
            .boxed()
        });
        self.send(from, to, what, Parcel::Request(arrival));
        let broken = |_| Err(CallError::Unknown("the connection broke".to_owned()));
        answered.map(move |answer| answer.unwrap_or_else(broken)).boxed()
    }

    /// Takes what has arrived by a time.
    pub(crate) fn due(&self, now: u64) -> Vec<Message> {
        let mut state = self.state();
        let later = state.on_their_way.split_off(&(now + 1, 0));
        std::mem::replace(&mut state.on_their_way, later)
            .into_values()
            .collect()
    }

    /// Loses a message; whoever waits for it learns of it later.
    pub(crate) fn lose(&self, message: Message) {
        if matches!(message.parcel, Parcel::Lost(_)) {
            return;
        }
        let Message {
            from,
            to,
            what,
            parcel,
        } = message;
        self.trace.note(format_args!("lost {what} {}", way(from, to)));
        let delay = self.chance.number(1..BREAKS_WITHIN_MS);
        self.enqueue(delay, from, to, what, Parcel::Lost(Box::new(parcel)));
    }

    fn send(&self, from: HostId, to: HostId, what: &'static str, parcel: Parcel) {
        let weather = self.weather();
        if self.is_cut(from, to) || self.chance.permille(weather.lost_permille) {
            return self.lose(Message {
                from,
                to,
                what,
                parcel,
            });
        }
        if let Parcel::Request(arrival) = &parcel
            && may_repeat(what)
            && self.chance.permille(weather.repeated_permille)
        {
            let delay = self.chance.number(0..weather.delay_ms * 4 + 1);
            self.trace.note(format_args!("repeated {what} {}", way(from, to)));
            self.enqueue(delay, from, to, what, Parcel::Request(Arc::clone(arrival)));
        }
        let delay = self.chance.number(0..weather.delay_ms + 1);
        self.enqueue(delay, from, to, what, parcel);
    }

    fn enqueue(&self, delay: u64, from: HostId, to: HostId, what: &'static str, parcel: Parcel) {
        let mut state = self.state();
        state.sent += 1;
        let due = (state.now + TICK_MS + delay, state.sent);
        state.on_their_way.insert(
            due,
            Message {
                from,
                to,
                what,
                parcel,
            },
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client asks and what a follower hands on would be done twice.
fn may_repeat(what: &str) -> bool {
    !matches!(what, "propose" | "client")
}

/// A way, for the trace.
pub(crate) fn way(from: HostId, to: HostId) -> String {
    let name = |host: HostId| match host {
        CLIENTS => "clients".to_owned(),
        host => host.to_string(),
    };
    format!("{} -> {}", name(from), name(to))
}
