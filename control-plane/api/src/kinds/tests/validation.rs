//! What is refused, and in which words.

mod pods;
mod running;
mod updates;

use expect_test::{Expect, expect};

use super::create;

/// The message, one problem a line.
fn message(error: &crate::Status) -> String {
    let (head, problems) = error.message.split_once(" is invalid: ").unwrap();
    let causes = error.details.as_ref().unwrap().causes.iter();
    let causes: Vec<String> = causes
        .map(|cause| format!("{}: {}\n", cause.field, cause.message))
        .collect();
    let problems = problems.trim_matches(['[', ']']);
    assert!(
        causes
            .iter()
            .all(|cause| problems.contains(cause.trim_end_matches(['\n', ']']))),
        "{problems}"
    );
    format!("{head}\n{}", causes.concat())
}

pub(super) fn check(manifest: &str, expected: &Expect) {
    expected.assert_eq(&create(manifest).map_or_else(|error| message(&error), |_| "valid".into()));
}

fn deployment(spec: &str, expected: &Expect) {
    check(
        &format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {spec}}}"),
        expected,
    );
}

const TEMPLATE: &str =
    "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: 'a:1'}]}}";

#[test]
fn names_of_objects() {
    for (name, expected) in [
        (
            "{name: Web_1}",
            expect![[r#"
            ConfigMap "Web_1"
            metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
        ),
        (
            "{}",
            expect![[r#"
            ConfigMap ""
            metadata.name: Required value: name or generateName is required
        "#]],
        ),
        (
            "{generateName: web-}",
            expect![[r#"
            ConfigMap "web-"
            metadata.name: Required value: name or generateName is required
        "#]],
        ),
        (
            "{name: w, generateName: W-}",
            expect![[r#"
            ConfigMap "w"
            metadata.generateName: Invalid value: "W-": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
        ),
    ] {
        check(
            &format!("{{apiVersion: v1, kind: ConfigMap, metadata: {name}}}"),
            &expected,
        );
    }
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}",
        &expect![[r#"
        Namespace "a.b"
        metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
    "#]],
    );
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}",
        &expect![[r#"
        Namespace "a"
        metadata.namespace: Forbidden: not allowed on this type
    "#]],
    );
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: 1a}, spec: {ports: [{port: 80}]}}",
        &expect![[r#"
            Service "1a"
            metadata.name: Invalid value: "1a": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
        "#]],
    );
}

#[test]
fn metadata() {
    check(
        "
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  namespace: B
  labels: {'-a': ok, app: 'not ok', 'a/b/c': x}
  annotations: {'also bad!': anything}
  finalizers: [mine, example.com/ok]
  ownerReferences:
  - {apiVersion: v1, kind: Pod, name: a, uid: '1', controller: true}
  - {apiVersion: '', kind: '', name: b, uid: '2', controller: true}
",
        &expect![[r#"
            ConfigMap "a"
            metadata.namespace: Invalid value: "B": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            metadata.labels: Invalid value: "-a": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.labels: Invalid value: "a/b/c": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
            metadata.labels[app]: Invalid value: "not ok": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.annotations: Invalid value: "also bad!": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty
            metadata.ownerReferences.kind: Invalid value: "": must not be empty
            metadata.ownerReferences: Invalid value:  b: Only one reference can have Controller set to true. Found "true" in references for Pod and 
            metadata.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified
        "#]],
    );
}

#[test]
fn deployments() {
    deployment(
        &format!("{{selector: {{matchLabels: {{app: db}}}}, {TEMPLATE}}}"),
        &expect![[r#"
        Deployment.apps "web"
        spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match template `labels`
    "#]],
    );
    deployment(
        &format!("{{{TEMPLATE}}}"),
        &expect![[r#"
        Deployment.apps "web"
        spec.selector: Invalid value: {}: empty selector is invalid for deployment
    "#]],
    );
    deployment(
        &format!(
            "{{replicas: -1, minReadySeconds: 700, revisionHistoryLimit: -1, selector: {{matchLabels: {{app: web}}, matchExpressions: [{{key: app, operator: In}}, {{key: app, operator: Near}}]}}, {TEMPLATE}}}"
        ),
        &expect![[r#"
            Deployment.apps "web"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.selector.matchExpressions[1].operator: Invalid value: "Near": not a valid selector operator
            spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match template `labels`
            spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0
            spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
        "#]],
    );
    for (strategy, expected) in [
        (
            "{type: Sideways}",
            expect![[r#"
            Deployment.apps "web"
            spec.strategy.type: Unsupported value: "Sideways": supported values: "Recreate", "RollingUpdate"
        "#]],
        ),
        (
            "{type: Recreate, rollingUpdate: {maxSurge: 1}}",
            expect![[r#"
            Deployment.apps "web"
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
        "#]],
        ),
        (
            "{rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}",
            expect![[r#"
            Deployment.apps "web"
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0
        "#]],
        ),
        (
            "{rollingUpdate: {maxSurge: lots, maxUnavailable: 101%}}",
            expect![[r#"
            Deployment.apps "web"
            spec.strategy.rollingUpdate.maxSurge: Invalid value: "lots": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%
        "#]],
        ),
    ] {
        let spec = format!("{{strategy: {strategy}, selector: {{matchLabels: {{app: web}}}}, {TEMPLATE}}}");
        deployment(&spec, &expected);
    }
}

#[test]
fn pods_of_deployments_never_end() {
    deployment(
        "{selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 5, containers: []}}}",
        &expect![[r#"
            Deployment.apps "web"
            spec.template.spec.containers: Required value
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported
        "#]],
    );
}

#[test]
fn pods_of_stateful_sets_may_mount_its_claims_and_no_others() {
    let with_mount = |name: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: a, image: 'a:1', volumeMounts: [{{name: {name}, mountPath: /data}}]}}]}}}}, volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}]}}}}"
        )
    };
    check(&with_mount("data"), &expect!["valid"]);
    check(
        &with_mount("date"),
        &expect![[r#"
            StatefulSet.apps "db"
            spec.template.spec.containers[0].volumeMounts[0].name: Not found: "date"
        "#]],
    );
}

#[test]
fn other_workloads() {
    check(
        "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a}, spec: {selector: {matchLabels: {a: b}}}}",
        &expect![[r#"
            ReplicaSet.apps "a"
            spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does not match template `labels`
            spec.template.spec.containers: Required value
        "#]],
    );
    check(
        "{apiVersion: v1, kind: ReplicationController, metadata: {name: a}, spec: {selector: {a: b}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: 'a:1'}]}}}}",
        &expect![[r#"
            ReplicationController "a"
            spec.template.metadata.labels: Invalid value: map[string]string{"a":"c"}: `selector` does not match template `labels`
        "#]],
    );
    check(
        "{apiVersion: v1, kind: ReplicationController, metadata: {name: a}, spec: {}}",
        &expect![[r#"
        ReplicationController "a"
        spec.selector: Required value
        spec.template: Required value
    "#]],
    );
}

#[test]
fn configuration() {
    check(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {'a b': x, c: y}, binaryData: {c: eQ==, ..d: eQ==}}",
        &expect![[r#"
            ConfigMap "a"
            data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            data[c]: Invalid value: "c": duplicate of key present in binaryData
            binaryData[..d]: Invalid value: "..d": must not start with '..'
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, type: kubernetes.io/tls, data: {'tls.crt': eQ==}}",
        &expect![[r#"
            Secret "a"
            data[tls.key]: Required value
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, type: kubernetes.io/dockerconfigjson, data: {'.dockerconfigjson': eQ==}}",
        &expect![[r#"
            Secret "a"
            data[.dockerconfigjson]: Invalid value: <secret contents redacted>: expected value at line 1 column 1
        "#]],
    );
}

#[test]
fn services_and_endpoints() {
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: X, clusterIP: nowhere, sessionAffinity: Y, ports: [{port: 0}, {port: 80, name: A, protocol: Z}, {port: 81, name: b, targetPort: 70000}, {port: 82, name: b}]}}",
        &expect![[r#"
            Service "a"
            spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            spec.ports[0].name: Required value
            spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[1].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.ports[1].protocol: Unsupported value: "Z": supported values: "SCTP", "TCP", "UDP"
            spec.ports[2].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.ports[3].name: Duplicate value: "b"
            spec.sessionAffinity: Unsupported value: "Y": supported values: "ClientIP", "None"
            spec.clusterIPs[0]: Invalid value: "nowhere": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}",
        &expect![[r#"
        Service "a"
        spec.ports: Required value
    "#]],
    );
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ExternalName}}",
        &expect![[r#"
        Service "a"
        spec.externalName: Required value
    "#]],
    );
    check(
        "{apiVersion: v1, kind: Endpoints, metadata: {name: a}, subsets: [{}, {addresses: [{ip: x}], ports: [{port: 0}]}]}",
        &expect![[r#"
            Endpoints "a"
            subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
            subsets[1].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        "#]],
    );
    check(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4, endpoints: [{addresses: []}, {addresses: ['::1']}]}",
        &expect![[r#"
            EndpointSlice.discovery.k8s.io "a"
            endpoints[0].addresses: Required value: must contain at least 1 address
            endpoints[1].addresses[0]: Invalid value: "::1": must be an IPv4 address
        "#]],
    );
}

#[test]
fn nodes_leases_events_and_revisions() {
    check(
        "{apiVersion: v1, kind: Node, metadata: {name: n}, spec: {taints: [{key: a, effect: X}, {key: b, effect: NoExecute}, {key: b, effect: NoExecute}]}, status: {capacity: {cpu: many, memory: -1}}}",
        &expect![[r#"
            Node "n"
            spec.taints[0].effect: Unsupported value: "X": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"
            spec.taints[2]: Duplicate value: b:NoExecute
            status.capacity[cpu]: Invalid value: "many": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            status.capacity[memory]: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable[cpu]: Invalid value: "many": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            status.allocatable[memory]: Invalid value: "-1": must be greater than or equal to 0
        "#]],
    );
    check(
        "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: l}, spec: {leaseDurationSeconds: 0, leaseTransitions: -1}}",
        &expect![[r#"
            Lease.coordination.k8s.io "l"
            spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
            spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Event, metadata: {name: e}, involvedObject: {kind: Pod, name: a, namespace: other}}",
        &expect![[r#"
            Event "e"
            involvedObject.namespace: Invalid value: "other": does not match event.namespace
        "#]],
    );
    check(
        "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: r}, revision: -1}",
        &expect![[r#"
        ControllerRevision.apps "r"
        data: Required value: data is mandatory
        revision: Invalid value: -1: must be greater than or equal to 0
    "#]],
    );
}
