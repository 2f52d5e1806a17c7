//! What a pod's security settings and shared namespaces ask of the runtime. Pure.

use std::collections::BTreeMap;

use flotilla_api::qos_class;
use flotilla_api::quantity::Quantity;
use flotilla_lifecycle::Quantities;
use flotilla_runtime::{ContainerSpec, PidNamespace, QosClass, SandboxSpec, Seccomp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SeccompProfile};

/// The score of what must not be killed for want of memory as long as anything else can be.
const SCORE_GUARANTEED: i32 = -997;

/// The score of what goes first.
const SCORE_BEST_EFFORT: i32 = 1000;

/// Adds what the pod says about the namespaces of its sandbox.
pub(super) fn isolate(sandbox: &mut SandboxSpec, pod: &Pod) {
    let Some(spec) = &pod.spec else { return };
    sandbox.qos = class(spec);
    sandbox.user_namespace = spec.host_users == Some(false);
    sandbox.host_ipc = spec.host_ipc == Some(true);
    sandbox.pids = if spec.host_pid == Some(true) {
        PidNamespace::Node
    } else if spec.share_process_namespace == Some(true) {
        PidNamespace::Pod
    } else {
        PidNamespace::Container
    };
    let sysctls = spec
        .security_context
        .as_ref()
        .and_then(|context| context.sysctls.as_ref());
    sandbox.sysctls = sysctls
        .into_iter()
        .flatten()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
}

/// Adds what pod and container say about the confinement of its processes.
pub(super) fn confine(
    started: &mut ContainerSpec,
    pod: &Pod,
    container: &Container,
    allocatable: &Quantities,
) {
    let own = container.security_context.as_ref();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    started.privileged = own.is_some_and(|context| context.privileged == Some(true));
    started.unmasked_proc = own.is_some_and(|context| context.proc_mount.as_deref() == Some("Unmasked"));
    started.seccomp = own
        .and_then(|context| context.seccomp_profile.as_ref())
        .or(of_pod.and_then(|context| context.seccomp_profile.as_ref()))
        .map(seccomp)
        .unwrap_or_default();
    let apparmor = own
        .and_then(|context| context.app_armor_profile.as_ref())
        .or(of_pod.and_then(|context| context.app_armor_profile.as_ref()));
    started.apparmor_profile = apparmor
        .filter(|profile| profile.type_ == "Localhost")
        .and_then(|profile| profile.localhost_profile.clone());
    started.resources.huge_pages = huge_pages(container);
    started.oom_score_adj = pod
        .spec
        .as_ref()
        .map(|spec| oom_score(spec, container, allocatable));
}

fn seccomp(profile: &SeccompProfile) -> Seccomp {
    match profile.type_.as_str() {
        "Unconfined" => Seccomp::Unconfined,
        "Localhost" => Seccomp::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => Seccomp::RuntimeDefault,
    }
}

fn class(spec: &PodSpec) -> QosClass {
    match qos_class(spec) {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        _ => QosClass::BestEffort,
    }
}

/// Limits of huge pages (`hugepages-2Mi`) by the kernel's names for their sizes (`2MB`).
fn huge_pages(container: &Container) -> BTreeMap<String, u64> {
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    let of_size = |name: &String| {
        let size = name.strip_prefix("hugepages-")?;
        let (digits, unit) = size.split_at_checked(size.len().checked_sub(2)?)?;
        let unit = match unit {
            "Ki" => "KB",
            "Mi" => "MB",
            "Gi" => "GB",
            _ => return None,
        };
        let bytes = Quantity::get(limits, name).map(Quantity::value)?;
        Some((format!("{digits}{unit}"), u64::try_from(bytes).ok()?))
    };
    limits
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter_map(of_size)
        .collect()
}

/// Kubelet's: burstable containers score the lower, the more of the node's memory they have asked for.
fn oom_score(spec: &PodSpec, container: &Container, allocatable: &Quantities) -> i32 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return SCORE_GUARANTEED;
    }
    match class(spec) {
        QosClass::Guaranteed => SCORE_GUARANTEED,
        QosClass::BestEffort => SCORE_BEST_EFFORT,
        QosClass::Burstable => {
            let requests = container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref());
            let bytes = |quantities| Quantity::get(quantities, "memory").map_or(0, Quantity::value);
            let (request, capacity) = (bytes(requests), bytes(Some(allocatable)).max(1));
            let score = 1000 - i128::from(request) * 1000 / i128::from(capacity);
            // Between the other classes, whatever is asked for.
            i32::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    fn confined(spec: &Value) -> ContainerSpec {
        let pod = pod(spec);
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let allocatable: Quantities = serde_json::from_value(json!({"memory": "1Gi"})).unwrap();
        let mut started = ContainerSpec::default();
        confine(&mut started, &pod, &container, &allocatable);
        started
    }

    #[test]
    fn the_containers_profile_goes_before_the_pods() {
        let of_pod = json!({"seccompProfile": {"type": "Unconfined"}});
        let own = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        let spec = confined(&json!({
            "securityContext": of_pod,
            "containers": [{"name": "c", "securityContext": own}]
        }));
        assert_eq!(spec.seccomp, Seccomp::Localhost("a/b.json".into()));
        let spec = confined(&json!({"securityContext": of_pod, "containers": [{"name": "c"}]}));
        assert_eq!(spec.seccomp, Seccomp::Unconfined);
        let silent = confined(&json!({"containers": [{"name": "c"}]}));
        assert_eq!(silent.seccomp, Seccomp::RuntimeDefault);
        assert!(!silent.privileged && !silent.unmasked_proc && silent.apparmor_profile.is_none());
    }

    #[test]
    fn the_score_follows_class_and_request() {
        let score = |resources: &Value| {
            let spec = confined(&json!({"containers": [{"name": "c", "resources": resources}]}));
            spec.oom_score_adj.unwrap()
        };
        assert_eq!(score(&json!({})), 1000);
        assert_eq!(score(&json!({"requests": {"memory": "256Mi"}})), 750);
        assert_eq!(score(&json!({"requests": {"memory": "4Gi"}})), 3);
        assert_eq!(score(&json!({"requests": {"cpu": "10m"}})), 999);
        let all = json!({"cpu": "1", "memory": "1Mi"});
        assert_eq!(score(&json!({"requests": all, "limits": all})), -997);
    }

    #[test]
    fn huge_pages_are_named_as_the_kernel_names_them() {
        let limits = json!({"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi", "memory": "1Gi"});
        let spec = confined(&json!({"containers": [{"name": "c", "resources": {"limits": limits}}]}));
        let expected = [("1GB".to_owned(), 1 << 30), ("2MB".to_owned(), 4 << 20)];
        assert_eq!(spec.resources.huge_pages, expected.into());
    }

    #[test]
    fn shared_namespaces_and_parameters_are_the_sandboxs() {
        let mut sandbox = SandboxSpec::default();
        let pod = pod(&json!({
            "hostIPC": true,
            "hostUsers": false,
            "shareProcessNamespace": true,
            "containers": [{"name": "c"}],
            "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "77"}]}
        }));
        isolate(&mut sandbox, &pod);
        assert_eq!(
            (sandbox.pids, sandbox.host_ipc, sandbox.qos),
            (PidNamespace::Pod, true, QosClass::BestEffort)
        );
        assert!(sandbox.user_namespace);
        assert_eq!(sandbox.sysctls["net.core.somaxconn"], "77");
    }
}
