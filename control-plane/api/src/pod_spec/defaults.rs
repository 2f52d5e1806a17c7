//! What Kubernetes fills in.

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, HTTPGetAction, LifecycleHandler, Pod, PodSpec, Probe,
    ResourceRequirements, Volume,
};

use crate::{quantity, static_pods};

/// Fills `field` in when it is absent or empty.
fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

/// Defaults of specs in pods and in templates.
pub(crate) fn set_defaults(spec: &mut PodSpec) {
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    if spec.service_account_name.as_deref().is_none_or(str::is_empty) {
        spec.service_account_name = spec.service_account.clone().filter(|name| !name.is_empty());
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        set_container_defaults(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        set_ephemeral_defaults(container);
    }
    spec.volumes.iter_mut().flatten().for_each(set_volume_defaults);
}

/// Further defaults of pods themselves; templates stay without them.
pub(crate) fn set_pod_defaults(pod: &mut Pod) {
    let has_account = !static_pods::is_mirror(pod);
    let spec = pod.spec.get_or_insert_default();
    set_defaults(spec);
    if has_account {
        text(&mut spec.service_account_name, "default");
    }
    spec.service_account.clone_from(&spec.service_account_name);
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        request_what_is_limited(container);
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            port.host_port.get_or_insert(port.container_port);
        }
    }
}

/// A limit without a request requests the limit.
fn request_what_is_limited(container: &mut Container) {
    let Some(resources) = &mut container.resources else {
        return;
    };
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn set_container_defaults(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    set_resource_defaults(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    for env in container.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
            text(&mut field.api_version, "v1");
        }
    }
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(set_probe_defaults);
    if let Some(lifecycle) = &mut container.lifecycle {
        let handlers = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        handlers.into_iter().flatten().for_each(set_handler_defaults);
    }
}

fn set_ephemeral_defaults(container: &mut EphemeralContainer) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    container.resources.get_or_insert_default();
}

fn set_resource_defaults(resources: &mut ResourceRequirements) {
    quantity::make_canonical(resources.limits.as_mut());
    quantity::make_canonical(resources.requests.as_mut());
}

/// `Always` for the tag `latest`, given or implied.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let (name, has_digest) = match last.split_once('@') {
        Some((name, _)) => (name, true),
        None => (last, false),
    };
    match name.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !has_digest => "Always",
        _ => "IfNotPresent",
    }
}

fn set_probe_defaults(probe: &mut Probe) {
    for (field, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.is_none_or(|seconds| seconds == 0) {
            *field = Some(default);
        }
    }
    probe.http_get.iter_mut().for_each(set_http_defaults);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn set_handler_defaults(handler: &mut LifecycleHandler) {
    handler.http_get.iter_mut().for_each(set_http_defaults);
}

fn set_http_defaults(get: &mut HTTPGetAction) {
    text(&mut get.path, "/");
    text(&mut get.scheme, "HTTP");
}

const READABLE: i32 = 0o644;

fn set_volume_defaults(volume: &mut Volume) {
    if super::volumes::sources(volume).is_empty() {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(READABLE);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(READABLE);
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(READABLE);
        for field in downward
            .items
            .iter_mut()
            .flatten()
            .filter_map(|item| item.field_ref.as_mut())
        {
            text(&mut field.api_version, "v1");
        }
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(READABLE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            let items = source
                .downward_api
                .iter_mut()
                .filter_map(|api| api.items.as_mut())
                .flatten();
            for field in items.filter_map(|item| item.field_ref.as_mut()) {
                text(&mut field.api_version, "v1");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_latest_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("flotilla.dev/demo:v1", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
