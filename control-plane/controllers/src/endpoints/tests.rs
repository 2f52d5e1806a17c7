//! Pods and slices in, writes out.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

use super::plan::{Common, PortGroup, Step, group, plan};
use super::*;
use crate::labels::controller_ref;

fn pod(name: &str, fields: &Value) -> Pod {
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}, "deletionTimestamp": fields["deleted"]},
        "spec": {
            "nodeName": "n1", "hostname": fields["hostname"], "subdomain": fields["subdomain"],
            "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": fields["port"].as_i64().unwrap_or(8080)}]}],
        },
        "status": {
            "phase": fields["phase"].as_str().unwrap_or("Running"), "podIP": fields["ip"].as_str().unwrap_or("10.42.0.1"),
            "conditions": [{"type": "Ready", "status": if fields["unready"].is_null() { "True" } else { "False" }}],
        },
    });
    serde_json::from_value(pod).unwrap()
}

fn service(fields: &Value) -> Service {
    let mut spec = json!({
        "clusterIP": "10.43.0.5", "selector": {"app": "web"},
        "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "shop", "uid": "s"}, "spec": spec}),
    )
    .unwrap()
}

/// `address ready/serving/terminating :port`, or nothing.
fn told(service_fields: &Value, pod_fields: &Value) -> String {
    let (service, pod) = (service(service_fields), pod("p", pod_fields));
    if !observe::selects(&service, &pod) || !observe::is_candidate(&pod) {
        return String::new();
    }
    let endpoint = observe::endpoint(&service, &pod, None).unwrap();
    let conditions = endpoint.conditions.unwrap();
    let flags: Vec<&str> = [
        ("ready", conditions.ready),
        ("serving", conditions.serving),
        ("terminating", conditions.terminating),
    ]
    .into_iter()
    .filter(|(_, flag)| *flag == Some(true))
    .map(|(name, _)| name)
    .collect();
    let ports: Vec<String> = observe::ports(&service, &pod)
        .iter()
        .map(|port| format!(":{}", port.port.unwrap()))
        .collect();
    let hostname = endpoint
        .hostname
        .map(|name| format!(" {name}"))
        .unwrap_or_default();
    format!(
        "{} {} {}{hostname}",
        endpoint.addresses.join(","),
        flags.join("/"),
        ports.join(",")
    )
}

#[test]
fn a_pod_tells_whether_it_is_ready_serving_or_terminating() {
    let plain = json!({});
    assert_eq!(told(&plain, &json!({})), "10.42.0.1 ready/serving :8080");
    assert_eq!(told(&plain, &json!({"unready": true})), "10.42.0.1  :8080");
    let deleted = json!({"deleted": "2026-01-01T00:00:00Z"});
    assert_eq!(told(&plain, &deleted), "10.42.0.1 serving/terminating :8080");
    assert_eq!(
        told(
            &json!({"publishNotReadyAddresses": true}),
            &json!({"unready": true})
        ),
        "10.42.0.1 ready :8080"
    );
}

#[test]
fn pods_that_cannot_be_reached_or_are_not_selected_are_left_out() {
    let plain = json!({});
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(told(&plain, &json!({"phase": phase})), "");
    }
    assert_eq!(told(&plain, &json!({"ip": ""})), "");
    assert_eq!(told(&json!({"selector": {"app": "other"}}), &json!({})), "");
    assert_eq!(told(&json!({"selector": {}}), &json!({})), "");
    assert_eq!(told(&json!({"type": "ExternalName"}), &json!({})), "");
}

#[test]
fn named_ports_are_each_pods_own_and_hostnames_those_of_the_services_subdomain() {
    let plain = json!({});
    assert_eq!(
        told(&plain, &json!({"port": 9090})),
        "10.42.0.1 ready/serving :9090"
    );
    let missing = json!({"ports": [{"port": 80, "targetPort": "metrics"}, {"port": 81, "targetPort": 99}]});
    assert_eq!(told(&missing, &json!({})), "10.42.0.1 ready/serving :99");
    assert_eq!(
        told(&plain, &json!({"hostname": "web-0", "subdomain": "web"})),
        "10.42.0.1 ready/serving :8080 web-0"
    );
    assert_eq!(
        told(&plain, &json!({"hostname": "web-0", "subdomain": "db"})),
        "10.42.0.1 ready/serving :8080"
    );
}

#[test]
fn endpoints_have_ready_addresses_and_others() {
    let pods = [
        pod("a", &json!({"ip": "10.42.0.2"})),
        pod("b", &json!({"ip": "10.42.0.1"})),
        pod("c", &json!({"ip": "10.42.0.3", "unready": true})),
        pod(
            "d",
            &json!({"ip": "10.42.0.4", "deleted": "2026-01-01T00:00:00Z"}),
        ),
        pod("e", &json!({"ip": "10.42.0.5", "port": 9090})),
    ];
    let endpoints = subsets::endpoints(&service(&json!({})), pods.iter());
    let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        list.iter()
            .flatten()
            .map(|address| address.ip.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let shown: Vec<String> = endpoints
        .subsets
        .unwrap()
        .iter()
        .map(|subset| {
            let port = subset.ports.as_ref().unwrap()[0].port;
            format!(
                "{} not {} :{port}",
                ips(&subset.addresses),
                ips(&subset.not_ready_addresses)
            )
        })
        .collect();
    assert_eq!(
        shown,
        ["10.42.0.1 10.42.0.2 not 10.42.0.3 :8080", "10.42.0.5 not  :9090"]
    );
}

fn common() -> Common {
    Common {
        namespace: "shop".into(),
        base_name: "web".into(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        owner: controller_ref("v1", "Service", &service(&json!({})).metadata),
    }
}

fn endpoint(number: usize, ready: bool) -> Endpoint {
    let address = format!("10.42.{}.{}", number / 250, number % 250);
    serde_json::from_value(json!({"addresses": [address], "conditions": {"ready": ready}})).unwrap()
}

fn groups(numbers: impl IntoIterator<Item = usize>, unready: usize) -> Vec<PortGroup> {
    let port = serde_json::from_value(json!({"name": "web", "port": 8080})).unwrap();
    let ports = vec![port];
    let mut all = Vec::new();
    numbers
        .into_iter()
        .for_each(|number| group(&mut all, ports.clone(), endpoint(number, number != unready)));
    all
}

/// Carries the steps out; returns them in words.
fn apply(slices: &mut BTreeMap<String, EndpointSlice>, wanted: Vec<PortGroup>) -> String {
    let present: Vec<EndpointSlice> = slices.values().cloned().collect();
    let steps = plan(&common(), wanted, &present.iter().collect::<Vec<_>>());
    let mut words = Vec::new();
    for step in steps {
        match step {
            Step::Create(mut slice) => {
                let name = format!("web-{}", slices.len() + 1);
                words.push(format!("create {name} {}", slice.endpoints.len()));
                slice.metadata.name = Some(name.clone());
                slices.insert(name, slice);
            }
            Step::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap();
                words.push(format!("update {name} {}", slice.endpoints.len()));
                slices.insert(name, slice);
            }
            Step::Delete(name) => {
                words.push(format!("delete {name}"));
                slices.remove(&name);
            }
        }
    }
    words.join(", ")
}

const NONE: usize = usize::MAX;

#[test]
fn slices_hold_a_hundred_endpoints_and_only_changed_ones_are_written() {
    let mut slices = BTreeMap::new();
    assert_eq!(
        apply(&mut slices, groups(0..250, NONE)),
        "create web-1 100, create web-2 100, create web-3 50"
    );
    assert_eq!(apply(&mut slices, groups(0..250, NONE)), "");
    let words = apply(&mut slices, groups(0..250, 7));
    assert_eq!(
        (words.matches("update").count(), words.matches(',').count()),
        (1, 0),
        "{words}"
    );
    // A pod is replaced: where it was there is room for the new one.
    let words = apply(&mut slices, groups((1..250).chain([300]), 7));
    assert_eq!(
        (words.matches("update").count(), words.matches(',').count()),
        (1, 0),
        "{words}"
    );
    // One more goes where there is room already.
    assert_eq!(
        apply(&mut slices, groups((1..250).chain([300, 301]), 7)),
        "update web-3 51"
    );
}

#[test]
fn emptied_slices_go_and_the_last_one_stays_to_say_none() {
    let mut slices = BTreeMap::new();
    assert_eq!(apply(&mut slices, groups([], NONE)), "create web-1 0");
    assert_eq!(apply(&mut slices, groups([], NONE)), "");
    assert_eq!(
        apply(&mut slices, groups(0..150, NONE)),
        "update web-1 100, create web-2 50"
    );
    let words = apply(&mut slices, groups(0..1, NONE));
    assert!(words.contains("delete") && slices.len() == 1, "{words}");
    let words = apply(&mut slices, groups([], NONE));
    assert!(
        words.starts_with("update") && slices.values().next().unwrap().endpoints.is_empty(),
        "{words}"
    );
}

#[test]
fn pods_with_other_ports_have_slices_of_their_own() {
    let mut all = groups(0..2, NONE);
    let other = serde_json::from_value(json!({"name": "web", "port": 9090})).unwrap();
    group(&mut all, vec![other], endpoint(5, true));
    let mut slices = BTreeMap::new();
    assert_eq!(apply(&mut slices, all.clone()), "create web-1 2, create web-2 1");
    assert_eq!(apply(&mut slices, all), "");
    assert_eq!(apply(&mut slices, groups(0..2, NONE)), "delete web-2");
}

#[test]
fn custom_endpoints_become_slices() {
    let endpoints = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "subsets": [{
            "addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"port": 5432}],
        }],
    });
    let groups = mirror::groups(&serde_json::from_value(endpoints).unwrap());
    assert_eq!(groups.len(), 1);
    let shown: Vec<_> = groups[0]
        .endpoints
        .iter()
        .map(|endpoint| {
            (
                endpoint.addresses[0].as_str(),
                endpoint.conditions.as_ref().unwrap().ready,
            )
        })
        .collect();
    assert_eq!(shown, [("192.0.2.1", Some(true)), ("192.0.2.2", Some(false))]);
    assert_eq!(groups[0].ports[0].protocol.as_deref(), Some("TCP"));
}
