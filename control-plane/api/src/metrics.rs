//! `metrics.k8s.io`: what nodes and pods use. Computed from the nodes' [`Summary`], never stored.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, ListableResource, Metadata, NamespaceResourceScope, Resource};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::summary::{Cpu, Memory, PodStats, Summary};

/// The time over which the rate of processor use is taken, as agents measure it.
const WINDOW: &str = "10s";

/// Amounts by resource.
pub type Usage = BTreeMap<String, Quantity>;

/// What a node uses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetrics {
    /// Name and labels are the node's.
    pub metadata: ObjectMeta,
    /// The end of the interval that was measured.
    pub timestamp: Option<Time>,
    /// Its length.
    pub window: String,
    /// `cpu` and `memory`.
    pub usage: Usage,
}

/// What a pod's containers use.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMetrics {
    /// Name, namespace and labels are the pod's.
    pub metadata: ObjectMeta,
    /// The end of the interval that was measured.
    pub timestamp: Option<Time>,
    /// Its length.
    pub window: String,
    /// By container.
    pub containers: Vec<ContainerMetrics>,
}

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerMetrics {
    /// The container's name.
    pub name: String,
    /// `cpu` and `memory`.
    pub usage: Usage,
}

impl NodeMetrics {
    /// The metrics of a node; nothing before it was measured twice.
    pub fn of(summary: &Summary, labels: Option<BTreeMap<String, String>>) -> Option<Self> {
        let node = &summary.node;
        let (timestamp, usage) = usage(node.cpu.as_ref()?, node.memory.as_ref()?)?;
        Some(Self {
            metadata: ObjectMeta {
                name: Some(node.node_name.clone()),
                creation_timestamp: timestamp.clone(),
                labels,
                ..ObjectMeta::default()
            },
            timestamp,
            window: WINDOW.to_owned(),
            usage,
        })
    }
}

impl PodMetrics {
    /// The metrics of a pod; nothing before all its containers were measured twice.
    pub fn of(pod: &PodStats, labels: Option<BTreeMap<String, String>>) -> Option<Self> {
        let mut timestamp = None;
        let mut containers = Vec::new();
        for container in &pod.containers {
            let (time, usage) = usage(container.cpu.as_ref()?, container.memory.as_ref()?)?;
            timestamp = time;
            containers.push(ContainerMetrics {
                name: container.name.clone(),
                usage,
            });
        }
        if containers.is_empty() {
            return None;
        }
        Some(Self {
            metadata: ObjectMeta {
                name: Some(pod.pod_ref.name.clone()),
                namespace: Some(pod.pod_ref.namespace.clone()),
                creation_timestamp: timestamp.clone(),
                labels,
                ..ObjectMeta::default()
            },
            timestamp,
            window: WINDOW.to_owned(),
            containers,
        })
    }

    /// The pod's use in all: processor in billionths of a core, memory in kibibytes.
    pub(crate) fn total(&self) -> (i64, i64) {
        let sum = |resource| -> i64 {
            let amounts = self.containers.iter().map(|one| amount(&one.usage, resource));
            amounts.sum()
        };
        (sum("cpu"), sum("memory"))
    }
}

fn usage(cpu: &Cpu, memory: &Memory) -> Option<(Option<Time>, Usage)> {
    let rate = cpu.usage_nano_cores?;
    let usage = [
        ("cpu", format!("{rate}n")),
        ("memory", format!("{}Ki", memory.working_set_bytes >> 10)),
    ];
    let usage = usage.map(|(name, amount)| (name.to_owned(), Quantity(amount)));
    Some((cpu.time.clone(), usage.into()))
}

/// The number in an amount that was written by [`usage`].
pub(crate) fn amount(usage: &Usage, resource: &str) -> i64 {
    let text = usage.get(resource).map_or("", |amount| amount.0.as_str());
    text.trim_end_matches(|letter: char| !letter.is_ascii_digit())
        .parse()
        .unwrap_or(0)
}

impl Serialize for NodeMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(Self::KIND, 6)?;
        object.serialize_field("apiVersion", Self::API_VERSION)?;
        object.serialize_field("kind", Self::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("timestamp", &self.timestamp)?;
        object.serialize_field("window", &self.window)?;
        object.serialize_field("usage", &self.usage)?;
        object.end()
    }
}

impl Serialize for PodMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(Self::KIND, 6)?;
        object.serialize_field("apiVersion", Self::API_VERSION)?;
        object.serialize_field("kind", Self::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("timestamp", &self.timestamp)?;
        object.serialize_field("window", &self.window)?;
        object.serialize_field("containers", &self.containers)?;
        object.end()
    }
}

macro_rules! is_kind {
    ($type:ty, $kind:literal, $list:literal, $resource:literal, $scope:ty) => {
        impl Resource for $type {
            const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
            const GROUP: &'static str = "metrics.k8s.io";
            const KIND: &'static str = $kind;
            const VERSION: &'static str = "v1beta1";
            const URL_PATH_SEGMENT: &'static str = $resource;
            type Scope = $scope;
        }

        impl ListableResource for $type {
            const LIST_KIND: &'static str = $list;
        }

        impl Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

is_kind!(
    NodeMetrics,
    "NodeMetrics",
    "NodeMetricsList",
    "nodes",
    ClusterResourceScope
);
is_kind!(
    PodMetrics,
    "PodMetrics",
    "PodMetricsList",
    "pods",
    NamespaceResourceScope
);

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(rate: &str) -> Summary {
        let cpu = format!(r#"{{"time":"2026-01-01T00:00:10Z","usageCoreNanoSeconds":5{rate}}}"#);
        let memory = r#"{"time":"2026-01-01T00:00:10Z","workingSetBytes":2097152}"#;
        let json = format!(
            r#"{{"node":{{"nodeName":"n","cpu":{cpu},"memory":{memory}}},
                "pods":[{{"podRef":{{"name":"p","namespace":"d","uid":"u"}},
                          "containers":[{{"name":"a","cpu":{cpu},"memory":{memory}}}]}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn metrics_are_rates_and_working_sets() {
        let summary = summary(r#","usageNanoCores":12345678"#);
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let node = NodeMetrics::of(&summary, None).unwrap();
        expect_test::expect![[r#"{"apiVersion":"metrics.k8s.io/v1beta1","kind":"NodeMetrics","metadata":{"creationTimestamp":"2026-01-01T00:00:10Z","name":"n"},"timestamp":"2026-01-01T00:00:10Z","window":"10s","usage":{"cpu":"12345678n","memory":"2048Ki"}}"#]]
        .assert_eq(&serde_json::to_string(&node).unwrap());
        let pod = PodMetrics::of(&summary.pods[0], Some(labels)).unwrap();
        expect_test::expect![[r#"{"apiVersion":"metrics.k8s.io/v1beta1","kind":"PodMetrics","metadata":{"creationTimestamp":"2026-01-01T00:00:10Z","labels":{"app":"web"},"name":"p","namespace":"d"},"timestamp":"2026-01-01T00:00:10Z","window":"10s","containers":[{"name":"a","usage":{"cpu":"12345678n","memory":"2048Ki"}}]}"#]]
        .assert_eq(&serde_json::to_string(&pod).unwrap());
        assert_eq!(pod.total(), (12_345_678, 2048));
    }

    #[test]
    fn what_was_measured_only_once_has_no_rate_and_is_left_out() {
        let summary = summary("");
        assert_eq!(NodeMetrics::of(&summary, None), None);
        assert_eq!(PodMetrics::of(&summary.pods[0], None), None);
    }
}
