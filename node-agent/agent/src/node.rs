//! The Node object as the agent sees its machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::gauges::memory_bytes;
use flotilla_api::ingresses::PORTS_ANNOTATION;
use flotilla_api::quantity;
use flotilla_images::ImageSummary;
use flotilla_ingress::Listening;
use flotilla_lifecycle::Quantities;
use flotilla_lifecycle::pressure::Pressures;
use flotilla_lifecycle::reserve::Reserve;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// The version that clients see, in kubelet's place.
const KUBELET_VERSION: &str = "v1.35.0+flotilla";
/// As many pods as kubelet takes.
const PODS_MAX: u32 = 110;
/// Kubelet's `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;

/// What never changes while the agent runs.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) info: NodeSystemInfo,
    pub(crate) capacity: Quantities,
    /// What pods may have of it.
    pub(crate) allocatable: Quantities,
}

/// What may change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Why pods cannot run here; none when they can.
    pub(crate) obstacle: Option<String>,
    pub(crate) pressures: Pressures,
    pub(crate) images: Vec<(Vec<String>, u64)>,
    /// Where Ingresses are served.
    pub(crate) listening: Listening,
}

impl Host {
    /// Looks at this machine.
    pub(crate) fn detect(
        name: &str,
        address: IpAddr,
        labels: &BTreeMap<String, String>,
        data_dir: &Path,
        reserve: &Reserve,
    ) -> Self {
        let mut all = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), name.to_owned()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
        ]);
        all.extend(labels.clone());
        let capacity = capacity(data_dir);
        Self {
            name: name.to_owned(),
            addresses: vec![address],
            labels: all,
            info: system_info(),
            allocatable: reserve.allocatable(&capacity),
            capacity,
        }
    }

    /// The Node object; times of conditions carry over from `previous` where the status is the same.
    pub(crate) fn node(&self, condition: &Condition, previous: Option<&Node>, now: Timestamp) -> Node {
        let before = previous
            .and_then(|node| node.status.as_ref())
            .and_then(|status| status.conditions.as_deref());
        let mut conditions = conditions(condition);
        for condition in &mut conditions {
            let same = before
                .unwrap_or_default()
                .iter()
                .find(|known| known.type_ == condition.type_);
            let since = same.filter(|known| known.status == condition.status);
            let since = since.and_then(|known| known.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or(Time(now)));
            condition.last_heartbeat_time = Some(Time(now));
        }
        let addresses = self.addresses.iter().map(|ip| ("InternalIP", ip.to_string()));
        let addresses = addresses.chain([("Hostname", self.name.clone())]);
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                // Told also when there are none: what a node says of itself replaces what it said before.
                annotations: Some([(PORTS_ANNOTATION.to_owned(), ports(condition.listening))].into()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: Some(NodeStatus {
                addresses: Some(
                    addresses
                        .map(|(type_, address)| NodeAddress {
                            type_: type_.to_owned(),
                            address,
                        })
                        .collect(),
                ),
                capacity: Some(self.capacity.clone()),
                allocatable: Some(self.allocatable.clone()),
                conditions: Some(conditions),
                images: Some(images(condition)),
                node_info: Some(self.info.clone()),
                ..NodeStatus::default()
            }),
        }
    }
}

fn ports(listening: Listening) -> String {
    let open = [listening.http, listening.https].into_iter().flatten();
    open.map(|port| port.to_string()).collect::<Vec<_>>().join(",")
}

fn images(condition: &Condition) -> Vec<ContainerImage> {
    let image = |(names, size): &(Vec<String>, u64)| ContainerImage {
        names: Some(names.clone()),
        size_bytes: i64::try_from(*size).ok(),
    };
    condition.images.iter().take(IMAGES_MAX).map(image).collect()
}

fn conditions(condition: &Condition) -> Vec<NodeCondition> {
    let pressure = |type_: &str, is_low: bool, low: (&str, &str), fine: (&str, &str)| {
        let (reason, message) = if is_low { low } else { fine };
        node_condition(type_, is_low, reason, message)
    };
    let ready = match &condition.obstacle {
        None => node_condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Some(obstacle) => node_condition("Ready", false, "KubeletNotReady", obstacle),
    };
    vec![
        pressure(
            "MemoryPressure",
            condition.pressures.memory,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        pressure(
            "DiskPressure",
            condition.pressures.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            condition.pressures.pid,
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

fn node_condition(type_: &str, is_true: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: if is_true { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..NodeCondition::default()
    }
}

/// Puts together what may change.
pub(crate) fn observe(
    pressures: Pressures,
    images: &[ImageSummary],
    obstacle: Option<String>,
    listening: Listening,
) -> Condition {
    Condition {
        obstacle,
        listening,
        pressures,
        images: named_by_size(images),
    }
}

/// Digests before tags, the largest image first: kubelet's order, which its cap of the list relies on.
fn named_by_size(images: &[ImageSummary]) -> Vec<(Vec<String>, u64)> {
    let names = |image: &ImageSummary| image.digests.iter().chain(&image.references).cloned().collect();
    let mut named: Vec<(Vec<String>, u64)> = images
        .iter()
        .map(|image| (names(image), image.size_bytes))
        .collect();
    named.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    named
}

fn capacity(data_dir: &Path) -> Quantities {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("pods".to_owned(), Quantity(PODS_MAX.to_string())),
    ]);
    if let Some(bytes) = memory_bytes(&read("/proc/meminfo"), "MemTotal") {
        capacity.insert("memory".to_owned(), Quantity(format!("{}Ki", bytes >> 10)));
    }
    if let Ok(disk) = rustix::fs::statvfs(data_dir) {
        let bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
        capacity.insert(
            "ephemeral-storage".to_owned(),
            Quantity(format!("{}Ki", bytes >> 10)),
        );
    }
    capacity.extend(huge_pages(Path::new("/sys/kernel/mm/hugepages")));
    capacity
}

/// Huge pages by size, as `hugepages-2Mi`; sizes of which there are none are named as well.
fn huge_pages(folder: &Path) -> Quantities {
    let sizes = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let pages = sizes.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kibibytes: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count: u64 = read(entry.path().join("nr_hugepages")).parse().ok()?;
        let size = quantity::Quantity::from_bytes(kibibytes << 10);
        let all = quantity::Quantity::from_bytes((kibibytes << 10).saturating_mul(count));
        Some((format!("hugepages-{size}"), all.to_field()))
    });
    pages.collect()
}

/// A file's content without the end of its last line, empty when it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn system_info() -> NodeSystemInfo {
    let machine_id = read("/etc/machine-id");
    let system_uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: concat!("flotilla://", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel_version: rustix::system::uname().release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        system_uuid: if system_uuid.is_empty() {
            machine_id.clone()
        } else {
            system_uuid
        },
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        swap: None,
    }
}

fn os_image(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let labels = BTreeMap::from([("node-role.kubernetes.io/control-plane".to_owned(), String::new())]);
        Host::detect(
            "agent-1",
            "10.0.0.1".parse().unwrap(),
            &labels,
            Path::new("/"),
            &Reserve::default(),
        )
    }

    #[test]
    fn the_node_describes_the_machine() {
        let node = host().node(&Condition::default(), None, Timestamp::UNIX_EPOCH);
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/hostname"], "agent-1");
        assert!(labels.contains_key("node-role.kubernetes.io/control-plane"));
        let status = node.status.unwrap();
        let addresses: Vec<String> = status
            .addresses
            .unwrap()
            .into_iter()
            .map(|a| a.type_ + "=" + &a.address)
            .collect();
        assert_eq!(addresses, ["InternalIP=10.0.0.1", "Hostname=agent-1"]);
        let capacity = status.capacity.unwrap();
        assert_eq!(capacity["pods"].0, "110");
        assert_ne!(capacity["memory"].0, "0Ki");
        assert_ne!(status.allocatable.unwrap()["memory"], capacity["memory"]);
    }

    #[test]
    fn the_node_says_where_it_serves_ingresses() {
        let said = |http, https| {
            let condition = Condition {
                listening: Listening { http, https },
                ..Condition::default()
            };
            let node = host().node(&condition, None, Timestamp::UNIX_EPOCH);
            node.metadata.annotations.unwrap()[PORTS_ANNOTATION].clone()
        };
        assert_eq!(said(None, None), "");
        assert_eq!(said(Some(80), None), "80");
        assert_eq!(said(Some(80), Some(443)), "80,443");
    }

    #[test]
    fn huge_pages_are_counted_by_size() {
        let folder = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "3"), ("hugepages-1048576kB", "0")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(
                folder.path().join(name).join("nr_hugepages"),
                format!("{count}\n"),
            )
            .unwrap();
        }
        let found: Vec<String> = huge_pages(folder.path())
            .iter()
            .map(|(name, amount)| format!("{name}={}", amount.0))
            .collect();
        assert_eq!(found, ["hugepages-1Gi=0", "hugepages-2Mi=6Mi"]);
        assert!(huge_pages(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn transition_times_change_only_with_the_condition() {
        let host = host();
        let obstacle = Condition {
            obstacle: Some("no network yet".to_owned()),
            ..Condition::default()
        };
        let since = |node: &Node, type_: &str| {
            let conditions = node.status.clone().unwrap().conditions.unwrap();
            let found = conditions
                .into_iter()
                .find(|condition| condition.type_ == type_)
                .unwrap();
            (found.status, found.last_transition_time.unwrap().0.as_second())
        };
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let first = host.node(&obstacle, None, at(1));
        let second = host.node(&Condition::default(), Some(&first), at(2));
        assert_eq!(since(&second, "Ready"), ("True".to_owned(), 2));
        assert_eq!(since(&second, "DiskPressure"), ("False".to_owned(), 1));
    }

    #[test]
    fn the_system_is_named_by_its_release_file() {
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(os_image(""), "Linux");
    }
}
