//! Pod

mod columns;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::builder::{Builder, FieldAccess, PartRule};
use crate::field::{FieldErrors, Path};
use crate::kind::{Kind, SubresourceInfo};
use crate::{pod_spec, static_pods};

/// A subresource that turns a connection into streams.
const fn streams(name: &'static str, kind: &'static str) -> SubresourceInfo {
    SubresourceInfo {
        name,
        group: "",
        version: "v1",
        kind,
        verbs: &["create", "get"],
    }
}

const SUBRESOURCES: &[SubresourceInfo] = &[
    streams("attach", "PodAttachOptions"),
    SubresourceInfo {
        name: "binding",
        group: "",
        version: "v1",
        kind: "Binding",
        verbs: &["create"],
    },
    SubresourceInfo {
        name: "ephemeralcontainers",
        group: "",
        version: "v1",
        kind: "Pod",
        verbs: &["get", "patch", "update"],
    },
    SubresourceInfo {
        name: "eviction",
        group: "policy",
        version: "v1",
        kind: "Eviction",
        verbs: &["create"],
    },
    streams("exec", "PodExecOptions"),
    SubresourceInfo {
        name: "log",
        group: "",
        version: "v1",
        kind: "Pod",
        verbs: &["get"],
    },
    streams("portforward", "PodPortForwardOptions"),
    SubresourceInfo {
        name: "proxy",
        group: "",
        version: "v1",
        kind: "PodProxyOptions",
        verbs: &["get"],
    },
    SubresourceInfo {
        name: "resize",
        group: "",
        version: "v1",
        kind: "Pod",
        verbs: &["get", "patch", "update"],
    },
    super::status("", "v1", "Pod"),
];

const PARTS: &[PartRule<Pod>] = &[
    PartRule {
        name: "ephemeralcontainers",
        take: pod_spec::take_ephemeral,
        validate: pod_spec::validate_ephemeral_update,
    },
    PartRule {
        name: "resize",
        take: pod_spec::take_resources,
        validate: pod_spec::validate_resize,
    },
];

const FIELDS: &[FieldAccess<Pod>] = &[
    ("spec.nodeName", |pod| spec(pod, |spec| spec.node_name.clone())),
    ("spec.restartPolicy", |pod| {
        spec(pod, |spec| spec.restart_policy.clone())
    }),
    ("spec.schedulerName", |pod| {
        spec(pod, |spec| spec.scheduler_name.clone())
    }),
    ("spec.serviceAccountName", |pod| {
        spec(pod, |spec| spec.service_account_name.clone())
    }),
    ("spec.hostNetwork", |pod| {
        spec(pod, |spec| Some(spec.host_network.unwrap_or(false).to_string()))
    }),
    ("status.phase", |pod| status(pod, |status| status.phase.clone())),
    ("status.podIP", |pod| status(pod, |status| status.pod_ip.clone())),
    ("status.nominatedNodeName", |pod| {
        status(pod, |status| status.nominated_node_name.clone())
    }),
];

fn spec(pod: &Pod, get: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<String>) -> String {
    pod.spec.as_ref().and_then(get).unwrap_or_default()
}

fn status(pod: &Pod, get: fn(&PodStatus) -> Option<String>) -> String {
    pod.status.as_ref().and_then(get).unwrap_or_default()
}

pub(crate) fn kind() -> Kind {
    Builder::<Pod>::namespaced("pod")
        .short_names(&["po"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(columns::COLUMNS, columns::cells)
        .fields(FIELDS)
        .defaults(pod_spec::set_pod_defaults)
        .status(|pod| &pod.status, |pod| &mut pod.status)
        .generation(|pod| &pod.spec)
        .on_create(start_pending)
        .on_update(keep_priority)
        .on_status_update(|new, old| {
            new.metadata
                .owner_references
                .clone_from(&old.metadata.owner_references)
        })
        .validate(validate)
        .validate_new(pod_spec::validate_ephemeral_create)
        .validate_update(validate_update)
        .parts(PARTS)
        .grace(grace_seconds)
        .build()
}

fn start_pending(pod: &mut Pod) {
    let qos_class = pod.spec.as_ref().map(|spec| pod_spec::qos_class(spec).to_owned());
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        qos_class,
        ..PodStatus::default()
    });
}

/// Admission gave the pod its priority; a body that leaves it out does not take it back.
fn keep_priority(new: &mut Pod, old: &Pod) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else {
        return;
    };
    new.priority = new.priority.or(old.priority);
    if new.preemption_policy.is_none() {
        new.preemption_policy.clone_from(&old.preemption_policy);
    }
    if new.priority_class_name.is_none() {
        new.priority_class_name.clone_from(&old.priority_class_name);
    }
}

fn validate(pod: &Pod, errors: &mut FieldErrors) {
    match &pod.spec {
        Some(spec) => pod_spec::validate(spec, Path::root("spec"), errors),
        None => errors.required(Path::root("spec"), ""),
    }
}

fn validate_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    static_pods::validate_update(new, old, errors);
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        pod_spec::validate_update(new, old, errors);
    }
}

/// A pod that no node has, or that is done, goes at once.
fn grace_seconds(pod: &Pod, requested: Option<i64>) -> i64 {
    let spec = pod.spec.as_ref();
    let scheduled = spec
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|name| !name.is_empty());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if !scheduled || matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
    match requested.or(own).unwrap_or(0) {
        ..0 => 1,
        seconds => seconds,
    }
}
