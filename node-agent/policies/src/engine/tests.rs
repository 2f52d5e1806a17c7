//! Policies in a network namespace of their own, with the node's real network, pods in namespaces, and real packets.

mod node;

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use node::{Node, on_a_node};

const DENY_IN: &str = "{podSelector: {}}";
const DENY_OUT: &str = "{podSelector: {}, policyTypes: [Egress]}";

#[test]
fn what_comes_in_is_denied_but_for_those_that_are_picked_by_namespace_and_labels() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        let probe = node.pod("ops", "app: probe").await;
        db.serves(80).await;
        probe.reaches(&db, 80).await;
        node.policy("deny", DENY_IN).await;
        web.is_kept_from(&db, 80).await;
        probe.is_kept_from(&db, 80).await;
        node.policy(
            "allow",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [
               {namespaceSelector: {matchLabels: {name: ops}}, podSelector: {matchLabels: {app: probe}}}]}]}",
        )
        .await;
        probe.reaches(&db, 80).await;
        web.is_kept_from(&db, 80).await;
        // A peer is let in as soon as it is known, and no longer than that.
        let other = node.pod("ops", "app: other").await;
        other.is_kept_from(&db, 80).await;
        node.relabel(&other, "app: probe").await;
        other.reaches(&db, 80).await;
        node.relabel(&other, "app: other").await;
        other.is_kept_from(&db, 80).await;
        // What the isolated pod asks for is answered.
        probe.serves(81).await;
        db.reaches(&probe, 81).await;
        node.policy_gone("deny").await;
        node.policy_gone("allow").await;
        web.reaches(&db, 80).await;
    });
}

#[test]
fn the_node_reaches_its_pods_and_they_reach_it_whatever_the_policies_are() {
    on_a_node(async |mut node: Node| {
        let web = node.pod("shop", "app: web").await;
        web.serves(80).await;
        node.policy("deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
            .await;
        node.itself.reaches(&web, 80).await;
        node.itself.serves(82).await;
        web.reaches(&node.itself, 82).await;
    });
}

#[test]
fn names_are_answered_only_to_whom_may_ask_for_them() {
    on_a_node(async |mut node: Node| {
        let web = node.pod("shop", "app: web").await;
        node.serves_names().await;
        web.is_answered(node::DNS, 53).await;
        node.policy("deny", DENY_OUT).await;
        web.is_not_answered(node::DNS, 53).await;
        node.policy("names", "{podSelector: {}, egress: [{to: [{namespaceSelector: {matchLabels: {name: kube-system}}}], ports: [{port: 53, protocol: UDP}]}]}").await;
        web.is_answered(node::DNS, 53).await;
    });
}

#[test]
fn ports_are_let_through_by_number_range_and_name() {
    on_a_node(async |mut node: Node| {
        // Its port 8080 is named `http`.
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        for port in [80, 99, 100, 105, 110, 111, 8080] {
            db.serves(port).await;
        }
        node.policy(
            "ports",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}, {port: 100, endPort: 110}]}]}",
        )
        .await;
        for port in [80, 100, 105, 110] {
            web.reaches(&db, port).await;
        }
        for port in [99, 111, 8080] {
            web.is_kept_from(&db, port).await;
        }
        node.policy_gone("ports").await;
        node.policy(
            "names",
            "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [
               {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]}",
        )
        .await;
        web.reaches(&db, 8080).await;
        web.is_kept_from(&db, 80).await;
        db.answers(53).await;
        web.is_not_answered(db.address, 53).await;
        node.policy(
            "datagrams",
            "{podSelector: {matchLabels: {app: web}}, egress: [{ports: [{port: 53, protocol: UDP}]}]}",
        )
        .await;
        web.is_answered(db.address, 53).await;
    });
}

#[test]
fn blocks_of_addresses_are_let_through_without_their_exceptions() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let near = node.pod("shop", "app: near").await;
        let far = node.pod("shop", "app: far").await;
        db.serves(80).await;
        let except = far.address;
        node.policy(
            "block",
            &format!(
                "{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [{except}/32]}}}}]}}]}}"
            ),
        )
        .await;
        near.reaches(&db, 80).await;
        far.is_kept_from(&db, 80).await;
        node.policy(
            "block",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}",
        )
        .await;
        far.reaches(&db, 80).await;
    });
}

#[test]
fn policies_see_the_pod_behind_a_service_and_a_pod_always_reaches_itself() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        let other = node.pod("shop", "app: other").await;
        db.serves(8080).await;
        let service = node.service_of(&db, 8080).await;
        node.policy("deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
            .await;
        node.policy("in", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]}").await;
        web.is_kept_from_address(service, 80).await;
        node.policy("out", "{podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}").await;
        web.reaches_address(service, 80).await;
        other.is_kept_from_address(service, 80).await;
        db.reaches_address(service, 80).await;
    });
}

#[test]
fn a_connection_that_is_under_way_goes_on_and_no_new_one_begins() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        db.serves(80).await;
        let connection = web.connects(&db, 80).await;
        node.policy("deny", DENY_IN).await;
        web.is_kept_from(&db, 80).await;
        assert!(connection.goes_on().await);
    });
}

#[test]
fn a_pod_is_not_admitted_before_its_policies_are_known_and_in_the_kernel() {
    on_a_node(async |mut node: Node| {
        let mut engine = node.restart_without_knowledge().await;
        let web = node.attach("shop", "app: web").await;
        let admitted = engine.shared.clone();
        let (uid, object, address) = (web.uid.clone(), web.object.clone(), web.address);
        let mut waiting = Box::pin(async move { admitted.admit(&uid, &object, address).await });
        // Told, but not that it is all.
        engine.policy("deny", DENY_OUT).await;
        let early = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
        assert!(early.is_err(), "admitted without knowing all policies");
        engine.synced();
        waiting.await.unwrap();
        let db = node.attach("shop", "app: db").await;
        db.serves(80).await;
        web.is_kept_from(&db, 80).await;
    });
}

#[test]
fn rules_outlive_their_agent_and_are_taken_over_without_a_gap() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        db.serves(80).await;
        node.policy("deny", DENY_IN).await;
        let engine = node.restart_without_knowledge().await;
        web.is_kept_from(&db, 80).await;
        // The next agent knows what the last one knew, before it touches anything.
        engine.tell(&node).await;
        engine.synced();
        engine.settled().await;
        web.is_kept_from(&db, 80).await;
    });
}

#[test]
fn rules_that_somebody_removed_are_written_again() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        let web = node.pod("shop", "app: web").await;
        db.serves(80).await;
        node.policy("deny", DENY_IN).await;
        let flushed = Command::new("nft")
            .args(["delete", "table", "ip", "flotilla_policies"])
            .status();
        assert!(flushed.unwrap().success());
        web.reaches(&db, 80).await;
        node.eventually("the rules are back", async || web.is_kept(&db, 80).await)
            .await;
    });
}

#[test]
fn the_nft_program_can_list_every_kind_of_rule() {
    on_a_node(async |mut node: Node| {
        let db = node.pod("shop", "app: db").await;
        node.policy(
            "all",
            "{podSelector: {}, policyTypes: [Ingress, Egress],
              ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 1, endPort: 9}, {port: 80}, {protocol: UDP}]}],
              egress: [{ports: [{port: http}]}, {to: [{ipBlock: {cidr: 192.0.0.0/2}}]}]}",
        )
        .await;
        let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let text = String::from_utf8(listed.stdout).unwrap();
        let address = db.address;
        for part in [
            "10.2.0.0-10.255.255.255".to_owned(),
            format!("{address} . tcp . 8080"),
            format!("{address} . {address}"),
            format!("{address} : goto egress_"),
            "tcp dport 1-9".to_owned(),
        ] {
            assert!(text.contains(&part), "{part} is missing in\n{text}");
        }
    });
}

#[test]
fn a_pod_without_policies_is_admitted_at_once_and_left_alone() {
    on_a_node(async |mut node: Node| {
        let one = node.pod("shop", "app: one").await;
        let two = node.pod("ops", "app: two").await;
        one.serves(80).await;
        two.reaches(&one, 80).await;
        assert_ne!(one.address, Ipv4Addr::UNSPECIFIED);
    });
}
