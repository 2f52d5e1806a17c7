//! Clusters and pods as data: a line for each node, JSON for a pod, the answer says where it goes or why not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::filters::Reason;
use crate::place::{Placement, place};
use crate::queue::{Hopes, News, PodKey, Queue};

/// `name`, then words: `cpu=N`, `memory=N`, `pods=N`, `gpu=N`, `label:KEY=VALUE`, `taint:KEY=VALUE:EFFECT`, `closed`.
fn node(words: &str) -> Arc<Node> {
    let mut words = words.split_whitespace();
    let name = words.next().unwrap();
    let (mut cpu, mut memory, mut pods, mut gpu) = ("4", "8Gi", "110", "0");
    let mut labels = serde_json::Map::new();
    labels.insert("kubernetes.io/hostname".to_owned(), json!(name));
    let (mut taints, mut closed) = (Vec::new(), false);
    for word in words {
        if let Some((key, value)) = word
            .strip_prefix("label:")
            .and_then(|label| label.split_once('='))
        {
            labels.insert(key.to_owned(), json!(value));
        } else if let Some((taint, effect)) = word
            .strip_prefix("taint:")
            .and_then(|taint| taint.rsplit_once(':'))
        {
            let (key, value) = taint.split_once('=').unwrap();
            taints.push(json!({"key": key, "value": value, "effect": effect}));
        } else {
            match word.split_once('=') {
                Some(("cpu", value)) => cpu = value,
                Some(("memory", value)) => memory = value,
                Some(("pods", value)) => pods = value,
                Some(("gpu", value)) => gpu = value,
                _ => closed = word == "closed",
            }
        }
    }
    let allocatable = json!({"cpu": cpu, "memory": memory, "pods": pods, "example.com/gpu": gpu});
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": closed},
        "status": {"allocatable": allocatable},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, labels: &Value, spec: &Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": "c"}]},
    }))
    .unwrap();
    let mut full = serde_json::to_value(pod.spec.take()).unwrap();
    for (field, value) in spec.as_object().unwrap() {
        full[field] = value.clone();
    }
    pod.spec = serde_json::from_value(full).unwrap();
    pod
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}])
}

/// A cluster of these nodes with pods `(node, labels, spec)` on them.
fn cluster(nodes: &[&str], pods: &[(&str, Value, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    for words in nodes {
        cluster.set_node(node(words));
    }
    for (index, (node, labels, spec)) in pods.iter().enumerate() {
        cluster.add_pod(&pod(&format!("there-{index}"), labels, spec), node);
    }
    cluster
}

#[expect(clippy::needless_pass_by_value, reason = "json! and expect! make values")]
fn check(cluster: &Cluster, labels: Value, spec: Value, expected: Expect) {
    let told = match place(cluster, &pod("new", &labels, &spec), &mut 0) {
        Placement::Node(node) => node,
        Placement::Nowhere(refusals) => refusals.message(),
    };
    expected.assert_eq(&told);
}

#[test]
fn without_nodes_there_is_nothing_to_choose() {
    check(
        &cluster(&[], &[]),
        json!({}),
        json!({}),
        expect!["no nodes available to schedule pods"],
    );
}

#[test]
fn a_pod_needs_what_it_asks_for() {
    let cluster = cluster(
        &[
            "a cpu=1",
            "b cpu=1 memory=1Gi",
            "c pods=1",
            "d taint:team=red:NoSchedule",
        ],
        &[("c", json!({}), json!({}))],
    );
    check(
        &cluster,
        json!({}),
        json!({"containers": requests("2", "2Gi")}),
        expect![
            "0/4 nodes are available: 1 Insufficient memory, 1 Too many pods, 1 node(s) had untolerated taint \
             {team: red}, 2 Insufficient cpu."
        ],
    );
    check(
        &cluster,
        json!({}),
        json!({"containers": requests("1", "2Gi")}),
        expect!["a"],
    );
}

#[test]
fn what_is_taken_is_not_free() {
    let taken = json!({"containers": requests("3", "1Gi")});
    let cluster = cluster(&["a", "b"], &[("a", json!({}), taken)]);
    check(
        &cluster,
        json!({}),
        json!({"containers": requests("1500m", "1Gi")}),
        expect!["b"],
    );
    check(
        &cluster,
        json!({}),
        json!({"containers": requests("5", "1Gi")}),
        expect!["0/2 nodes are available: 2 Insufficient cpu."],
    );
}

#[test]
fn init_containers_count_by_their_peak_and_sidecars_all_the_time() {
    let init = |cpu: &str, restart: Value| json!({"name": cpu, "restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}});
    let cluster = cluster(&["a cpu=4"], &[]);
    let spec = |init: Value| json!({"initContainers": init, "containers": requests("1", "1Gi")});
    check(
        &cluster,
        json!({}),
        spec(json!([init("4", json!(null))])),
        expect!["a"],
    );
    check(
        &cluster,
        json!({}),
        spec(json!([init("4", json!("Always"))])),
        expect!["0/1 nodes are available: 1 Insufficient cpu."],
    );
    check(
        &cluster,
        json!({}),
        spec(json!([init("1", json!("Always")), init("4", json!(null))])),
        expect!["0/1 nodes are available: 1 Insufficient cpu."],
    );
}

#[test]
fn other_resources_are_counted_by_name() {
    let gpu = |count: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": count}}}]});
    let cluster = cluster(&["a", "b gpu=2"], &[("b", json!({}), gpu("1"))]);
    check(&cluster, json!({}), gpu("1"), expect!["b"]);
    check(
        &cluster,
        json!({}),
        gpu("2"),
        expect!["0/2 nodes are available: 2 Insufficient example.com/gpu."],
    );
}

#[test]
fn taints_keep_pods_away_that_do_not_bear_them() {
    let cluster = cluster(
        &["a taint:k=v:NoExecute", "b taint:k=v:PreferNoSchedule", "c"],
        &[],
    );
    check(&cluster, json!({}), json!({}), expect!["c"]);
    check(&cluster, json!({}), json!({"nodeName": "b"}), expect!["b"]);
    let bears = json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]);
    check(
        &cluster,
        json!({}),
        json!({"nodeName": "a", "tolerations": bears}),
        expect!["a"],
    );
    let other = json!([{"key": "k", "operator": "Equal", "value": "w"}]);
    check(
        &cluster,
        json!({}),
        json!({"nodeName": "a", "tolerations": other}),
        expect![
            "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 node(s) didn't match the requested node name."
        ],
    );
}

#[test]
fn closed_nodes_take_only_pods_that_bear_it() {
    let cluster = cluster(&["a closed"], &[]);
    check(
        &cluster,
        json!({}),
        json!({}),
        expect!["0/1 nodes are available: 1 node(s) were unschedulable."],
    );
    let bears = json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
    check(&cluster, json!({}), json!({"tolerations": bears}), expect!["a"]);
}

#[test]
fn node_selectors_and_affinity_choose_by_label_and_name() {
    let cluster = cluster(
        &[
            "a label:disk=slow label:gen=3",
            "b label:disk=fast label:gen=7",
            "c",
        ],
        &[],
    );
    let required = |expressions: Value, fields: Value| {
        let term = json!({"matchExpressions": expressions, "matchFields": fields});
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }}})
    };
    let gen_ = |operator: &str, value: &str| json!([{"key": "gen", "operator": operator, "values": [value]}]);
    check(
        &cluster,
        json!({}),
        json!({"nodeSelector": {"disk": "fast"}}),
        expect!["b"],
    );
    check(
        &cluster,
        json!({}),
        required(gen_("Gt", "5"), json!([])),
        expect!["b"],
    );
    check(
        &cluster,
        json!({}),
        required(gen_("Lt", "5"), json!([])),
        expect!["a"],
    );
    check(
        &cluster,
        json!({}),
        required(json!([{"key": "gen", "operator": "DoesNotExist"}]), json!([])),
        expect!["c"],
    );
    check(
        &cluster,
        json!({}),
        required(
            json!([{"key": "disk", "operator": "NotIn", "values": ["fast"]},
        {"key": "gen", "operator": "Exists"}]),
            json!([]),
        ),
        expect!["a"],
    );
    let field = json!([{"key": "metadata.name", "operator": "In", "values": ["c"]}]);
    check(&cluster, json!({}), required(json!([]), field), expect!["c"]);
    check(
        &cluster,
        json!({}),
        required(json!([]), json!([])),
        expect!["0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."],
    );
}

#[test]
fn preferred_affinity_outweighs_a_little_load() {
    let busy = json!({"containers": requests("500m", "512Mi")});
    let cluster = cluster(&["a", "b label:disk=fast"], &[("b", json!({}), busy)]);
    check(&cluster, json!({}), json!({}), expect!["a"]);
    let preference = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]});
    let preferred = json!([{"weight": 10, "preference": preference}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    check(&cluster, json!({}), json!({"affinity": affinity}), expect!["b"]);
}

#[test]
fn a_port_of_the_node_is_had_once() {
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    let cluster = cluster(&["a"], &[("a", json!({}), port("10.0.0.1"))]);
    check(
        &cluster,
        json!({}),
        port(""),
        expect!["0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."],
    );
    check(&cluster, json!({}), port("10.0.0.2"), expect!["a"]);
}

fn spread(max_skew: i32, when: &str) -> Value {
    json!({"topologySpreadConstraints": [{
        "maxSkew": max_skew, "topologyKey": "zone", "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]})
}

#[test]
fn spread_constraints_keep_places_even() {
    let web = || json!({"app": "web"});
    let nodes = ["a label:zone=x", "b label:zone=y", "c label:zone=x closed", "d"];
    let cluster = cluster(&nodes, &[("a", web(), json!({}))]);
    check(&cluster, web(), spread(1, "DoNotSchedule"), expect!["b"]);
    check(
        &cluster,
        json!({"app": "db"}),
        spread(1, "DoNotSchedule"),
        expect!["b"],
    );
    let narrow = {
        let mut spec = spread(1, "DoNotSchedule");
        spec["nodeName"] = json!("a");
        spec
    };
    check(
        &cluster,
        web(),
        narrow,
        expect![
            "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were \
         unschedulable, 2 node(s) didn't match the requested node name."
        ],
    );
    check(&cluster, web(), spread(1, "ScheduleAnyway"), expect!["b"]);
}

fn near(kind: &str, key: &str, app: &str) -> Value {
    let term = json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}]);
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
}

#[test]
fn pods_come_near_those_they_want_and_away_from_those_they_do_not() {
    let nodes = ["a label:zone=x", "b label:zone=y", "c label:zone=y"];
    let web = json!({"app": "web"});
    let cluster = cluster(&nodes, &[("b", web, json!({}))]);
    check(
        &cluster,
        json!({}),
        near("podAffinity", "zone", "web"),
        expect!["c"],
    );
    check(
        &cluster,
        json!({}),
        near("podAffinity", "kubernetes.io/hostname", "web"),
        expect!["b"],
    );
    check(
        &cluster,
        json!({}),
        near("podAntiAffinity", "zone", "web"),
        expect!["a"],
    );
    check(
        &cluster,
        json!({}),
        near("podAffinity", "zone", "db"),
        expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    check(
        &cluster,
        json!({"app": "db"}),
        near("podAffinity", "zone", "db"),
        expect!["a"],
    );
}

#[test]
fn pods_that_are_there_may_refuse_newcomers() {
    let lonely = near("podAntiAffinity", "zone", "web");
    let nodes = ["a label:zone=x", "b label:zone=x"];
    let mut cluster = cluster(&nodes, &[("a", json!({"app": "db"}), lonely)]);
    check(
        &cluster,
        json!({"app": "web"}),
        json!({}),
        expect!["0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."],
    );
    check(&cluster, json!({"app": "other"}), json!({}), expect!["b"]);
    cluster.remove_pod("there-0");
    check(&cluster, json!({"app": "web"}), json!({}), expect!["a"]);
}

#[test]
fn siblings_spread_over_nodes_and_zones() {
    let mut cluster = cluster(
        &[
            "a label:topology.kubernetes.io/zone=x",
            "b label:topology.kubernetes.io/zone=x",
            "c label:topology.kubernetes.io/zone=y",
        ],
        &[],
    );
    let mut placed = Vec::new();
    for number in 0..6 {
        let mut sibling = pod(&format!("web-{number}"), &json!({}), &json!({}));
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "s", "controller": true}]);
        sibling.metadata.owner_references = serde_json::from_value(owner).unwrap();
        let Placement::Node(node) = place(&cluster, &sibling, &mut 0) else {
            panic!("there is room")
        };
        cluster.add_pod(&sibling, &node);
        placed.push(node);
    }
    assert_eq!(placed, ["a", "c", "b", "c", "a", "b"]);
}

#[test]
fn the_table_forgets_what_goes() {
    let mut cluster = cluster(
        &["a", "b"],
        &[("a", json!({}), json!({"containers": requests("3", "1Gi")}))],
    );
    assert!(!cluster.set_node(node("a")), "the same node is no news");
    assert!(cluster.set_node(node("a label:x=y")));
    cluster.remove_node("a");
    assert_eq!(cluster.len(), 1);
    check(&cluster, json!({}), json!({}), expect!["b"]);
    cluster.set_node(node("a"));
    check(
        &cluster,
        json!({}),
        json!({"containers": requests("2", "1Gi"), "nodeName": "a"}),
        expect![
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match the requested node name."
        ],
    );
    assert!(cluster.remove_pod("there-0"));
    assert!(!cluster.remove_pod("there-0"));
    assert_eq!(cluster.node("a").unwrap().requested.cpu_milli, 0);
    cluster.remove_node("a");
    assert!(cluster.node("a").is_none());
}

fn key(name: &str) -> PodKey {
    PodKey {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn taken(queue: &mut Queue, now: Instant) -> String {
    let names: Vec<String> = queue.take(10, now).into_iter().map(|key| key.name).collect();
    names.join(" ")
}

#[test]
fn important_pods_come_first_and_then_old_ones() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("a", 9)] {
        queue.add(key(name), priority);
    }
    queue.remove(&key("c"));
    assert_eq!(taken(&mut queue, now), "b a");
    assert_eq!(taken(&mut queue, now), "");
}

#[test]
fn a_pod_waits_for_what_could_help_it_and_for_its_backoff() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let second = Duration::from_secs(1);
    queue.add(key("big"), 0);
    queue.add(key("picky"), 0);
    assert_eq!(taken(&mut queue, now), "big picky");
    queue.give_back_unplaced(
        &key("big"),
        Hopes::of(&[Reason::Insufficient("cpu".to_owned())]),
        now,
    );
    queue.give_back_unplaced(&key("picky"), Hopes::of(&[Reason::Affinity]), now);
    queue.wake(News::PodGone, now);
    assert_eq!(taken(&mut queue, now), "", "its backoff is not over");
    assert_eq!(queue.next_due(), Some(now + second));
    assert_eq!(taken(&mut queue, now + second), "big");
    queue.wake(News::Node, now + second);
    assert_eq!(taken(&mut queue, now + second), "picky");
}

#[test]
fn failed_bindings_come_again_later_each_time() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    queue.add(key("a"), 0);
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert_eq!(taken(&mut queue, now), "a");
        queue.give_back_failed(&key("a"), now);
        let due = queue.next_due().unwrap();
        waits.push(due.duration_since(now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn nobody_waits_for_ever() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(key("a"), 0);
    taken(&mut queue, now);
    queue.give_back_unplaced(&key("a"), Hopes::default(), now);
    let due = queue.next_due().unwrap();
    assert_eq!(due.duration_since(now), Duration::from_secs(300));
    assert_eq!(taken(&mut queue, due), "a");
}
