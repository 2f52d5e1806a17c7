//! What is filled in.

use expect_test::{Expect, expect};

use super::{create, yaml};

pub(super) fn check(manifest: &str, expected: &Expect) {
    let (_, object) = create(manifest).unwrap();
    expected.assert_eq(&yaml(&*object));
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  initContainers: [{name: init, image: 'busybox:1'}]
  containers:
  - name: web
    image: nginx
    ports: [{containerPort: 80}]
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {limits: {cpu: 1000m, memory: 1024Mi}, requests: {cpu: 500m}}
    livenessProbe: {httpGet: {port: 80}}
  volumes:
  - {name: scratch}
  - {name: settings, configMap: {name: settings}}
";

#[test]
fn a_pod_gets_what_kubernetes_gives_it() {
    check(
        POD,
        &expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              generation: 1
              name: web
              namespace: default
            spec:
              containers:
              - env:
                - name: NAME
                  valueFrom:
                    fieldRef:
                      apiVersion: v1
                      fieldPath: metadata.name
                image: nginx
                imagePullPolicy: Always
                livenessProbe:
                  failureThreshold: 3
                  httpGet:
                    path: /
                    port: 80
                    scheme: HTTP
                  periodSeconds: 10
                  successThreshold: 1
                  timeoutSeconds: 1
                name: web
                ports:
                - containerPort: 80
                  protocol: TCP
                resources:
                  limits:
                    cpu: '1'
                    memory: 1Gi
                  requests:
                    cpu: 500m
                    memory: 1Gi
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              dnsPolicy: ClusterFirst
              enableServiceLinks: true
              initContainers:
              - image: busybox:1
                imagePullPolicy: IfNotPresent
                name: init
                resources: {}
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              restartPolicy: Always
              schedulerName: default-scheduler
              securityContext: {}
              serviceAccount: default
              serviceAccountName: default
              terminationGracePeriodSeconds: 30
              volumes:
              - emptyDir: {}
                name: scratch
              - configMap:
                  defaultMode: 420
                  name: settings
                name: settings
            status:
              phase: Pending
              qosClass: Burstable
        "#]],
    );
}

#[test]
fn a_deployment_gets_a_strategy_and_its_template_fewer_defaults_than_a_pod() {
    check(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, generation: 9}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'flotilla.dev/demo:v1'}]}
status: {replicas: 3}
",
        &expect![[r#"
            apiVersion: apps/v1
            kind: Deployment
            metadata:
              generation: 1
              name: web
              namespace: default
            spec:
              progressDeadlineSeconds: 600
              replicas: 1
              revisionHistoryLimit: 10
              selector:
                matchLabels:
                  app: web
              strategy:
                rollingUpdate:
                  maxSurge: 25%
                  maxUnavailable: 25%
                type: RollingUpdate
              template:
                metadata:
                  labels:
                    app: web
                spec:
                  containers:
                  - image: flotilla.dev/demo:v1
                    imagePullPolicy: IfNotPresent
                    name: web
                    resources: {}
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  restartPolicy: Always
                  schedulerName: default-scheduler
                  securityContext: {}
                  terminationGracePeriodSeconds: 30
            status: {}
        "#]],
    );
}

#[test]
fn a_replication_controller_takes_selector_and_labels_from_its_template() {
    check(
        "
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'a:1'}]}
",
        &expect![[r#"
            apiVersion: v1
            kind: ReplicationController
            metadata:
              generation: 1
              labels:
                app: web
              name: web
              namespace: default
            spec:
              replicas: 1
              selector:
                app: web
              template:
                metadata:
                  labels:
                    app: web
                spec:
                  containers:
                  - image: a:1
                    imagePullPolicy: IfNotPresent
                    name: web
                    resources: {}
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  restartPolicy: Always
                  schedulerName: default-scheduler
                  securityContext: {}
                  terminationGracePeriodSeconds: 30
            status:
              replicas: 0
        "#]],
    );
}

#[test]
fn a_namespace_is_active_and_held_by_its_finalizer() {
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: blue}}",
        &expect![[r#"
        apiVersion: v1
        kind: Namespace
        metadata:
          labels:
            kubernetes.io/metadata.name: blue
          name: blue
        spec:
          finalizers:
          - kubernetes
        status:
          phase: Active
    "#]],
    );
}

#[test]
fn text_of_a_secret_lands_in_its_data() {
    check(
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {user: admin}, data: {a: Yg==}}",
        &expect![[r#"
            apiVersion: v1
            data:
              a: Yg==
              user: YWRtaW4=
            kind: Secret
            metadata:
              name: s
              namespace: default
            type: Opaque
        "#]],
    );
}

#[test]
fn a_service_has_a_cluster_address_and_its_target_ports() {
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}",
        &expect![[r#"
            apiVersion: v1
            kind: Service
            metadata:
              name: web
              namespace: default
            spec:
              internalTrafficPolicy: Cluster
              ipFamilies:
              - IPv4
              ipFamilyPolicy: SingleStack
              ports:
              - port: 80
                protocol: TCP
                targetPort: 80
              selector:
                app: web
              sessionAffinity: None
              type: ClusterIP
            status:
              loadBalancer: {}
        "#]],
    );
}

#[test]
fn a_service_of_type_load_balancer_has_more_policies() {
    check(
        "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, sessionAffinity: ClientIP, ports: [{port: 53, protocol: UDP, targetPort: dns}]}
",
        &expect![[r#"
            apiVersion: v1
            kind: Service
            metadata:
              name: web
              namespace: default
            spec:
              allocateLoadBalancerNodePorts: true
              externalTrafficPolicy: Cluster
              internalTrafficPolicy: Cluster
              ipFamilies:
              - IPv4
              ipFamilyPolicy: SingleStack
              ports:
              - port: 53
                protocol: UDP
                targetPort: dns
              sessionAffinity: ClientIP
              sessionAffinityConfig:
                clientIP:
                  timeoutSeconds: 10800
              type: LoadBalancer
            status:
              loadBalancer: {}
        "#]],
    );
}

#[test]
fn a_headless_service_stays_without_an_address() {
    check(
        "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None}}",
        &expect![[r#"
            apiVersion: v1
            kind: Service
            metadata:
              name: db
              namespace: default
            spec:
              clusterIP: None
              clusterIPs:
              - None
              internalTrafficPolicy: Cluster
              ipFamilies:
              - IPv4
              ipFamilyPolicy: SingleStack
              sessionAffinity: None
              type: ClusterIP
            status:
              loadBalancer: {}
        "#]],
    );
}

#[test]
fn a_replica_set_wants_one_pod() {
    check(
        "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'a:1'}], serviceAccountName: robot}
",
        &expect![[r#"
            apiVersion: apps/v1
            kind: ReplicaSet
            metadata:
              generation: 1
              name: web
              namespace: default
            spec:
              replicas: 1
              selector:
                matchLabels:
                  app: web
              template:
                metadata:
                  labels:
                    app: web
                spec:
                  containers:
                  - image: a:1
                    imagePullPolicy: IfNotPresent
                    name: web
                    resources: {}
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  restartPolicy: Always
                  schedulerName: default-scheduler
                  securityContext: {}
                  serviceAccount: robot
                  serviceAccountName: robot
                  terminationGracePeriodSeconds: 30
            status:
              replicas: 0
        "#]],
    );
}
