//! How the fields of the built-in types are merged: a table by OpenAPI schema name and field.
//!
//! Only fields with a strategy of their own and the way to them are listed. A field that is not listed is
//! merged like a plain map, and replaced when it is a list.

/// How one field is merged by a strategic merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merging {
    /// The schema of the field's value, or of its elements when it is a list.
    pub schema: Option<&'static str>,
    /// Whether a list is merged with what is there instead of replacing it.
    pub merges: bool,
    /// The field by which elements of a merged list are told apart; none for a list of scalars.
    pub key: Option<&'static str>,
    /// Whether the client may send `$retainKeys` to clear the fields that it does not name.
    pub retains_keys: bool,
}

impl Merging {
    /// The value of `x-kubernetes-patch-strategy` in OpenAPI.
    pub fn strategy(&self) -> Option<&'static str> {
        match (self.merges, self.retains_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        }
    }
}

/// How `field` of the type `schema` is merged.
pub fn merging(schema: &str, field: &str) -> Merging {
    if schema.is_empty() {
        return Merging::default();
    }
    FIELDS
        .iter()
        .find(|(owners, name, _)| *name == field && owners.contains(&schema))
        .map(|(_, _, merging)| *merging)
        .unwrap_or_default()
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const CONDITION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Condition";

macro_rules! core {
    ($name:literal) => {
        concat!("io.k8s.api.core.v1.", $name)
    };
}
macro_rules! apps {
    ($name:literal) => {
        concat!("io.k8s.api.apps.v1.", $name)
    };
}

const fn into(schema: &'static str) -> Merging {
    Merging {
        schema: Some(schema),
        merges: false,
        key: None,
        retains_keys: false,
    }
}

const fn by(key: &'static str, schema: &'static str) -> Merging {
    Merging {
        schema: Some(schema),
        merges: true,
        key: Some(key),
        retains_keys: false,
    }
}

const fn by_retaining(key: &'static str, schema: &'static str) -> Merging {
    Merging {
        schema: Some(schema),
        merges: true,
        key: Some(key),
        retains_keys: true,
    }
}

const SET: Merging = Merging {
    schema: None,
    merges: true,
    key: None,
    retains_keys: false,
};
const CONTAINERS: &[&str] = &[core!("Container"), core!("EphemeralContainer")];
const OBJECTS: &[&str] = &[
    core!("ConfigMap"),
    core!("Endpoints"),
    core!("Event"),
    core!("Namespace"),
    core!("Node"),
    core!("Pod"),
    core!("PodTemplateSpec"),
    core!("ReplicationController"),
    core!("Secret"),
    core!("Service"),
    core!("ServiceAccount"),
    apps!("ControllerRevision"),
    apps!("Deployment"),
    apps!("ReplicaSet"),
    apps!("StatefulSet"),
    "io.k8s.api.coordination.v1.Lease",
    "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.events.v1.Event",
    "io.k8s.api.scheduling.v1.PriorityClass",
];
const TEMPLATED: &[&str] = &[
    apps!("DeploymentSpec"),
    apps!("ReplicaSetSpec"),
    apps!("StatefulSetSpec"),
    core!("ReplicationControllerSpec"),
];

type Field = (&'static [&'static str], &'static str, Merging);

const FIELDS: &[Field] = &[
    // Every object.
    (OBJECTS, "metadata", into(META)),
    (
        &[META],
        "ownerReferences",
        by("uid", "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"),
    ),
    (&[META], "finalizers", SET),
    // Pods and what makes them.
    (
        &[core!("Pod"), core!("PodTemplateSpec")],
        "spec",
        into(core!("PodSpec")),
    ),
    (&[core!("Pod")], "status", into(core!("PodStatus"))),
    (&[core!("PodSpec")], "containers", by("name", core!("Container"))),
    (
        &[core!("PodSpec")],
        "initContainers",
        by("name", core!("Container")),
    ),
    (
        &[core!("PodSpec")],
        "ephemeralContainers",
        by("name", core!("EphemeralContainer")),
    ),
    (
        &[core!("PodSpec")],
        "volumes",
        by_retaining("name", core!("Volume")),
    ),
    (
        &[core!("PodSpec")],
        "imagePullSecrets",
        by("name", core!("LocalObjectReference")),
    ),
    (&[core!("PodSpec")], "hostAliases", by("ip", core!("HostAlias"))),
    (
        &[core!("PodSpec")],
        "topologySpreadConstraints",
        by("topologyKey", core!("TopologySpreadConstraint")),
    ),
    (
        &[core!("PodSpec")],
        "schedulingGates",
        by("name", core!("PodSchedulingGate")),
    ),
    (
        &[core!("PodSpec")],
        "resourceClaims",
        by_retaining("name", core!("PodResourceClaim")),
    ),
    (CONTAINERS, "ports", by("containerPort", core!("ContainerPort"))),
    (CONTAINERS, "env", by("name", core!("EnvVar"))),
    (CONTAINERS, "volumeMounts", by("mountPath", core!("VolumeMount"))),
    (
        CONTAINERS,
        "volumeDevices",
        by("devicePath", core!("VolumeDevice")),
    ),
    (
        &[core!("PodStatus")],
        "conditions",
        by("type", core!("PodCondition")),
    ),
    (&[core!("PodStatus")], "podIPs", by("ip", core!("PodIP"))),
    (&[core!("PodStatus")], "hostIPs", by("ip", core!("HostIP"))),
    (
        &[core!("PodStatus")],
        "resourceClaimStatuses",
        by_retaining("name", core!("PodResourceClaimStatus")),
    ),
    // Workloads.
    (TEMPLATED, "template", into(core!("PodTemplateSpec"))),
    (&[apps!("Deployment")], "spec", into(apps!("DeploymentSpec"))),
    (&[apps!("Deployment")], "status", into(apps!("DeploymentStatus"))),
    (
        &[apps!("DeploymentSpec")],
        "strategy",
        Merging {
            schema: Some(apps!("DeploymentStrategy")),
            merges: false,
            key: None,
            retains_keys: true,
        },
    ),
    (
        &[apps!("DeploymentStatus")],
        "conditions",
        by("type", apps!("DeploymentCondition")),
    ),
    (&[apps!("ReplicaSet")], "spec", into(apps!("ReplicaSetSpec"))),
    (&[apps!("ReplicaSet")], "status", into(apps!("ReplicaSetStatus"))),
    (
        &[apps!("ReplicaSetStatus")],
        "conditions",
        by("type", apps!("ReplicaSetCondition")),
    ),
    (&[apps!("StatefulSet")], "spec", into(apps!("StatefulSetSpec"))),
    (
        &[apps!("StatefulSet")],
        "status",
        into(apps!("StatefulSetStatus")),
    ),
    (
        &[apps!("StatefulSetStatus")],
        "conditions",
        by("type", apps!("StatefulSetCondition")),
    ),
    (
        &[core!("ReplicationController")],
        "spec",
        into(core!("ReplicationControllerSpec")),
    ),
    (
        &[core!("ReplicationController")],
        "status",
        into(core!("ReplicationControllerStatus")),
    ),
    (
        &[core!("ReplicationControllerStatus")],
        "conditions",
        by("type", core!("ReplicationControllerCondition")),
    ),
    // Nodes, namespaces, services, accounts.
    (&[core!("Node")], "spec", into(core!("NodeSpec"))),
    (&[core!("Node")], "status", into(core!("NodeStatus"))),
    (&[core!("NodeSpec")], "podCIDRs", SET),
    (
        &[core!("NodeStatus")],
        "conditions",
        by("type", core!("NodeCondition")),
    ),
    (
        &[core!("NodeStatus")],
        "addresses",
        by("type", core!("NodeAddress")),
    ),
    (&[core!("Namespace")], "status", into(core!("NamespaceStatus"))),
    (
        &[core!("NamespaceStatus")],
        "conditions",
        by("type", core!("NamespaceCondition")),
    ),
    (&[core!("Service")], "spec", into(core!("ServiceSpec"))),
    (&[core!("Service")], "status", into(core!("ServiceStatus"))),
    (&[core!("ServiceSpec")], "ports", by("port", core!("ServicePort"))),
    (&[core!("ServiceStatus")], "conditions", by("type", CONDITION)),
    (
        &[core!("ServiceAccount")],
        "secrets",
        by("name", core!("ObjectReference")),
    ),
];
