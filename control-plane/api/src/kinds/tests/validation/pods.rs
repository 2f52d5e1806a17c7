//! Pods that are refused.

use expect_test::{Expect, expect};

use super::check;

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

#[test]
fn containers() {
    pod(
        "{containers: []}",
        &expect![[r#"
        Pod "web"
        spec.containers: Required value
    "#]],
    );
    pod(
        "{containers: [{name: a, image: x}, {name: a, image: ' y'}, {name: B}, {}], initContainers: [{name: a, image: z}]}",
        &expect![[r#"
            Pod "web"
            spec.containers[1].name: Duplicate value: "a"
            spec.containers[1].image: Invalid value: " y": must not have leading or trailing whitespace
            spec.containers[2].name: Invalid value: "B": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[2].image: Required value
            spec.containers[3].name: Required value
            spec.containers[3].image: Required value
            spec.initContainers[0].name: Duplicate value: "a"
        "#]],
    );
    container(
        "imagePullPolicy: Sometimes, terminationMessagePolicy: X",
        &expect![[r#"
        Pod "web"
        spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
        spec.containers[0].terminationMessagePolicy: Unsupported value: "X": supported values: "FallbackToLogsOnError", "File"
    "#]],
    );
}

#[test]
fn ports_and_environments() {
    container(
        "ports: [{containerPort: 0}, {containerPort: 70000, name: HTTP}, {containerPort: 1, protocol: ICMP, hostPort: -1}, {containerPort: 80, name: a}, {containerPort: 81, name: a}]",
        &expect![[r#"
            Pod "web"
            spec.containers[0].ports[0].containerPort: Required value
            spec.containers[0].ports[1].name: Invalid value: "HTTP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].ports[1].name: Invalid value: "HTTP": must contain at least one letter (a-z)
            spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.containers[0].ports[2].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive
            spec.containers[0].ports[4].name: Duplicate value: "a"
        "#]],
    );
    container(
        "env: [{name: ''}, {name: 'a=b'}, {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.foo}}}, {name: B, valueFrom: {}}, {name: C, valueFrom: {configMapKeyRef: {name: '', key: ''}}}], envFrom: [{}]",
        &expect![[r#"
            Pod "web"
            spec.containers[0].env[0].name: Required value
            spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
            spec.containers[0].env[2].valueFrom: Invalid value: "": may not be specified when `value` is not empty
            spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
            spec.containers[0].env[3].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`
            spec.containers[0].env[4].valueFrom.configMapKeyRef.name: Required value
            spec.containers[0].env[4].valueFrom.configMapKeyRef.key: Required value
            spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
        "#]],
    );
}

#[test]
fn resources_probes_and_mounts() {
    container(
        "resources: {limits: {cpu: 1, memory: lots}, requests: {cpu: 2, gpu: 1, 'example.com/gpu': 500m}}",
        &expect![[r#"
            Pod "web"
            spec.containers[0].resources.limits[memory]: Invalid value: "lots": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer
            spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers
            spec.containers[0].resources.requests[memory]: Invalid value: "lots": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        "#]],
    );
    container(
        "livenessProbe: {successThreshold: 2, httpGet: {port: 0}}, readinessProbe: {}, startupProbe: {exec: {command: [a]}, tcpSocket: {port: Bad}, periodSeconds: -1}",
        &expect![[r#"
            Pod "web"
            spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[0].readinessProbe: Required value: must specify a handler type
            spec.containers[0].startupProbe: Forbidden: may not specify more than 1 handler type
            spec.containers[0].startupProbe.tcpSocket.port: Invalid value: "Bad": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0
        "#]],
    );
    container(
        "volumeMounts: [{name: no, mountPath: /a}, {name: '', mountPath: /a, subPath: ../b}]",
        &expect![[r#"
            Pod "web"
            spec.containers[0].volumeMounts[0].name: Not found: "no"
            spec.containers[0].volumeMounts[1].name: Required value
            spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique
            spec.containers[0].volumeMounts[1].subPath: Invalid value: "../b": must not contain '..'
        "#]],
    );
    container(
        "securityContext: {runAsUser: -1}",
        &expect![[r#"
        Pod "web"
        spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
    "#]],
    );
}

#[test]
fn pod_specs() {
    pod(
        "{containers: [{name: a, image: 'a:1'}], restartPolicy: Maybe, dnsPolicy: X, activeDeadlineSeconds: 0, terminationGracePeriodSeconds: -1, nodeName: 'a b', hostname: A, serviceAccountName: ''}",
        &expect![[r#"
            Pod "web"
            spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"
            spec.dnsPolicy: Unsupported value: "X": supported values: "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"
            spec.nodeName: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
            spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0
        "#]],
    );
    pod(
        "{containers: [{name: a, image: 'a:1'}], volumes: [{name: a, emptyDir: {}, hostPath: {path: /}}, {name: a}, {name: b, secret: {}}, {name: c, configMap: {name: c, defaultMode: 512, items: [{key: '', path: /a}]}}]}",
        &expect![[r#"
            Pod "web"
            spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
            spec.volumes[1].name: Duplicate value: "a"
            spec.volumes[2].secret.secretName: Required value
            spec.volumes[3].configMap.items[0].key: Required value
            spec.volumes[3].configMap.items[0].path: Invalid value: "/a": must be a relative path
            spec.volumes[3].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive
        "#]],
    );
    pod(
        "{containers: [{name: a, image: 'a:1'}], nodeSelector: {'a b': c}, tolerations: [{}, {key: a, operator: Near}, {operator: Exists, value: x}, {key: a, effect: X, tolerationSeconds: 3}], topologySpreadConstraints: [{maxSkew: 0, topologyKey: '', whenUnsatisfiable: X}], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: b, operator: Near}]}]}}}}",
        &expect![[r#"
            Pod "web"
            spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, which means "match all values and all keys"
            spec.tolerations[1].operator: Unsupported value: "Near": supported values: "Equal", "Exists"
            spec.tolerations[2].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'
            spec.tolerations[3].effect: Invalid value: "X": effect must be 'NoExecute' when `tolerationSeconds` is set
            spec.tolerations[3].effect: Unsupported value: "X": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"
            spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty
            spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "X": supported values: "DoNotSchedule", "ScheduleAnyway"
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].operator: Invalid value: "Near": not a valid selector operator
        "#]],
    );
    pod(
        "{hostNetwork: true, containers: [{name: a, image: 'a:1', ports: [{containerPort: 1, hostPort: 2}]}, {name: b, image: 'a:1', ports: [{containerPort: 2}]}]}",
        &expect![[r#"
            Pod "web"
            spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true
            spec.containers[1].ports[0].hostPort: Duplicate value: TCP//2
        "#]],
    );
    pod(
        "{containers: [{name: a, image: 'a:1'}], initContainers: [{name: b, image: 'a:1', livenessProbe: {tcpSocket: {port: 1}}}, {name: c, image: 'a:1', restartPolicy: Always, livenessProbe: {tcpSocket: {port: 1}}}]}",
        &expect![[r#"
            Pod "web"
            spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
        "#]],
    );
}
