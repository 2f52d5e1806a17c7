//! Rows as `kubectl get -o wide` shows them.

use expect_test::{Expect, expect};

use super::{now, read};

/// Headings (in parentheses when only wide) and one row for each manifest.
pub(super) fn check(manifests: &[&str], expected: &Expect) {
    let mut table = String::new();
    for manifest in manifests {
        let (kind, object) = read(manifest);
        if table.is_empty() {
            let heading = |column: &crate::Column| match column.priority {
                0 => column.name.to_owned(),
                _ => format!("({})", column.name),
            };
            table = kind.columns.iter().map(heading).collect::<Vec<_>>().join(" | ") + "\n";
        }
        let cells = kind.cells(&*object, now());
        assert_eq!(cells.len(), kind.columns.len());
        let cells = cells
            .iter()
            .map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned));
        table += &(cells.collect::<Vec<_>>().join(" | ") + "\n");
    }
    expected.assert_eq(&table);
}

/// A pod of one container `web`, with what follows `spec` and the status.
fn pod(meta: &str, spec: &str, status: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, creationTimestamp: '2026-11-21T08:55:00Z'{meta}}}, spec: {{containers: [{{name: web}}]{spec}}}, status: {{{status}}}}}"
    )
}

fn running(extra: &str) -> String {
    format!("containerStatuses: [{{name: web, image: '', imageID: '', {extra}}}]")
}

#[test]
fn pods() {
    let deleted = ", deletionTimestamp: '2026-11-21T08:59:00Z'";
    let one = "ready: true, restartCount: 0, state: {running: {}}";
    let again = "ready: true, restartCount: 1, state: {running: {}}, lastState: {terminated: {exitCode: 1, finishedAt: '2026-11-21T08:59:55Z'}}";
    let back_off = "ready: false, restartCount: 4, state: {waiting: {reason: CrashLoopBackOff}}";
    let done = "ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed}}";
    let killed = "ready: false, restartCount: 0, state: {terminated: {exitCode: 137, signal: 9}}";
    let failed = "ready: false, restartCount: 0, state: {terminated: {exitCode: 3}}";
    let placed = ", nodeName: agent-1, readinessGates: [{conditionType: a.b/c}, {conditionType: a.b/d}]";
    let gates = "podIPs: [{ip: 10.42.1.2}], conditions: [{type: a.b/c, status: 'True'}]";
    let manifests = [
        pod("", "", "phase: Pending"),
        pod("", placed, &format!("phase: Running, {gates}, {}", running(one))),
        pod("", "", &format!("phase: Running, {}", running(again))),
        pod("", "", &format!("phase: Running, {}", running(back_off))),
        pod("", "", &format!("phase: Succeeded, {}", running(done))),
        pod("", "", &format!("phase: Failed, {}", running(killed))),
        pod("", "", &format!("phase: Failed, {}", running(failed))),
        pod(deleted, "", &format!("phase: Running, {}", running(one))),
        pod(deleted, "", "phase: Running, reason: NodeLost"),
        pod("", "", "phase: Failed, reason: Evicted"),
        pod(
            "",
            "",
            "phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]",
        ),
    ];
    check(
        &manifests.each_ref().map(String::as_str),
        &expect![[r#"
        Name | Ready | Status | Restarts | Age | (IP) | (Node) | (Nominated Node) | (Readiness Gates)
        web | 0/1 | Pending | 0 | 5m | <none> | <none> | <none> | <none>
        web | 1/1 | Running | 0 | 5m | 10.42.1.2 | agent-1 | <none> | 1/2
        web | 1/1 | Running | 1 (5s ago) | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | CrashLoopBackOff | 4 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Completed | 0 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Signal:9 | 0 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | ExitCode:3 | 0 | 5m | <none> | <none> | <none> | <none>
        web | 1/1 | Terminating | 0 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Unknown | 0 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Evicted | 0 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | SchedulingGated | 0 | 5m | <none> | <none> | <none> | <none>
    "#]],
    );
}

#[test]
fn pods_with_init_containers() {
    let init = ", initContainers: [{name: a}, {name: b}]";
    let sidecar = ", initContainers: [{name: a, restartPolicy: Always}]";
    let statuses = |list: &str| format!("phase: Pending, initContainerStatuses: [{list}]");
    let state = |name: &str, state: &str| {
        format!("{{name: {name}, image: '', imageID: '', ready: false, restartCount: 2, {state}}}")
    };
    let done = state("a", "state: {terminated: {exitCode: 0}}");
    let manifests = [
        pod(
            "",
            init,
            &statuses(&state("a", "state: {waiting: {reason: PodInitializing}}")),
        ),
        pod(
            "",
            init,
            &statuses(&format!("{done}, {}", state("b", "state: {running: {}}"))),
        ),
        pod(
            "",
            init,
            &statuses(&state("a", "state: {terminated: {exitCode: 2, reason: Error}}")),
        ),
        pod(
            "",
            init,
            &statuses(&state("a", "state: {terminated: {exitCode: 2}}")),
        ),
        pod(
            "",
            init,
            &statuses(&state("a", "state: {waiting: {reason: CrashLoopBackOff}}")),
        ),
        pod(
            "",
            sidecar,
            &format!(
                "phase: Running, initContainerStatuses: [{{name: a, image: '', imageID: '', ready: true, started: true, restartCount: 3, state: {{running: {{}}}}}}], {}",
                running("ready: true, restartCount: 1, state: {running: {}}")
            ),
        ),
    ];
    check(
        &manifests.each_ref().map(String::as_str),
        &expect![[r#"
        Name | Ready | Status | Restarts | Age | (IP) | (Node) | (Nominated Node) | (Readiness Gates)
        web | 0/1 | Init:0/2 | 2 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Init:1/2 | 4 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Init:Error | 2 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Init:ExitCode:2 | 2 | 5m | <none> | <none> | <none> | <none>
        web | 0/1 | Init:CrashLoopBackOff | 2 | 5m | <none> | <none> | <none> | <none>
        web | 2/2 | Running | 4 | 5m | <none> | <none> | <none> | <none>
    "#]],
    );
}

#[test]
fn nodes() {
    check(
        &[
            "{apiVersion: v1, kind: Node, metadata: {name: new}}",
            "
apiVersion: v1
kind: Node
metadata:
  name: server-1
  creationTimestamp: '2026-11-19T06:00:00Z'
  labels: {node-role.kubernetes.io/control-plane: '', kubernetes.io/role: worker}
spec: {unschedulable: true}
status:
  conditions: [{type: MemoryPressure, status: 'False'}, {type: Ready, status: 'True'}]
  addresses: [{type: Hostname, address: server-1}, {type: InternalIP, address: 10.0.0.1}]
  nodeInfo:
    {kubeletVersion: v1.35.0+flotilla, osImage: Debian, kernelVersion: 6.1.0, containerRuntimeVersion: 'libcontainer://0.7.0', architecture: amd64, bootID: '', kubeProxyVersion: '', machineID: '', operatingSystem: linux, systemUUID: ''}
",
            "{apiVersion: v1, kind: Node, metadata: {name: gone}, status: {conditions: [{type: Ready, status: Unknown}]}}",
        ],
        &expect![[r#"
            Name | Status | Roles | Age | Version | (Internal-IP) | (External-IP) | (OS-Image) | (Kernel-Version) | (Container-Runtime)
            new | Unknown | <none> | <unknown> |  | <none> | <none> | <unknown> | <unknown> | <unknown>
            server-1 | Ready,SchedulingDisabled | control-plane,worker | 2d3h | v1.35.0+flotilla | 10.0.0.1 | <none> | Debian | 6.1.0 | libcontainer://0.7.0
            gone | NotReady | <none> | <unknown> |  | <none> | <none> | <unknown> | <unknown> | <unknown>
        "#]],
    );
}

#[test]
fn workloads() {
    let spec = "{replicas: 3, selector: {matchLabels: {app: web}, matchExpressions: [{key: a, operator: Exists}]}, template: {metadata: {}, spec: {containers: [{name: a, image: 'a:1'}, {name: b, image: 'b:2'}]}}}";
    check(
        &[
            &format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {spec}, status: {{readyReplicas: 2, updatedReplicas: 3, availableReplicas: 1}}}}"
            ),
            &format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {spec}}}"),
        ],
        &expect![[r#"
            Name | Ready | Up-to-date | Available | Age | (Containers) | (Images) | (Selector)
            web | 2/3 | 3 | 1 | <unknown> | a,b | a:1,b:2 | a,app=web
            web | 0/3 | 0 | 0 | <unknown> | a,b | a:1,b:2 | a,app=web
        "#]],
    );
    check(
        &[&format!(
            "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: web}}, spec: {spec}, status: {{replicas: 2, readyReplicas: 1}}}}"
        )],
        &expect![[r#"
            Name | Desired | Current | Ready | Age | (Containers) | (Images) | (Selector)
            web | 3 | 2 | 1 | <unknown> | a,b | a:1,b:2 | a,app=web
        "#]],
    );
    check(
        &[
            "{apiVersion: v1, kind: ReplicationController, metadata: {name: web}, spec: {replicas: 1, selector: {b: c, a: d}}, status: {replicas: 1}}",
        ],
        &expect![[r#"
            Name | Desired | Current | Ready | Age | (Containers) | (Images) | (Selector)
            web | 1 | 1 | 0 | <unknown> |  |  | a=d,b=c
        "#]],
    );
    check(
        &[
            "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: web-1, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: '1', controller: true}]}, revision: 4}",
        ],
        &expect![[r#"
            Name | Controller | Revision | Age
            web-1 | statefulset.apps/web | 4 | <unknown>
        "#]],
    );
}

#[test]
fn events() {
    check(
        &[
            "{apiVersion: v1, kind: Event, metadata: {name: e.1}, type: Warning, reason: BackOff, message: 'Back-off restarting ', count: 7, involvedObject: {kind: Pod, name: web, fieldPath: 'spec.containers{web}'}, source: {component: kubelet, host: agent-1}, firstTimestamp: '2026-11-21T08:50:00Z', lastTimestamp: '2026-11-21T08:59:30Z'}",
            "{apiVersion: v1, kind: Event, metadata: {name: e.2}, type: Normal, reason: Scheduled, involvedObject: {kind: Pod, name: web}, reportingComponent: default-scheduler, eventTime: '2026-11-21T08:58:00.000000Z'}",
            "{apiVersion: v1, kind: Event, metadata: {name: e.3}, involvedObject: {kind: Node}, eventTime: '2026-11-21T08:00:00.000000Z', series: {count: 5, lastObservedTime: '2026-11-21T08:59:59.000000Z'}}",
        ],
        &expect![[r#"
            Last Seen | Type | Reason | Object | (Subobject) | (Source) | Message | (First Seen) | (Count) | (Name)
            30s | Warning | BackOff | pod/web | spec.containers{web} | kubelet, agent-1 | Back-off restarting | 10m | 7 | e.1
            2m | Normal | Scheduled | pod/web |  | default-scheduler |  | 2m | 1 | e.2
            1s |  |  | node |  |  |  | 60m | 5 | e.3
        "#]],
    );
    check(
        &[
            "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e.1}, type: Normal, note: Pulled, reason: Pulled, regarding: {kind: Pod, name: web}, reportingController: kubelet, eventTime: '2026-11-21T08:58:00.000000Z'}",
        ],
        &expect![[r#"
            Last Seen | Type | Reason | Object | (Subobject) | (Source) | Message | (First Seen) | (Count) | (Name)
            2m | Normal | Pulled | pod/web |  | kubelet | Pulled | 2m | 1 | e.1
        "#]],
    );
}

#[test]
fn services_and_endpoints() {
    check(
        &[
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP, clusterIP: 10.43.0.1, ports: [{port: 80, protocol: TCP}, {port: 53, protocol: UDP}], selector: {app: web}}}",
            "{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {type: NodePort, clusterIP: 10.43.0.2, externalIPs: [1.2.3.4], ports: [{port: 80, nodePort: 30080, protocol: TCP}]}}",
            "{apiVersion: v1, kind: Service, metadata: {name: c}, spec: {type: LoadBalancer, clusterIP: 10.43.0.3, ports: [{port: 80}]}}",
            "{apiVersion: v1, kind: Service, metadata: {name: d}, spec: {type: ExternalName, externalName: example.com}}",
            "{apiVersion: v1, kind: Service, metadata: {name: e}, spec: {clusterIP: None}}",
        ],
        &expect![[r#"
            Name | Type | Cluster-IP | External-IP | Port(s) | Age | (Selector)
            a | ClusterIP | 10.43.0.1 | <none> | 80/TCP,53/UDP | <unknown> | app=web
            b | NodePort | 10.43.0.2 | 1.2.3.4 | 80:30080/TCP | <unknown> | <none>
            c | LoadBalancer | 10.43.0.3 | <pending> | 80/TCP | <unknown> | <none>
            d | ExternalName | <none> | example.com | <none> | <unknown> | <none>
            e | ClusterIP | None | <none> | <none> | <unknown> | <none>
        "#]],
    );
    check(
        &[
            "{apiVersion: v1, kind: Endpoints, metadata: {name: a}, subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 80}, {port: 81}]}]}",
            "{apiVersion: v1, kind: Endpoints, metadata: {name: b}}",
        ],
        &expect![[r#"
            Name | Endpoints | Age
            a | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | <unknown>
            b | <none> | <unknown>
        "#]],
    );
    check(
        &[
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}, {addresses: [10.0.0.4]}]}",
        ],
        &expect![[r#"
            Name | AddressType | Ports | Endpoints | Age
            a | IPv4 | 80 | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | <unknown>
        "#]],
    );
}

#[test]
fn the_rest() {
    check(
        &["{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {phase: Active}}"],
        &expect![[r#"
        Name | Status | Age
        a | Active | <unknown>
    "#]],
    );
    check(
        &["{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: b}, binaryData: {c: eQ==}}"],
        &expect![[r#"
        Name | Data | Age
        a | 2 | <unknown>
    "#]],
    );
    check(
        &["{apiVersion: v1, kind: Secret, metadata: {name: a}, type: Opaque, data: {c: eQ==}}"],
        &expect![[r#"
        Name | Type | Data | Age
        a | Opaque | 1 | <unknown>
    "#]],
    );
    check(
        &["{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}"],
        &expect![[r#"
        Name | Secrets | Age
        a | 0 | <unknown>
    "#]],
    );
    check(
        &[
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a}, spec: {holderIdentity: me}}",
        ],
        &expect![[r#"
            Name | Holder | Age
            a | me | <unknown>
        "#]],
    );
}
