//! Chooses among the endpoints of a service: the one with the fewest requests under way, in turn where several have.
//!
//! Asks for the endpoints only when something has changed since, and only when a request comes: what nobody uses costs
//! nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::uri::Authority;
use tokio::time::Instant;

use crate::declared::Port;
use crate::table::ServicePort;

/// An endpoint that could not be reached is the last choice for this long: as long as it takes until a dead node's
/// endpoints are known to be gone.
const SHUNNED: Duration = Duration::from_secs(5);

/// Where services are reached, as this node knows it.
pub trait Endpoints: Send + Sync + 'static {
    /// Grows with every change; what was answered before it may be out of date.
    fn version(&self) -> u64;
    /// The endpoints behind a port of a service.
    fn resolve(&self, namespace: &str, service: &str, port: &Port) -> Reachable;
}

/// What is known of a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachable {
    /// There is no such service, or it has no endpoints of its own (ExternalName).
    NoService,
    /// The service has no such port.
    NoPort,
    /// These can take requests, perhaps none.
    At(Vec<SocketAddr>),
}

/// Why no endpoint can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Service,
    Port,
    Endpoints,
}

/// The endpoints of one port of a service.
pub(crate) struct Balancer {
    pub(crate) service: ServicePort,
    source: Arc<dyn Endpoints>,
    known: ArcSwapOption<Known>,
    next: AtomicUsize,
}

struct Known {
    version: u64,
    endpoints: Result<Vec<Arc<Endpoint>>, Missing>,
}

/// One endpoint.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The same, for requests.
    pub(crate) authority: Authority,
    outstanding: AtomicUsize,
    begin: Instant,
    /// Milliseconds after the beginning until which it is the last choice.
    shunned_until: AtomicU64,
}

/// A request under way at an endpoint.
pub(crate) struct Lease {
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Balancer {
    pub(crate) fn new(service: ServicePort, source: Arc<dyn Endpoints>) -> Self {
        Self {
            service,
            source,
            known: ArcSwapOption::empty(),
            next: AtomicUsize::new(0),
        }
    }

    /// An endpoint that was not tried yet; nothing when all were.
    pub(crate) fn choose(&self, tried: &BTreeSet<SocketAddr>) -> Result<Option<Lease>, Missing> {
        let known = self.known();
        let endpoints = known.endpoints.as_ref().map_err(|missing| *missing)?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = endpoints.len().max(1);
        let in_turn = (0..endpoints.len()).map(|step| &endpoints[(turn + step) % count]);
        let fresh = in_turn.filter(|endpoint| !tried.contains(&endpoint.address));
        let best = fresh.min_by_key(|endpoint| {
            (
                endpoint.is_shunned(),
                endpoint.outstanding.load(Ordering::Relaxed),
            )
        });
        Ok(best.map(|endpoint| Lease::new(endpoint.clone())))
    }

    fn known(&self) -> Arc<Known> {
        let version = self.source.version();
        let old = self.known.load_full();
        if let Some(old) = old.as_ref().filter(|old| old.version == version) {
            return old.clone();
        }
        let ServicePort {
            namespace,
            name,
            port,
        } = &self.service;
        let endpoints = match self.source.resolve(namespace, name, port) {
            Reachable::NoService => Err(Missing::Service),
            Reachable::NoPort => Err(Missing::Port),
            Reachable::At(addresses) if addresses.is_empty() => Err(Missing::Endpoints),
            Reachable::At(addresses) => Ok(kept(&addresses, old.as_deref())),
        };
        let known = Arc::new(Known { version, endpoints });
        self.known.store(Some(known.clone()));
        known
    }
}

/// Endpoints for addresses; those that were known keep their counts.
fn kept(addresses: &[SocketAddr], old: Option<&Known>) -> Vec<Arc<Endpoint>> {
    let old = old
        .and_then(|old| old.endpoints.as_deref().ok())
        .unwrap_or_default();
    let endpoint = |address: &SocketAddr| {
        let known = old.iter().find(|known| known.address == *address);
        known.cloned().or_else(|| Endpoint::new(*address).map(Arc::new))
    };
    addresses.iter().filter_map(endpoint).collect()
}

impl Endpoint {
    /// Nothing for an address that cannot be written as an authority, of which there is none.
    fn new(address: SocketAddr) -> Option<Self> {
        Some(Self {
            address,
            authority: address.to_string().parse().ok()?,
            outstanding: AtomicUsize::new(0),
            begin: Instant::now(),
            shunned_until: AtomicU64::new(0),
        })
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_shunned(&self) -> bool {
        let until = self.shunned_until.load(Ordering::Relaxed);
        until > 0 && self.milliseconds() < until
    }

    /// It could not be reached.
    pub(crate) fn shun(&self) {
        let limit = u64::try_from(SHUNNED.as_millis()).unwrap_or(u64::MAX);
        self.shunned_until
            .store(self.milliseconds() + limit, Ordering::Relaxed);
    }
}

impl Lease {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.outstanding.fetch_add(1, Ordering::Relaxed);
        Self { endpoint }
    }

    /// Another one at the same endpoint.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.endpoint.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Fixed(Mutex<(u64, Reachable)>);

    impl Fixed {
        fn at(addresses: &[&str]) -> Reachable {
            Reachable::At(addresses.iter().map(|address| address.parse().unwrap()).collect())
        }

        fn change(&self, reachable: Reachable) {
            let mut now = self.0.lock().unwrap();
            *now = (now.0 + 1, reachable);
        }
    }

    impl Endpoints for Fixed {
        fn version(&self) -> u64 {
            self.0.lock().unwrap().0
        }

        fn resolve(&self, _: &str, _: &str, _: &Port) -> Reachable {
            self.0.lock().unwrap().1.clone()
        }
    }

    fn balancer(addresses: &[&str]) -> (Balancer, Arc<Fixed>) {
        let source = Arc::new(Fixed(Mutex::new((0, Fixed::at(addresses)))));
        let service = ServicePort {
            namespace: "a".into(),
            name: "web".into(),
            port: Port::Number(80),
        };
        (Balancer::new(service, source.clone()), source)
    }

    fn chosen(balancer: &Balancer) -> Lease {
        balancer.choose(&BTreeSet::new()).unwrap().unwrap()
    }

    #[tokio::test]
    async fn requests_go_where_the_fewest_are_under_way_and_in_turn() {
        let (balancer, _) = balancer(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let held: Vec<Lease> = (0..3).map(|_| chosen(&balancer)).collect();
        let addresses: BTreeSet<SocketAddr> = held.iter().map(|lease| lease.endpoint.address).collect();
        assert_eq!(addresses.len(), 3);
        let free = held
            .into_iter()
            .nth(1)
            .map(|lease| lease.endpoint.clone())
            .unwrap();
        let busy = chosen(&balancer);
        drop(busy);
        // Nothing is under way: each gets its turn.
        let turns: BTreeSet<SocketAddr> = (0..3).map(|_| chosen(&balancer).endpoint.address).collect();
        assert_eq!(turns.len(), 3);
        assert_eq!(free.outstanding.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_busy_endpoint_waits_its_turn() {
        let (balancer, _) = balancer(&["10.0.0.1:80", "10.0.0.2:80"]);
        let busy = chosen(&balancer);
        for _ in 0..5 {
            assert_ne!(chosen(&balancer).endpoint.address, busy.endpoint.address);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_cannot_be_reached_is_the_last_choice_for_a_while() {
        let (balancer, _) = balancer(&["10.0.0.1:80", "10.0.0.2:80"]);
        let dead = chosen(&balancer).endpoint.clone();
        dead.shun();
        for _ in 0..4 {
            assert_ne!(chosen(&balancer).endpoint.address, dead.address);
        }
        let other = chosen(&balancer).endpoint.address;
        let only_dead = balancer.choose(&BTreeSet::from([other])).unwrap().unwrap();
        assert_eq!(only_dead.endpoint.address, dead.address);
        let both = BTreeSet::from([other, dead.address]);
        assert!(balancer.choose(&both).unwrap().is_none());
        drop(only_dead);
        tokio::time::advance(SHUNNED).await;
        let turns: BTreeSet<SocketAddr> = (0..2).map(|_| chosen(&balancer).endpoint.address).collect();
        assert_eq!(turns.len(), 2);
    }

    #[tokio::test]
    async fn a_change_is_seen_by_the_next_request_and_keeps_counts() {
        let (balancer, source) = balancer(&["10.0.0.1:80"]);
        let busy = chosen(&balancer);
        source.change(Fixed::at(&["10.0.0.1:80", "10.0.0.2:80"]));
        for _ in 0..3 {
            assert_ne!(chosen(&balancer).endpoint.address, busy.endpoint.address);
        }
        for (reachable, missing) in [
            (Reachable::NoService, Missing::Service),
            (Reachable::NoPort, Missing::Port),
            (Fixed::at(&[]), Missing::Endpoints),
        ] {
            source.change(reachable);
            assert_eq!(balancer.choose(&BTreeSet::new()).err(), Some(missing));
        }
    }
}
