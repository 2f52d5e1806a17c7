//! From counters to kubelet's summary: rates, and who they belong to.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_api::summary::{
    ClaimReference, ContainerStats, Cpu, Filesystem, Memory, Network, NodeStats, PodReference, PodStats,
    Processes, Rlimit, Runtime, Summary, VolumeStats,
};
use flotilla_network::Traffic;
use flotilla_runtime::Usage;
use flotilla_volumes::DiskUsage;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::disk_use::{PodDisk, VolumeDisk};
use crate::gauges::{Disk, Reading};

/// What was counted of one pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) started_at: Option<Timestamp>,
    pub(super) whole: Usage,
    pub(super) containers: Vec<Part>,
    pub(super) traffic: Option<Traffic>,
    pub(super) disk: Arc<PodDisk>,
}

/// What was counted of one container.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) started_at: Timestamp,
    pub(super) usage: Usage,
}

/// A container must have run this long before its use so far says anything about its rate.
const YOUNG: Duration = Duration::from_secs(1);

/// The counters of the measurement before, from which rates are made.
#[derive(Debug, Default)]
pub(super) struct Rates {
    before: BTreeMap<String, (Timestamp, u64)>,
    seen: BTreeMap<String, (Timestamp, u64)>,
}

impl Rates {
    /// Nanoseconds of processor time per second since the last measurement, or since the counter was zero.
    fn rate(&mut self, key: String, nanos: u64, zero: Option<Timestamp>, now: Timestamp) -> Option<u64> {
        let (since, before) = match self.before.get(&key) {
            Some((since, before)) if *before <= nanos => (*since, *before),
            _ => (zero?, 0),
        };
        self.seen.insert(key, (now, nanos));
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if elapsed < YOUNG {
            return None;
        }
        let used = u128::from(nanos - before) * 1_000_000_000;
        u64::try_from(used / elapsed.as_nanos()).ok()
    }

    /// Notes a counter that had no zero that is known.
    fn first(&mut self, key: &str, nanos: u64, now: Timestamp) {
        self.seen.entry(key.to_owned()).or_insert((now, nanos));
    }

    /// Forgets what was not measured this time.
    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.seen);
    }
}

/// The summary of a node and its pods.
pub(super) fn summary(
    node_name: &str,
    reading: &Reading,
    pods: &[Measured],
    rates: &mut Rates,
    now: Timestamp,
) -> Summary {
    let disk = reading.node_disk;
    let pods = pods.iter().map(|pod| pod_stats(pod, disk, rates, now)).collect();
    let node = node_stats(node_name, reading, rates, now);
    rates.turn();
    Summary { node, pods }
}

fn node_stats(name: &str, reading: &Reading, rates: &mut Rates, now: Timestamp) -> NodeStats {
    const KEY: &str = "node";
    let cpu = reading.cpu_nanos.map(|nanos| {
        let rate = rates.rate(KEY.to_owned(), nanos, None, now);
        rates.first(KEY, nanos, now);
        Cpu {
            time: Some(stamp(now)),
            usage_nano_cores: rate,
            usage_core_nano_seconds: nanos,
        }
    });
    let memory = reading.memory.map(|memory| Memory {
        time: Some(stamp(now)),
        available_bytes: Some(memory.total_bytes.saturating_sub(memory.working_set_bytes)),
        usage_bytes: memory.usage_bytes,
        working_set_bytes: memory.working_set_bytes,
        rss_bytes: memory.rss_bytes,
        ..Memory::default()
    });
    NodeStats {
        node_name: name.to_owned(),
        start_time: None,
        cpu,
        memory,
        network: None,
        fs: reading.node_disk.map(|disk| filesystem(disk, now)),
        runtime: reading.image_disk.map(|disk| Runtime {
            image_fs: Some(filesystem(disk, now)),
        }),
        rlimit: reading.pids.map(|pids| Rlimit {
            time: Some(stamp(now)),
            maxpid: i64::try_from(pids.max).unwrap_or(i64::MAX),
            curproc: i64::try_from(pids.used).unwrap_or(i64::MAX),
        }),
    }
}

fn pod_stats(pod: &Measured, disk: Option<Disk>, rates: &mut Rates, now: Timestamp) -> PodStats {
    let part = |usage: DiskUsage| disk.map(|disk| filled(disk, usage, now));
    let of = |map: &BTreeMap<String, DiskUsage>, name: &str| map.get(name).copied().and_then(part);
    let containers = pod.containers.iter().map(|container| {
        let key = format!("{}/{}", pod.uid, container.id);
        ContainerStats {
            name: container.name.clone(),
            start_time: Some(stamp(container.started_at)),
            cpu: Some(cpu(key, &container.usage, Some(container.started_at), rates, now)),
            memory: Some(memory(&container.usage, now)),
            rootfs: of(&pod.disk.layers, &container.name),
            logs: of(&pod.disk.logs, &container.name),
        }
    });
    let containers = containers.collect();
    PodStats {
        pod_ref: PodReference {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.clone(),
        },
        start_time: pod.started_at.map(stamp),
        containers,
        cpu: Some(cpu(pod.uid.clone(), &pod.whole, pod.started_at, rates, now)),
        memory: Some(memory(&pod.whole, now)),
        network: pod.traffic.map(|traffic| Network {
            time: Some(stamp(now)),
            name: "eth0".to_owned(),
            rx_bytes: traffic.received_bytes,
            rx_errors: traffic.receive_errors,
            tx_bytes: traffic.sent_bytes,
            tx_errors: traffic.send_errors,
        }),
        volumes: pod
            .disk
            .volumes
            .iter()
            .map(|volume| volume_stats(pod, volume, now))
            .collect(),
        ephemeral_storage: part(pod.disk.whole()),
        processes: Some(Processes {
            process_count: pod.whole.processes,
        }),
    }
}

fn volume_stats(pod: &Measured, volume: &VolumeDisk, now: Timestamp) -> VolumeStats {
    VolumeStats {
        name: volume.place.volume.clone(),
        pvc_ref: volume.place.claim.clone().map(|name| ClaimReference {
            name,
            namespace: pod.namespace.clone(),
        }),
        filesystem: filled(volume.disk, volume.usage, now),
    }
}

/// A part of a file system: its size and what is free are the whole's, what is used is the part's.
fn filled(disk: Disk, usage: DiskUsage, now: Timestamp) -> Filesystem {
    Filesystem {
        used_bytes: usage.bytes,
        inodes_used: usage.inodes,
        ..filesystem(disk, now)
    }
}

fn cpu(key: String, usage: &Usage, zero: Option<Timestamp>, rates: &mut Rates, now: Timestamp) -> Cpu {
    Cpu {
        time: Some(stamp(now)),
        usage_nano_cores: rates.rate(key, usage.cpu_nanos, zero, now),
        usage_core_nano_seconds: usage.cpu_nanos,
    }
}

fn memory(usage: &Usage, now: Timestamp) -> Memory {
    Memory {
        time: Some(stamp(now)),
        available_bytes: None,
        usage_bytes: usage.memory_bytes,
        working_set_bytes: usage.working_set_bytes,
        rss_bytes: usage.rss_bytes,
        page_faults: usage.page_faults,
        major_page_faults: usage.major_page_faults,
    }
}

fn filesystem(disk: Disk, now: Timestamp) -> Filesystem {
    Filesystem {
        time: Some(stamp(now)),
        available_bytes: disk.available_bytes,
        capacity_bytes: disk.capacity_bytes,
        used_bytes: disk.capacity_bytes.saturating_sub(disk.free_bytes),
        inodes_free: disk.inodes_free,
        inodes: disk.inodes,
        inodes_used: disk.inodes.saturating_sub(disk.inodes_free),
    }
}

/// Times in whole seconds, as Kubernetes writes them.
fn stamp(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(nanos: u64) -> Measured {
        let usage = Usage {
            cpu_nanos: nanos,
            working_set_bytes: 7,
            ..Usage::default()
        };
        Measured {
            name: "web".to_owned(),
            uid: "u".to_owned(),
            started_at: Some(at(0)),
            whole: usage,
            containers: vec![Part {
                id: "a-0".to_owned(),
                name: "a".to_owned(),
                started_at: at(0),
                usage,
            }],
            ..Measured::default()
        }
    }

    /// The rates of node and container.
    fn look(rates: &mut Rates, second: i64, node: u64, pods: &[Measured]) -> (Option<u64>, Option<u64>) {
        let reading = Reading {
            cpu_nanos: Some(node),
            ..Reading::default()
        };
        let found = summary("n", &reading, pods, rates, at(second));
        let rate = |cpu: &Option<Cpu>| cpu.as_ref().and_then(|cpu| cpu.usage_nano_cores);
        let container = found.pods.first().and_then(|pod| rate(&pod.containers[0].cpu));
        (rate(&found.node.cpu), container)
    }

    #[test]
    fn a_rate_is_the_difference_of_two_measurements() {
        let mut rates = Rates::default();
        // A container is counted from its start; a machine's first measurement says nothing.
        assert_eq!(look(&mut rates, 10, 500, &[pod(1_000)]), (None, Some(100)));
        assert_eq!(look(&mut rates, 20, 1_500, &[pod(6_000)]), (Some(100), Some(500)));
        // A counter that went back belongs to another cgroup of that name.
        assert_eq!(look(&mut rates, 30, 1_500, &[pod(3_000)]), (Some(0), Some(100)));
        assert_eq!(look(&mut rates, 40, 1_500, &[]), (Some(0), None));
        assert!(!rates.before.contains_key("u/a-0"));
    }

    #[test]
    fn a_container_that_has_just_started_has_no_rate_yet() {
        let mut rates = Rates::default();
        assert_eq!(look(&mut rates, 0, 1, &[pod(1_000)]).1, None);
    }

    #[test]
    fn what_is_on_disk_is_told_of_containers_volumes_and_the_pod() {
        let used = |bytes, inodes| DiskUsage { bytes, inodes };
        let claimed = VolumeDisk {
            place: flotilla_volumes::VolumePlace {
                volume: "data".to_owned(),
                claim: Some("data-0".to_owned()),
                path: "/data".into(),
                kind: flotilla_volumes::PlaceKind::FileSystem,
            },
            disk: Disk {
                available_bytes: 60,
                capacity_bytes: 100,
                free_bytes: 70,
                inodes: 10,
                inodes_free: 8,
            },
            usage: used(30, 2),
        };
        let mut scratch = claimed.clone();
        scratch.place.kind = flotilla_volumes::PlaceKind::OnDisk;
        scratch.place.claim = None;
        scratch.usage = used(5, 1);
        let disk = PodDisk {
            layers: BTreeMap::from([("a".to_owned(), used(7, 3))]),
            logs: BTreeMap::from([("a".to_owned(), used(2, 1))]),
            files: used(1, 1),
            volumes: vec![claimed, scratch],
        };
        let measured = Measured {
            namespace: "d".to_owned(),
            disk: Arc::new(disk),
            ..pod(1)
        };
        let reading = Reading {
            node_disk: Some(Disk {
                capacity_bytes: 1000,
                available_bytes: 500,
                ..Disk::default()
            }),
            ..Reading::default()
        };
        let found = summary("n", &reading, &[measured], &mut Rates::default(), at(10));
        let json = serde_json::to_value(&found.pods[0]).unwrap();
        let container = &json["containers"][0];
        assert_eq!(container["rootfs"]["usedBytes"], 7);
        assert_eq!(container["rootfs"]["capacityBytes"], 1000);
        assert_eq!(container["logs"]["inodesUsed"], 1);
        assert_eq!(json["ephemeral-storage"]["usedBytes"], 15);
        assert_eq!(json["ephemeral-storage"]["availableBytes"], 500);
        let volume = &json["volume"][0];
        assert_eq!(
            volume["pvcRef"],
            serde_json::json!({"name": "data-0", "namespace": "d"})
        );
        assert_eq!(
            (&volume["usedBytes"], &volume["availableBytes"]),
            (&30.into(), &60.into())
        );
        assert_eq!(json["volume"][1]["inodesUsed"], 1);
        assert!(json["volume"][1].get("pvcRef").is_none());
    }
}
