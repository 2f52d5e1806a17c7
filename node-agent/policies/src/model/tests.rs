//! Policies and pods in, the layout of the table out. Names of sets and chains are made readable.

use expect_test::{Expect, expect};
use serde::de::DeserializeOwned;

use super::*;
use crate::program::{Body, Content, Element, Line};

const WEB: &str = "10.42.0.2";
const DB: &str = "10.42.0.3";

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

/// A pod with ports `http` and `dns`; one on this node has its name as its uid.
fn pod(namespace: &str, name: &str, labels: &str, address: &str) -> v1::Pod {
    yaml(&format!(
        "
metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}
spec: {{containers: [{{name: c, ports: [
  {{name: http, containerPort: 8080}}, {{name: dns, containerPort: 53, protocol: UDP}}, {{containerPort: 9}}]}}]}}
status: {{phase: Running, podIP: {address}}}"
    ))
}

/// Two pods of this node in `shop`, others elsewhere.
fn model() -> Model {
    let mut model = Model::default();
    for (name, labels) in [
        ("shop", "team: red"),
        ("ops", "team: blue"),
        ("kube-system", "a: b"),
    ] {
        let namespace = format!("metadata: {{name: {name}, labels: {{{labels}}}}}");
        model.namespace(&yaml(&namespace));
    }
    model.local_pod("web", &pod("shop", "web", "app: web", WEB), WEB.parse().unwrap());
    model.local_pod("db", &pod("shop", "db", "app: db", DB), DB.parse().unwrap());
    model.pod(&pod("shop", "cart", "app: cart", "10.42.1.2"));
    model.pod(&pod("ops", "probe", "app: probe", "10.42.1.3"));
    model.pod(&pod("ops", "web", "app: web", "10.42.1.4"));
    model.dns(Some(Ipv4Addr::new(10, 43, 0, 10)));
    model
}

fn policy(name: &str, spec: &str) -> NetworkPolicy {
    yaml(&format!(
        "metadata: {{namespace: shop, name: {name}}}\nspec: {spec}"
    ))
}

fn element(element: &Element) -> String {
    match element {
        Element::Address(address) => address.to_string(),
        Element::Port(address, protocol, port) => format!("{address}:{port}/{protocol:?}"),
    }
}

/// What the kernel is told of all, in the order of addresses; names lead to what they stand for.
fn layout(model: &mut Model) -> String {
    model.take_changes();
    let all = model.program().everything();
    let content = |name: &Name_| {
        let set = all.sets.iter().find(|set| set.name == *name).unwrap();
        let mut words: Vec<String> = match &set.content {
            Content::Addresses(elements) | Content::Ports(elements) => elements.iter().map(element).collect(),
            Content::Ranges(ranges) => ranges
                .iter()
                .map(|&(first, last)| format!("{}-{}", Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last)))
                .collect(),
        };
        words.sort();
        format!("{{{}}}", words.join(" "))
    };
    let ports = |name: &Name_| {
        let chain = all.chains.iter().find(|chain| chain.name == *name).unwrap();
        let Body::Ports(ports) = &chain.body else {
            panic!("{name} is no chain of ports")
        };
        let words: Vec<String> = ports
            .iter()
            .map(|range| format!("{:?} {}-{}", range.protocol, range.from, range.to))
            .collect();
        words.join(", ")
    };
    let line = |line: &Line| {
        let peer = line.peer.as_ref().map_or_else(|| "anyone".to_owned(), content);
        let named = line.named.as_ref().map(|name| format!(" to {}", content(name)));
        let ports = line.ports.as_ref().map(|name| format!(" at {}", ports(name)));
        format!(
            "    {peer}{}{}\n",
            named.unwrap_or_default(),
            ports.unwrap_or_default()
        )
    };
    let mut text = String::new();
    for way in &all.ways_added {
        let chain = all.chains.iter().find(|chain| chain.name == way.chain).unwrap();
        let Body::Allowed(direction, lines) = &chain.body else {
            panic!("{} is no chain of a pod", way.chain)
        };
        assert_eq!(*direction, way.direction);
        let mut lines: Vec<String> = lines.iter().map(line).collect();
        lines.sort();
        text += &format!("{:?} {}\n{}", way.direction, way.address, lines.concat());
    }
    text
}

type Name_ = flotilla_nftables::Name;

fn check(specs: &[&str], expected: &Expect) {
    let mut model = model();
    for (number, spec) in specs.iter().enumerate() {
        model.policy(&policy(&number.to_string(), spec));
    }
    expected.assert_eq(&layout(&mut model));
}

#[test]
fn pods_that_no_policy_picks_are_left_alone() {
    check(&[], &expect![""]);
    check(&["{podSelector: {matchLabels: {app: other}}}"], &expect![""]);
}

#[test]
fn default_deny_lets_nothing_through() {
    check(
        &["{podSelector: {}}"],
        &expect![[r#"
        Ingress 10.42.0.2
        Ingress 10.42.0.3
    "#]],
    );
    check(
        &["{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}"],
        &expect![[r#"
            Ingress 10.42.0.2
            Egress 10.42.0.2
        "#]],
    );
    check(
        &["{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], ingress: [{}]}"],
        &expect![[r#"
            Egress 10.42.0.2
        "#]],
    );
}

#[test]
fn types_follow_from_the_rules_where_none_are_named() {
    check(
        &["{podSelector: {matchLabels: {app: web}}, egress: [{}]}"],
        &expect![[r#"
            Ingress 10.42.0.2
            Egress 10.42.0.2
                anyone
        "#]],
    );
    check(
        &["{podSelector: {matchLabels: {app: web}}, egress: []}"],
        &expect![[r#"
            Ingress 10.42.0.2
        "#]],
    );
}

#[test]
fn peers_are_picked_by_pod_by_namespace_and_by_both() {
    let rule =
        |peer: &str| format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{peer}]}}]}}");
    check(
        &[&rule("{podSelector: {}}")],
        &expect![[r#"
        Ingress 10.42.0.3
            {10.42.0.2 10.42.0.3 10.42.1.2}
    "#]],
    );
    check(
        &[&rule("{podSelector: {matchLabels: {app: web}}}")],
        &expect![[r#"
            Ingress 10.42.0.3
                {10.42.0.2}
        "#]],
    );
    check(
        &[&rule("{namespaceSelector: {matchLabels: {team: blue}}}")],
        &expect![[r#"
            Ingress 10.42.0.3
                {10.42.1.3 10.42.1.4}
        "#]],
    );
    check(
        &[&rule("{namespaceSelector: {}}")],
        &expect![[r#"
        Ingress 10.42.0.3
            {10.42.0.2 10.42.0.3 10.42.1.2 10.42.1.3 10.42.1.4 10.43.0.10}
    "#]],
    );
    check(
        &[&rule(
            "{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web, x]}]}}",
        )],
        &expect![[r#"
            Ingress 10.42.0.3
                {10.42.1.4}
        "#]],
    );
    // Two peers are one or the other.
    check(
        &[&rule(
            "{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: web}}}",
        )],
        &expect![[r#"
            Ingress 10.42.0.3
                {10.42.0.2}
                {10.42.1.3 10.42.1.4}
        "#]],
    );
}

#[test]
fn ports_may_be_ranges_whole_protocols_and_names() {
    let ingress = |ports: &str| {
        format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{ports: [{ports}]}}]}}")
    };
    check(
        &[&ingress("{port: 80}, {port: 100, endPort: 200, protocol: UDP}")],
        &expect![[r#"
            Ingress 10.42.0.3
                anyone at Tcp 80-80, Udp 100-200
        "#]],
    );
    check(
        &[&ingress("{protocol: SCTP}")],
        &expect![[r#"
        Ingress 10.42.0.3
            anyone at Sctp 0-65535
    "#]],
    );
    // What comes in is for this pod, so its own names count.
    check(
        &[&ingress("{port: http}, {port: dns}, {port: dns, protocol: UDP}")],
        &expect![[r#"
            Ingress 10.42.0.3
                anyone at Tcp 8080-8080, Udp 53-53
        "#]],
    );
    check(
        &[&ingress("{port: unknown}")],
        &expect![[r#"
        Ingress 10.42.0.3
    "#]],
    );
}

#[test]
fn names_of_ports_of_what_goes_out_are_the_destinations() {
    let egress = |rule: &str| {
        format!("{{podSelector: {{matchLabels: {{app: db}}}}, policyTypes: [Egress], egress: [{rule}]}}")
    };
    check(
        &[&egress(
            "{to: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: http}, {port: 1}]}",
        )],
        &expect![[r#"
            Egress 10.42.0.3
                anyone to {10.42.1.2:8080/Tcp}
                {10.42.1.2} at Tcp 1-1
        "#]],
    );
    check(
        &[&egress("{ports: [{port: dns, protocol: UDP}]}")],
        &expect![[r#"
            Egress 10.42.0.3
                anyone to {10.42.0.2:53/Udp 10.42.0.3:53/Udp 10.42.1.2:53/Udp 10.42.1.3:53/Udp 10.42.1.4:53/Udp 10.43.0.10:53/Udp}
        "#]],
    );
    check(
        &[&egress(
            "{to: [{ipBlock: {cidr: 10.42.1.0/24}}], ports: [{port: http}]}",
        )],
        &expect![[r#"
            Egress 10.42.0.3
                {10.42.1.0-10.42.1.255} to {10.42.0.2:8080/Tcp 10.42.0.3:8080/Tcp 10.42.1.2:8080/Tcp 10.42.1.3:8080/Tcp 10.42.1.4:8080/Tcp}
        "#]],
    );
}

#[test]
fn ports_of_sidecars_have_names_and_those_of_what_ends_have_none() {
    let mut model = model();
    let policy_ = "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: mesh}, {port: once}]}]}";
    model.policy(&policy("p", policy_));
    let mut db = pod("shop", "db", "app: db", DB);
    db.spec.as_mut().unwrap().init_containers = yaml(
        "
- {name: a, restartPolicy: Always, ports: [{name: mesh, containerPort: 15}]}
- {name: b, ports: [{name: once, containerPort: 16}]}",
    );
    model.local_pod_changed("db", &db);
    expect![[r#"
        Ingress 10.42.0.3
            anyone at Tcp 15-15
    "#]]
    .assert_eq(&layout(&mut model));
}

#[test]
fn the_clusters_dns_is_found_where_policies_look_for_it() {
    check(
        &["{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{
             to: [{namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}],
             ports: [{port: 53, protocol: UDP}]}]}"],
        &expect![[r#"
            Egress 10.42.0.3
                {10.43.0.10} at Udp 53-53
        "#]],
    );
}

#[test]
fn blocks_of_one_rule_are_one_set() {
    check(
        &["{podSelector: {matchLabels: {app: db}}, ingress: [{from: [
             {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 192.0.2.0/24}},
             {ipBlock: {cidr: '2001:db8::/32'}}, {podSelector: {matchLabels: {app: web}}}],
             ports: [{port: 80}]}]}"],
        &expect![[r#"
            Ingress 10.42.0.3
                {10.0.0.0-10.0.255.255 10.2.0.0-10.255.255.255 192.0.2.0-192.0.2.255} at Tcp 80-80
                {10.42.0.2} at Tcp 80-80
        "#]],
    );
}

#[test]
fn policies_add_up() {
    check(
        &[
            "{podSelector: {}}",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 1}]}]}",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}]}]}",
        ],
        &expect![[r#"
            Ingress 10.42.0.2
            Ingress 10.42.0.3
                {10.42.0.2} at Tcp 1-1
                {10.42.1.2}
        "#]],
    );
    // Whoever lets everything through makes the others idle.
    check(
        &[
            "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}]}",
        ],
        &expect![[r#"
            Ingress 10.42.0.3
                anyone
        "#]],
    );
}

const FROM_WEB: &str = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: web}}}]}]}";

/// The changes in few words.
fn told(model: &mut Model) -> String {
    let changes = model.take_changes();
    let mut words: Vec<String> = Vec::new();
    let kind = |name: &Name_| name.split('_').next().unwrap().to_owned();
    words.extend(changes.sets.iter().map(|set| format!("+set {}", kind(&set.name))));
    words.extend(
        changes
            .chains
            .iter()
            .map(|chain| format!("+chain {}", kind(&chain.name))),
    );
    words.extend(
        changes
            .ways_removed
            .iter()
            .map(|way| format!("-way {}", way.address)),
    );
    words.extend(
        changes
            .ways_added
            .iter()
            .map(|way| format!("+way {}", way.address)),
    );
    words.extend(
        changes
            .isolated_removed
            .iter()
            .map(|address| format!("-itself {address}")),
    );
    words.extend(
        changes
            .isolated_added
            .iter()
            .map(|address| format!("+itself {address}")),
    );
    words.extend(
        changes
            .chains_removed
            .iter()
            .map(|name| format!("-chain {}", kind(name))),
    );
    words.extend(
        changes
            .removed
            .iter()
            .map(|(_, gone)| format!("-{}", element(gone))),
    );
    words.extend(changes.added.iter().map(|(_, new)| format!("+{}", element(new))));
    words.extend(
        changes
            .sets_removed
            .iter()
            .map(|name| format!("-set {}", kind(name))),
    );
    words.join(", ")
}

#[test]
fn a_peer_that_comes_or_goes_is_one_element() {
    let mut model = model();
    model.policy(&policy("p", FROM_WEB));
    assert_eq!(
        told(&mut model),
        "+set pods, +chain ingress, +way 10.42.0.3, +itself 10.42.0.3"
    );
    model.pod(&pod("ops", "web-2", "app: web", "10.42.1.9"));
    assert_eq!(told(&mut model), "+10.42.1.9");
    // Another pod with the address before the first is known to be gone.
    model.pod(&pod("ops", "web-3", "app: web", "10.42.1.9"));
    model.pod_gone("ops", "web-2");
    assert_eq!(told(&mut model), "");
    model.pod(&pod("ops", "web-3", "app: else", "10.42.1.9"));
    assert_eq!(told(&mut model), "-10.42.1.9");
    model.pod(&pod("ops", "web-3", "app: web", "10.42.1.10"));
    model.pod_gone("ops", "web-3");
    assert_eq!(told(&mut model), "", "it came and went unseen");
}

#[test]
fn pods_that_are_over_or_use_their_nodes_network_are_no_peers() {
    let mut model = model();
    model.policy(&policy("p", FROM_WEB));
    model.take_changes();
    let mut web = pod("ops", "web", "app: web", "10.42.1.4");
    web.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    model.pod(&web);
    assert_eq!(told(&mut model), "-10.42.1.4");
    let mut host = pod("ops", "host", "app: web", "192.0.2.1");
    host.spec.as_mut().unwrap().host_network = Some(true);
    model.pod(&host);
    assert_eq!(told(&mut model), "");
}

#[test]
fn namespaces_count_by_their_newest_labels_and_not_before_they_are_known() {
    let mut model = model();
    model.policy(&policy("p", FROM_WEB));
    model.pod(&pod("late", "web", "app: web", "10.42.1.20"));
    model.take_changes();
    model.namespace(&yaml("metadata: {name: late, labels: {team: blue}}"));
    assert_eq!(told(&mut model), "+10.42.1.20");
    model.namespace(&yaml("metadata: {name: ops, labels: {team: red}}"));
    assert_eq!(told(&mut model), "-10.42.1.4");
    model.namespace_gone("late");
    assert_eq!(told(&mut model), "-10.42.1.20");
}

#[test]
fn a_changed_policy_replaces_chains_and_leaves_nothing_behind() {
    let mut model = model();
    model.policy(&policy("p", FROM_WEB));
    model.take_changes();
    model.policy(&policy(
        "p",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}]}",
    ));
    assert_eq!(
        told(&mut model),
        "+chain ports, +chain ingress, -way 10.42.0.3, +way 10.42.0.3, -chain ingress, -set pods"
    );
    model.policy_gone("shop", "p");
    assert_eq!(
        told(&mut model),
        "-way 10.42.0.3, -itself 10.42.0.3, -chain ingress, -chain ports"
    );
    assert!(!model.has_policies());
}

#[test]
fn a_pod_of_this_node_is_isolated_with_its_labels_and_let_go_with_its_address() {
    let mut model = model();
    model.policy(&policy("p", "{podSelector: {matchLabels: {app: new}}}"));
    assert_eq!(told(&mut model), "");
    let address = Ipv4Addr::new(10, 42, 0, 9);
    model.local_pod("new", &pod("shop", "new", "app: new", "10.42.0.9"), address);
    assert_eq!(
        told(&mut model),
        "+chain ingress, +way 10.42.0.9, +itself 10.42.0.9"
    );
    model.local_pod_changed("new", &pod("shop", "new", "app: old", "10.42.0.9"));
    assert_eq!(
        told(&mut model),
        "-way 10.42.0.9, -itself 10.42.0.9, -chain ingress"
    );
    model.local_pod_changed("new", &pod("shop", "new", "app: new", "10.42.0.9"));
    model.take_changes();
    // The address is another pod's before the first was taken down.
    model.local_pod("other", &pod("ops", "other", "app: new", "10.42.0.9"), address);
    assert_eq!(
        told(&mut model),
        "-way 10.42.0.9, -itself 10.42.0.9, -chain ingress"
    );
    model.local_pod_gone("new");
    assert_eq!(told(&mut model), "");
}

#[test]
fn pods_that_are_allowed_the_same_share_a_chain() {
    let mut model = model();
    model.policy(&policy(
        "p",
        "{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 1}]}]}",
    ));
    assert_eq!(
        told(&mut model),
        "+set pods, +chain ports, +chain ingress, +way 10.42.0.2, +way 10.42.0.3, +itself 10.42.0.2, +itself 10.42.0.3"
    );
}

#[test]
fn whatever_happens_changes_lead_to_what_is_wanted() {
    let mut model = model();
    let mut seen = Vec::new();
    for step in [FROM_WEB, "{podSelector: {}}", FROM_WEB] {
        model.policy(&policy("p", step));
        seen.push(layout(&mut model));
    }
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
}
