//! Where a service is reached.

use serde_json::{Value, json};

use super::*;

fn model(cluster_ip: &str, conditions: &[Value]) -> Model {
    let mut model = Model::new("here");
    let meta = json!({"namespace": "a", "name": "web"});
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let service = json!({"metadata": meta, "spec": {"clusterIP": cluster_ip, "ports": ports}});
    model.service(&serde_json::from_value(service).unwrap());
    let endpoint = |(index, conditions): (usize, &Value)| json!({"addresses": [format!("10.42.0.{index}")], "conditions": conditions});
    let endpoints: Vec<Value> = conditions.iter().enumerate().map(endpoint).collect();
    let meta = json!({"namespace": "a", "name": "web-1", "labels": {SERVICE_LABEL: "web"}});
    let slice = json!({
        "metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
    });
    model.slice(&serde_json::from_value(slice).unwrap());
    model
}

#[test]
fn a_service_is_reached_at_its_ready_endpoints_by_number_and_name() {
    let (ready, unready) = (json!({"ready": true}), json!({"ready": false}));
    let at = |address: &str| Reached::At(vec![address.parse().unwrap()]);
    for cluster_ip in ["10.43.0.9", "None"] {
        let model = model(cluster_ip, &[unready.clone(), ready.clone()]);
        let ask = |name: &str, port| model.endpoints("a", name, port);
        assert_eq!(ask("web", PortName::Number(80)), at("10.42.0.1:8080"));
        assert_eq!(ask("web", PortName::Name("http")), at("10.42.0.1:8080"));
        assert_eq!(ask("web", PortName::Name("dns")), Reached::NoPort);
        assert_eq!(ask("web", PortName::Number(8080)), Reached::NoPort);
        assert_eq!(ask("other", PortName::Number(80)), Reached::NoService);
    }
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let model = model("None", &[unready, leaving]);
    assert_eq!(
        model.endpoints("a", "web", PortName::Number(80)),
        at("10.42.0.1:8080")
    );
}

#[test]
fn a_headless_service_that_is_gone_is_not_reached() {
    let mut model = model("None", &[]);
    model.service_gone("a", "web");
    assert_eq!(
        model.endpoints("a", "web", PortName::Number(80)),
        Reached::NoService
    );
}
