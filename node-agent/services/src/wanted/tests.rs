//! Services and endpoints in, frontends and backends out.

use serde_json::{Value, json};

use super::*;

/// Endpoints as `address[@node]:state`, state being ready, draining or unready.
fn slice(endpoints: &str) -> Value {
    let endpoint = |text: &str| {
        let (place, state) = text.split_once(':').unwrap();
        let (address, node) = place.split_once('@').unwrap_or((place, "other"));
        let (ready, draining) = (state == "ready", state == "draining");
        json!({
            "addresses": [address], "nodeName": node,
            "conditions": {"ready": ready, "serving": ready || draining, "terminating": draining},
        })
    };
    json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.split_whitespace().map(endpoint).collect::<Vec<_>>(),
    })
}

fn model(spec: &Value, status: &Value, endpoints: &str) -> Model {
    let mut whole = json!({
        "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "ports": [{"name": "http", "port": 80, "nodePort": spec["nodePort"], "protocol": "TCP"}],
    });
    let fields = spec.as_object().unwrap().clone();
    whole
        .as_object_mut()
        .unwrap()
        .extend(fields.into_iter().filter(|(name, _)| name != "nodePort"));
    let service = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": whole, "status": status});
    let mut model = Model::new("this");
    model.service(&serde_json::from_value(service).unwrap());
    model.slice(&serde_json::from_value(slice(endpoints)).unwrap());
    model
}

/// One line per frontend: where connections from outside go, those from inside if that differs, and `masquerade`.
fn check_with(spec: &Value, status: &Value, endpoints: &str, expected: &[&str]) {
    let wanted = wanted(
        &model(spec, status, endpoints),
        "shop/web",
        &[Ipv4Addr::new(10, 0, 0, 1)],
    );
    let goal = |goal: Goal| match goal {
        Goal::Group(index) => {
            let backends = &wanted.groups[usize::from(index)].backends;
            let shown = backends
                .iter()
                .map(|backend| format!("{}:{}", backend.address.octets()[3], backend.port));
            shown.collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}").to_lowercase(),
    };
    let line = |entry: &Entry| {
        let inside = entry
            .inside
            .map(|inside| format!(" inside {}", goal(inside)))
            .unwrap_or_default();
        let masquerade = if entry.masquerade { " masquerade" } else { "" };
        let frontend = entry.frontend;
        format!(
            "{}:{} {}{inside}{masquerade}",
            frontend.address,
            frontend.port,
            goal(entry.outside)
        )
    };
    let found: Vec<String> = wanted.entries.iter().map(line).collect();
    assert_eq!(found, expected, "{spec} {endpoints}");
}

fn check(spec: &Value, endpoints: &str, expected: &[&str]) {
    check_with(spec, &json!({}), endpoints, expected);
}

#[test]
fn connections_go_to_endpoints_that_are_ready() {
    check(
        &json!({}),
        "10.42.0.1:ready 10.42.0.2:unready 10.42.0.3:ready",
        &["10.43.0.5:80 1:8080,3:8080"],
    );
    check(&json!({}), "10.42.0.2:unready", &["10.43.0.5:80 reject"]);
    check(&json!({}), "", &["10.43.0.5:80 reject"]);
}

#[test]
fn draining_endpoints_serve_when_nothing_else_does() {
    check(
        &json!({}),
        "10.42.0.1:draining 10.42.0.2:ready",
        &["10.43.0.5:80 2:8080"],
    );
    check(
        &json!({}),
        "10.42.0.1:draining 10.42.0.2:unready",
        &["10.43.0.5:80 1:8080"],
    );
}

#[test]
fn headless_services_and_other_names_need_nothing() {
    check(
        &json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        "10.42.0.1:ready",
        &[],
    );
    check(
        &json!({"type": "ExternalName", "externalName": "a.b"}),
        "10.42.0.1:ready",
        &[],
    );
}

#[test]
fn node_ports_and_external_addresses_leave_with_the_nodes_address() {
    check(
        &json!({"type": "NodePort", "nodePort": 30080, "externalIPs": ["192.0.2.1"]}),
        "10.42.0.1:ready",
        &[
            "10.43.0.5:80 1:8080",
            "192.0.2.1:80 1:8080 masquerade",
            "10.0.0.1:30080 1:8080 masquerade",
        ],
    );
}

#[test]
fn a_local_external_policy_keeps_clients_addresses_and_is_for_outsiders_only() {
    let local = json!({"type": "LoadBalancer", "nodePort": 30080, "externalTrafficPolicy": "Local"});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.200", "ipMode": "VIP"}]}});
    check_with(
        &local,
        &status,
        "10.42.0.1@this:ready 10.42.0.2:ready",
        &[
            "10.43.0.5:80 1:8080,2:8080",
            "10.0.0.200:80 1:8080 inside 1:8080,2:8080",
            "10.0.0.1:30080 1:8080 inside 1:8080,2:8080",
        ],
    );
    check_with(
        &local,
        &status,
        "10.42.0.2:ready",
        &[
            "10.43.0.5:80 2:8080",
            "10.0.0.200:80 drop inside 2:8080",
            "10.0.0.1:30080 drop inside 2:8080",
        ],
    );
    let proxied = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.200", "ipMode": "Proxy"}]}});
    check_with(
        &json!({"type": "LoadBalancer"}),
        &proxied,
        "10.42.0.2:ready",
        &["10.43.0.5:80 2:8080"],
    );
}

#[test]
fn a_local_internal_policy_is_for_everybody() {
    let local = json!({"internalTrafficPolicy": "Local"});
    check(
        &local,
        "10.42.0.1@this:ready 10.42.0.2:ready",
        &["10.43.0.5:80 1:8080"],
    );
    check(
        &local,
        "10.42.0.1@this:draining 10.42.0.2:ready",
        &["10.43.0.5:80 1:8080"],
    );
    check(&local, "10.42.0.2:ready", &["10.43.0.5:80 drop"]);
    check(&local, "", &["10.43.0.5:80 reject"]);
}

#[test]
fn ports_are_found_by_name_and_protocol() {
    let other = json!({"ports": [{"name": "https", "port": 443, "protocol": "TCP"}]});
    check(&other, "10.42.0.1:ready", &["10.43.0.5:443 reject"]);
    let other = json!({"ports": [{"name": "http", "port": 443, "protocol": "UDP"}]});
    check(&other, "10.42.0.1:ready", &["10.43.0.5:443 reject"]);
}

#[test]
fn a_change_makes_its_own_service_dirty_and_no_news_none() {
    let mut model = model(&json!({}), &json!({}), "10.42.0.1:ready");
    assert_eq!(model.take_dirty().len(), 1);
    model.slice(&serde_json::from_value(slice("10.42.0.1:ready")).unwrap());
    assert!(model.take_dirty().is_empty());
    model.slice(&serde_json::from_value(slice("10.42.0.1:unready")).unwrap());
    assert_eq!(model.take_dirty().first().map(|name| &**name), Some("shop/web"));
    model.slice_gone("shop", "web-1");
    assert_eq!(model.take_dirty().len(), 1);
    model.slice_gone("shop", "web-1");
    model.service_gone("shop", "other");
    assert!(model.take_dirty().is_empty());
}

#[test]
fn a_node_uses_endpoints_of_its_zone_once_it_knows_which_that_is() {
    let mut model = model(&json!({}), &json!({}), "");
    let mut slice = slice("10.42.0.1:ready 10.42.0.2:ready");
    for (number, zone) in ["a", "b"].into_iter().enumerate() {
        slice["endpoints"][number]["hints"] = json!({"forZones": [{"name": zone}]});
    }
    model.slice(&serde_json::from_value(slice).unwrap());
    let used = |model: &Model| -> Vec<u8> {
        let wanted = wanted(model, "shop/web", &[]);
        let backends = wanted.groups[0].backends.iter();
        backends.map(|backend| backend.address.octets()[3]).collect()
    };
    assert_eq!(used(&model), [1, 2]);
    model.take_dirty();
    model.zone(Some("b"));
    assert_eq!(model.take_dirty().len(), 1);
    assert_eq!(used(&model), [2]);
    model.zone(Some("b"));
    assert!(model.take_dirty().is_empty());
}
