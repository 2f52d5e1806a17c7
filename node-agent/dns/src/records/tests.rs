//! Lookups by example.

#![allow(clippy::needless_pass_by_value, reason = "a value is made for one call")]

use expect_test::{Expect, expect};
use serde_json::{Value as Json, json};

use super::*;

fn service(records: &mut Records, name: &str, spec: Json) {
    let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    records.set_service("default", name, Some(&service));
}

fn slice(records: &mut Records, name: &str, service: &str, endpoints: Json) {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}],
        "endpoints": endpoints,
    }))
    .unwrap();
    records.set_slice("default", name, Some(&slice));
}

/// One service of each type.
fn cluster() -> Records {
    let mut records = Records::new("cluster.local.");
    let ranges = vec!["10.42.0.0/16".to_owned()];
    records.set_zone("Cluster.Local", "10.43.0.10".parse().ok(), ranges);
    records.set_namespace("default", true);
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    service(
        &mut records,
        "web",
        json!({"clusterIP": "10.43.0.7", "ports": ports}),
    );
    service(
        &mut records,
        "dual",
        json!({"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.8", "fd43::8"], "ports": ports}),
    );
    service(
        &mut records,
        "db",
        json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}),
    );
    service(&mut records, "idle", json!({"clusterIP": "None"}));
    service(
        &mut records,
        "away",
        json!({"type": "ExternalName", "externalName": "Example.com."}),
    );
    slice(
        &mut records,
        "web-a",
        "web",
        json!([{"addresses": ["10.42.1.9"]}]),
    );
    slice(
        &mut records,
        "db-a",
        "db",
        json!([
            {"addresses": ["10.42.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.1.3"], "hostname": "db-1", "conditions": {"ready": false}},
            {"addresses": ["10.42.1.4"]},
        ]),
    );
    slice(
        &mut records,
        "db-b",
        "db",
        json!([{"addresses": ["10.42.2.2"], "hostname": "db-2"}]),
    );
    records.set_complete();
    records
}

fn show(lookup: &Lookup) -> String {
    let value = |value: &Value| match value {
        Value::Address(address) => address.to_string(),
        Value::Service { port, target } => format!("{port} {target}"),
        Value::Name(name) | Value::Text(name) => name.clone(),
        Value::NameServer => "name server".to_owned(),
        Value::Zone => "zone".to_owned(),
    };
    match lookup {
        Lookup::Foreign => "foreign".to_owned(),
        Lookup::Unknown => "unknown".to_owned(),
        Lookup::Missing => "missing".to_owned(),
        Lookup::Alias(name) => format!("alias {name}"),
        Lookup::Found { values, .. } if values.is_empty() => "nothing of this kind".to_owned(),
        Lookup::Found { values, extras } => {
            let mut lines: Vec<String> = values.iter().map(value).collect();
            lines.extend(
                extras
                    .iter()
                    .map(|(name, address)| format!("(+ {name} {address})")),
            );
            lines.join(", ")
        }
    }
}

fn check(records: &Records, questions: &[(&str, RecordKind)], expected: &Expect) {
    let lines = questions.iter().map(|(name, kind)| {
        let name = name.replace("~", ".svc.cluster.local");
        format!("{name} {kind:?}: {}\n", show(&records.lookup(&name, *kind)))
    });
    expected.assert_eq(&lines.collect::<String>());
}

use RecordKind::{A, Aaaa, Cname, Ns, Ptr, Soa, Srv, Txt};

#[test]
fn services_have_their_addresses_and_ports() {
    check(
        &cluster(),
        &[
            ("web.default~", A),
            ("web.default~", Aaaa),
            ("web.default~", Txt),
            ("dual.default~", A),
            ("dual.default~", Aaaa),
            ("_http._tcp.web.default~", Srv),
            ("_http._tcp.web.default~", A),
            ("_http._udp.web.default~", Srv),
            ("_tcp.web.default~", A),
            ("web.default~", Srv),
            ("nobody.default~", A),
            ("web.elsewhere~", A),
            ("away.default~", A),
            ("away.default~", Cname),
            ("kube-dns.kube-system~", A),
        ],
        &expect![[r#"
            web.default.svc.cluster.local A: 10.43.0.7
            web.default.svc.cluster.local Aaaa: nothing of this kind
            web.default.svc.cluster.local Txt: nothing of this kind
            dual.default.svc.cluster.local A: 10.43.0.8
            dual.default.svc.cluster.local Aaaa: fd43::8
            _http._tcp.web.default.svc.cluster.local Srv: 80 web.default.svc.cluster.local, (+ web.default.svc.cluster.local 10.43.0.7)
            _http._tcp.web.default.svc.cluster.local A: nothing of this kind
            _http._udp.web.default.svc.cluster.local Srv: missing
            _tcp.web.default.svc.cluster.local A: nothing of this kind
            web.default.svc.cluster.local Srv: 53 web.default.svc.cluster.local, 80 web.default.svc.cluster.local, (+ web.default.svc.cluster.local 10.43.0.7)
            nobody.default.svc.cluster.local A: missing
            web.elsewhere.svc.cluster.local A: missing
            away.default.svc.cluster.local A: alias example.com
            away.default.svc.cluster.local Cname: alias example.com
            kube-dns.kube-system.svc.cluster.local A: 10.43.0.10
        "#]],
    );
}

#[test]
fn headless_services_have_their_ready_endpoints() {
    check(
        &cluster(),
        &[
            ("db.default~", A),
            ("db.default~", Aaaa),
            ("db-0.db.default~", A),
            ("db-0.db.default~", Aaaa),
            ("db-1.db.default~", A),
            ("db-2.db.default~", A),
            ("10-42-1-4.db.default~", A),
            ("10-42-1-2.db.default~", A),
            ("10-42-1-9.web.default~", A),
            ("_http._tcp.db.default~", Srv),
            ("idle.default~", A),
        ],
        &expect![[r#"
            db.default.svc.cluster.local A: 10.42.1.2, 10.42.1.4, 10.42.2.2
            db.default.svc.cluster.local Aaaa: nothing of this kind
            db-0.db.default.svc.cluster.local A: 10.42.1.2
            db-0.db.default.svc.cluster.local Aaaa: nothing of this kind
            db-1.db.default.svc.cluster.local A: missing
            db-2.db.default.svc.cluster.local A: 10.42.2.2
            10-42-1-4.db.default.svc.cluster.local A: 10.42.1.4
            10-42-1-2.db.default.svc.cluster.local A: missing
            10-42-1-9.web.default.svc.cluster.local A: 10.42.1.9
            _http._tcp.db.default.svc.cluster.local Srv: 8080 10-42-1-4.db.default.svc.cluster.local, 8080 db-0.db.default.svc.cluster.local, 8080 db-2.db.default.svc.cluster.local, (+ 10-42-1-4.db.default.svc.cluster.local 10.42.1.4), (+ db-0.db.default.svc.cluster.local 10.42.1.2), (+ db-2.db.default.svc.cluster.local 10.42.2.2)
            idle.default.svc.cluster.local A: missing
        "#]],
    );
}

#[test]
fn addresses_have_the_names_of_who_has_them() {
    check(
        &cluster(),
        &[
            ("7.0.43.10.in-addr.arpa", Ptr),
            ("2.1.42.10.in-addr.arpa", Ptr),
            ("4.1.42.10.in-addr.arpa", Ptr),
            ("4.1.42.10.in-addr.arpa", A),
            ("10.0.43.10.in-addr.arpa", Ptr),
            ("99.1.42.10.in-addr.arpa", Ptr),
            ("1.1.168.192.in-addr.arpa", Ptr),
        ],
        &expect![[r#"
            7.0.43.10.in-addr.arpa Ptr: web.default.svc.cluster.local
            2.1.42.10.in-addr.arpa Ptr: db-0.db.default.svc.cluster.local
            4.1.42.10.in-addr.arpa Ptr: 10-42-1-4.db.default.svc.cluster.local
            4.1.42.10.in-addr.arpa A: nothing of this kind
            10.0.43.10.in-addr.arpa Ptr: kube-dns.kube-system.svc.cluster.local
            99.1.42.10.in-addr.arpa Ptr: missing
            1.1.168.192.in-addr.arpa Ptr: foreign
        "#]],
    );
}

#[test]
fn the_zone_has_its_own_names() {
    check(
        &cluster(),
        &[
            ("cluster.local", Soa),
            ("cluster.local", Ns),
            ("cluster.local", A),
            ("ns.dns.cluster.local", A),
            ("dns-version.cluster.local", Txt),
            ("svc.cluster.local", A),
            ("default~", A),
            ("elsewhere~", A),
            ("1-2-3-4.default.pod.cluster.local", A),
            ("1-2-3-4.elsewhere.pod.cluster.local", A),
            ("example.com.cluster.local", A),
            ("example.com", A),
            ("mycluster.local", A),
        ],
        &expect![[r#"
            cluster.local Soa: zone
            cluster.local Ns: name server
            cluster.local A: nothing of this kind
            ns.dns.cluster.local A: 10.43.0.10
            dns-version.cluster.local Txt: 1.1.0
            svc.cluster.local A: nothing of this kind
            default.svc.cluster.local A: nothing of this kind
            elsewhere.svc.cluster.local A: missing
            1-2-3-4.default.pod.cluster.local A: 1.2.3.4
            1-2-3-4.elsewhere.pod.cluster.local A: missing
            example.com.cluster.local A: missing
            example.com A: foreign
            mycluster.local A: foreign
        "#]],
    );
}

#[test]
fn what_goes_leaves_nothing() {
    let mut records = cluster();
    for slice in ["web-a", "db-a", "db-b"] {
        records.set_slice("default", slice, None);
        records.set_slice("default", slice, None);
    }
    for service in ["web", "dual", "db", "idle", "away"] {
        records.set_service("default", service, None);
        records.set_service("default", service, None);
    }
    assert!(records.services.is_empty() && records.slices.is_empty() && records.reverse.is_empty());
}

#[test]
fn endpoints_follow_their_slice_and_may_be_learned_first() {
    let mut records = Records::new("cluster.local");
    records.set_complete();
    slice(&mut records, "db-a", "db", json!([{"addresses": ["10.42.1.2"]}]));
    let address = |records: &Records| show(&records.lookup("db.default.svc.cluster.local", A));
    assert_eq!(address(&records), "missing");
    service(&mut records, "db", json!({"clusterIP": "None"}));
    assert_eq!(address(&records), "10.42.1.2");
    slice(&mut records, "db-a", "db", json!([{"addresses": ["10.42.1.3"]}]));
    assert_eq!(address(&records), "10.42.1.3");
    slice(
        &mut records,
        "db-a",
        "other",
        json!([{"addresses": ["10.42.1.3"]}]),
    );
    assert_eq!(address(&records), "missing");
}

#[test]
fn nothing_is_denied_before_everything_is_known() {
    let records = Records::new("cluster.local");
    check(
        &records,
        &[("web.default~", A), ("example.com", A)],
        &expect![[r#"
        web.default.svc.cluster.local A: unknown
        example.com A: foreign
    "#]],
    );
}
