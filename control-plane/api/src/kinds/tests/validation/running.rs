//! What is refused about probes, hooks, names, and changes of running pods.

use expect_test::{Expect, expect};

use super::super::{create, read};
use super::{check, message};

fn pod(spec: &str, expected: &Expect) {
    check(
        &format!("{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {spec}}}"),
        expected,
    );
}

fn container(fields: &str, expected: &Expect) {
    pod(
        &format!("{{containers: [{{name: web, image: 'a:1', {fields}}}]}}"),
        expected,
    );
}

/// Creates the first pod and changes a part of it as the second says.
fn change(part: &str, old: &str, new: &str, expected: &Expect) {
    let manifest = |spec: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: default}}, spec: {spec}}}")
    };
    let (kind, old) = create(&manifest(old)).unwrap();
    let (_, mut new) = read(&manifest(new));
    kind.prepare_part_update(part, &mut *new, &*old);
    let result = kind.validate_part_update(part, &*new, &*old);
    let generation = new.meta().generation.unwrap_or_default();
    let shown = result.map_or_else(
        |error| message(&error),
        |()| format!("valid, generation {generation}"),
    );
    expected.assert_eq(&shown);
}

#[test]
fn probes_and_hooks() {
    container(
        "readinessProbe: {grpc: {port: 0}, terminationGracePeriodSeconds: 3}, livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: -1}, startupProbe: {httpGet: {port: 1, httpHeaders: [{name: 'a b', value: c}]}}, lifecycle: {preStop: {sleep: {seconds: 40}}, postStart: {exec: {}}}",
        &expect![[r#"
            Pod "web"
            spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: -1: must be greater than 0
            spec.containers[0].readinessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes
            spec.containers[0].startupProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')
            spec.containers[0].lifecycle.postStart.exec.command: Required value
            spec.containers[0].lifecycle.preStop.sleep: Invalid value: 40: must be non-negative and less than terminationGracePeriodSeconds (30)
        "#]],
    );
}

#[test]
fn restart_rules_and_resize_policies() {
    container(
        "restartPolicyRules: [{action: Explode, exitCodes: {operator: Near}}, {action: Restart}], resizePolicy: [{resourceName: disk, restartPolicy: NotRequired}, {resourceName: cpu, restartPolicy: Perhaps}]",
        &expect![[r#"
            Pod "web"
            spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used
            spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Explode": supported values: "Restart"
            spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: "Near": supported values: "In", "NotIn"
            spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified
            spec.containers[0].resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"
            spec.containers[0].resizePolicy: Unsupported value: "Perhaps": supported values: "NotRequired", "RestartContainer"
        "#]],
    );
}

#[test]
fn users_of_its_own_go_with_no_namespace_of_the_node() {
    pod(
        "{containers: [{name: web, image: 'a:1'}], hostUsers: false, hostNetwork: true, hostIPC: true}",
        &expect![[r#"
            Pod "web"
            spec.hostNetwork: Forbidden: when `hostUsers` is false
            spec.hostIPC: Forbidden: when `hostUsers` is false
        "#]],
    );
}

#[test]
fn names_and_namespaces() {
    pod(
        "{containers: [{name: web, image: 'a:1'}], dnsPolicy: None, hostAliases: [{ip: x, hostnames: ['A_b']}], shareProcessNamespace: true, hostPID: true}",
        &expect![[r#"
            Pod "web"
            spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
            spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.hostAliases[0].hostnames: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled
        "#]],
    );
    pod(
        "{containers: [{name: web, image: 'a:1'}], dnsPolicy: None, dnsConfig: {nameservers: [a, 1.1.1.1, '::1', 2.2.2.2], searches: ['.', 'a.', 'B'], options: [{value: x}]}}",
        &expect![[r#"
            Pod "web"
            spec.dnsConfig.nameservers: Invalid value: []string{"a", "1.1.1.1", "::1", "2.2.2.2"}: must not have more than 3 nameservers
            spec.dnsConfig.nameservers[0]: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.dnsConfig.searches[2]: Invalid value: "B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.dnsConfig.options[0]: Required value: must not be empty
        "#]],
    );
}

#[test]
fn ephemeral_containers_are_only_added() {
    let one = "{containers: [{name: web, image: 'a:1'}]}";
    pod(
        "{containers: [{name: web, image: 'a:1'}], ephemeralContainers: [{name: d, image: 'a:1'}]}",
        &expect![[r#"
            Pod "web"
            spec.ephemeralContainers: Forbidden: cannot be set on create
        "#]],
    );
    let part = "ephemeralcontainers";
    change(
        part,
        one,
        "{containers: [], ephemeralContainers: [{name: d, image: 'a:1', targetContainerName: web}]}",
        &expect!["valid, generation 2"],
    );
    change(
        part,
        one,
        "{containers: [], ephemeralContainers: [{name: web, image: 'a:1', targetContainerName: none, ports: [{containerPort: 1}], lifecycle: {preStop: {sleep: {seconds: 1}}}}]}",
        &expect![[r#"
            Pod "web"
            spec.ephemeralContainers[0].name: Duplicate value: "web"
            spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container
            spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container
            spec.ephemeralContainers[0].targetContainerName: Not found: "none"
        "#]],
    );
}

#[test]
fn only_processors_and_memory_are_resized() {
    let old = "{containers: [{name: web, image: 'a:1', resources: {requests: {cpu: 100m}, limits: {cpu: 200m, ephemeral-storage: 1Gi}}}], initContainers: [{name: i, image: 'a:1'}]}";
    change(
        "resize",
        old,
        "{containers: [{name: web, image: other, resources: {requests: {cpu: 150m, ephemeral-storage: 1Gi}, limits: {cpu: 1, ephemeral-storage: 1Gi}}}]}",
        &expect!["valid, generation 2"],
    );
    change(
        "resize",
        old,
        "{containers: [{name: web, image: 'a:1', resources: {limits: {ephemeral-storage: 2Gi}}}], initContainers: [{name: i, image: 'a:1', resources: {limits: {cpu: 1}}}]}",
        &expect![[r#"
            Pod "web"
            spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed
            spec.containers[0].resources.limits: Forbidden: only cpu and memory resources are mutable
            spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed
            spec.containers[0].resources.requests: Forbidden: only cpu and memory resources are mutable
            spec.initContainers[0]: Forbidden: only cpu and memory resources for sidecar containers are mutable
        "#]],
    );
    change(
        "resize",
        "{containers: [{name: web, image: 'a:1'}]}",
        "{containers: [{name: web, image: 'a:1', resources: {limits: {cpu: 1}}}]}",
        &expect![[r#"
            Pod "web"
            spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing
        "#]],
    );
}
