//! How much a pod asks for and a node has.
//!
//! Pure. Processor time is counted in thousandths of a core, everything else in whole units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What a container without a request is taken to use, so that such pods spread as well.
const DEFAULT_CPU_MILLI: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Quantities = BTreeMap<String, Quantity>;

/// Amounts of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of node-local disk.
    pub storage: i64,
    /// Everything else by name: huge pages and what devices offer.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a list of quantities as it stands in a Pod or a Node; the count of pods is not an amount.
    #[must_use]
    pub fn read(quantities: Option<&Quantities>) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            match name.as_str() {
                "cpu" => amounts.cpu_milli = milli(quantity),
                "memory" => amounts.memory = whole(quantity),
                "ephemeral-storage" => amounts.storage = whole(quantity),
                "pods" => {}
                _ => {
                    amounts.others.insert(name.clone(), whole(quantity));
                }
            }
        }
        amounts
    }

    /// Adds, where something comes.
    pub fn add(&mut self, other: &Amounts) {
        self.merge(other, |mine, theirs| mine.saturating_add(theirs));
    }

    /// Subtracts, where something goes.
    pub fn subtract(&mut self, other: &Amounts) {
        self.merge(other, |mine, theirs| mine.saturating_sub(theirs));
    }

    /// Takes the larger of each, where two take turns.
    pub fn raise_to(&mut self, other: &Amounts) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Amounts, merge: fn(i64, i64) -> i64) {
        self.cpu_milli = merge(self.cpu_milli, other.cpu_milli);
        self.memory = merge(self.memory, other.memory);
        self.storage = merge(self.storage, other.storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = merge(*mine, *amount);
        }
    }

    fn with(mut self, other: &Amounts) -> Amounts {
        self.add(other);
        self
    }
}

/// What a pod needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// What it asks for; a node must have it.
    pub requests: Amounts,
    /// What it is taken to use; nodes are compared by it.
    pub usage: Usage,
}

/// The two resources by which nodes are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
}

impl Demand {
    /// The demand of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Demand {
        let Some(spec) = &pod.spec else {
            return Demand::default();
        };
        let usage = total(spec, |container| {
            with_defaults(requests(container.resources.as_ref()))
        });
        Demand {
            requests: total(spec, |container| requests(container.resources.as_ref())),
            usage: Usage {
                cpu_milli: usage.cpu_milli,
                memory: usage.memory,
            },
        }
    }
}

fn milli(quantity: &Quantity) -> i64 {
    quantity::Quantity::of(quantity).map_or(0, quantity::Quantity::milli)
}

/// A quantity in whole units; what cannot be read counts as nothing.
pub fn whole(quantity: &Quantity) -> i64 {
    quantity::Quantity::of(quantity).map_or(0, quantity::Quantity::value)
}

fn with_defaults(mut amounts: Amounts) -> Amounts {
    if amounts.cpu_milli == 0 {
        amounts.cpu_milli = DEFAULT_CPU_MILLI;
    }
    if amounts.memory == 0 {
        amounts.memory = DEFAULT_MEMORY;
    }
    amounts
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    Amounts::read(resources.and_then(|resources| resources.requests.as_ref()))
}

/// Init containers run one after the other before the rest, beside those that keep running from then on.
fn total(spec: &PodSpec, demand: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    let mut peak = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let wanted = demand(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&wanted);
            peak.raise_to(&running);
        } else {
            peak.raise_to(&running.clone().with(&wanted));
        }
    }
    for container in &spec.containers {
        running.add(&demand(container));
    }
    running.raise_to(&peak);
    if let Some(whole_pod) = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
    {
        let stated = Amounts::read(Some(whole_pod));
        for (name, amount) in [("cpu", &mut running.cpu_milli), ("memory", &mut running.memory)] {
            if whole_pod.contains_key(name) {
                *amount = if name == "cpu" {
                    stated.cpu_milli
                } else {
                    stated.memory
                };
            }
        }
    }
    running.add(&Amounts::read(spec.overhead.as_ref()));
    running
}
