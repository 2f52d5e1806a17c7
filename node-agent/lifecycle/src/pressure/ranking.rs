//! Which pod has to go: those that use more than they asked for before the others, then by priority, then by use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use flotilla_api::amounts::Demand;
use flotilla_api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use super::signals::Met;
use super::thresholds::Signal;

/// Pods of this priority or above are the cluster's own.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a pod or a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Bytes of memory that cannot be reclaimed.
    pub memory: i64,
    /// Bytes on disk: writable layers, logs, local volumes.
    pub disk: i64,
    /// Files.
    pub inodes: i64,
    /// Processes.
    pub processes: i64,
}

impl Use {
    fn of(&self, signal: Signal) -> i64 {
        match signal {
            Signal::MemoryAvailable => self.memory,
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => self.disk,
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => self.inodes,
            Signal::PidAvailable => self.processes,
        }
    }
}

/// A pod that could be evicted, and what it uses.
#[derive(Debug, Clone, Copy)]
pub struct Contestant<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What all of it uses.
    pub whole: Use,
    /// What each container uses, by name.
    pub containers: &'a BTreeMap<String, Use>,
}

/// Whether a pod is one that the node cannot do without.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let is_static = annotations.is_some_and(|annotations| {
        annotations
            .get("kubernetes.io/config.source")
            .is_some_and(|source| source != "api")
            || annotations.contains_key("kubernetes.io/config.mirror")
    });
    is_static || priority(pod) >= CRITICAL_PRIORITY
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// The pod to evict, its place in the list and the message that tells it why. Nothing when only critical pods are
/// left.
pub fn choose(met: &Met, contestants: &[Contestant<'_>]) -> Option<(usize, String)> {
    let candidates = contestants
        .iter()
        .enumerate()
        .filter(|(_, contestant)| !is_critical(contestant.pod));
    let (index, contestant) = candidates.min_by_key(|(_, contestant)| rank(met.signal, contestant))?;
    Some((index, message(met, contestant)))
}

/// The lowest goes first.
fn rank(signal: Signal, contestant: &Contestant<'_>) -> (bool, i32, Reverse<i64>) {
    let used = contestant.whole.of(signal);
    let requests = Demand::of(contestant.pod).requests;
    // Neither inodes nor processes can be asked for, so nobody has a right to any.
    let (asked, is_within) = match signal {
        Signal::MemoryAvailable => (requests.memory, used <= requests.memory),
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => (requests.storage, used <= requests.storage),
        Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::PidAvailable => (0, false),
    };
    (is_within, priority(contestant.pod), Reverse(used - asked))
}

/// Kubelet's message: what was short, and which containers used more of it than they had asked for.
fn message(met: &Met, contestant: &Contestant<'_>) -> String {
    let resource = met.signal.resource();
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        amount(met.signal, met.wanted),
        amount(met.signal, met.available)
    );
    let spec = contestant.pod.spec.as_ref();
    for container in spec.map(|spec| spec.containers.as_slice()).unwrap_or_default() {
        let Some(used) = contestant.containers.get(&container.name) else {
            continue;
        };
        let used = used.of(met.signal);
        let requests = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        let asked = Quantity::get(requests, resource).map_or(0, Quantity::value);
        if used > asked {
            message += &format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                amount(met.signal, used),
                amount(met.signal, asked)
            );
        }
    }
    message
}

/// Bytes in kibibytes as kubelet prints them, other things as numbers.
fn amount(signal: Signal, value: i64) -> String {
    match signal {
        Signal::MemoryAvailable | Signal::NodeFsAvailable | Signal::ImageFsAvailable => {
            match u64::try_from(value) {
                Ok(bytes) if bytes % 1024 == 0 => Quantity::from_bytes(bytes).to_string(),
                Ok(bytes) => bytes.to_string(),
                Err(_) => value.to_string(),
            }
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name uses=N asks=N priority=N`, in mebibytes; `static` for a pod from a file.
    fn contestant(words: &str) -> (Pod, Use) {
        let number = |key: &str| -> i64 {
            let found = words.split(' ').find_map(|word| word.strip_prefix(key));
            found.map_or(0, |text| text.parse().unwrap())
        };
        let name = words.split(' ').next().unwrap();
        let source = if words.ends_with("static") { "file" } else { "api" };
        let pod = serde_json::json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/config.source": source}},
            "spec": {"priority": number("priority="), "containers": [
                {"name": "web", "resources": {"requests": {"memory": format!("{}Mi", number("asks="))}}}]},
        });
        let bytes = number("uses=") << 20;
        let used = Use {
            memory: bytes,
            disk: bytes,
            inodes: number("files="),
            processes: number("processes="),
        };
        (serde_json::from_value(pod).unwrap(), used)
    }

    /// All pods in the order in which they go, and the message that the first gets.
    fn order(signal: Signal, words: &[&str]) -> (String, String) {
        let all: Vec<(Pod, Use)> = words.iter().map(|words| contestant(words)).collect();
        let uses: Vec<BTreeMap<String, Use>> = all
            .iter()
            .map(|(_, used)| BTreeMap::from([("web".to_owned(), *used)]))
            .collect();
        let mut left: Vec<Contestant<'_>> = all
            .iter()
            .zip(&uses)
            .map(|((pod, whole), containers)| Contestant {
                pod,
                whole: *whole,
                containers,
            })
            .collect();
        let met = Met {
            signal,
            wanted: 100 << 20,
            available: 50 << 20,
        };
        let (mut names, mut first) = (Vec::new(), String::new());
        while let Some((index, message)) = choose(&met, &left) {
            if names.is_empty() {
                first = message;
            }
            names.push(left.remove(index).pod.metadata.name.clone().unwrap());
        }
        (names.join(" "), first)
    }

    #[test]
    fn memory_hogs_go_before_the_modest_the_unimportant_before_the_important() {
        let (order, message) = order(
            Signal::MemoryAvailable,
            &[
                "modest uses=50 asks=100",
                "greedy uses=150 asks=100",
                "greediest uses=300 asks=100",
                "important uses=900 asks=100 priority=10",
                "idle uses=1 asks=100",
                "critical uses=999 priority=2000000000",
                "from-a-file uses=999 static",
            ],
        );
        assert_eq!(order, "greediest greedy important modest idle");
        assert_eq!(
            message,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container web was using 300Mi, request is 100Mi, has larger consumption of memory. "
        );
    }

    #[test]
    fn disk_inodes_and_processes_have_orders_of_their_own() {
        let pods = [
            "a uses=5 files=9 processes=1",
            "b uses=9 files=5 processes=2",
            "c uses=7 files=7 processes=3 priority=-1",
        ];
        assert_eq!(order(Signal::NodeFsAvailable, &pods).0, "c b a");
        assert_eq!(order(Signal::ImageFsInodesFree, &pods).0, "c a b");
        assert_eq!(order(Signal::PidAvailable, &pods).0, "c b a");
        assert_eq!(
            order(Signal::NodeFsInodesFree, &pods).1,
            "The node was low on resource: inodes. Threshold quantity: 104857600, available: 52428800. \
             Container web was using 7, request is 0, has larger consumption of inodes. "
        );
    }
}
