//! Requests and where they go.

use serde_json::{Value, json};

use super::*;

fn declared(ingresses: &[(&str, u8, Value)]) -> Vec<(Place, Declared)> {
    let of = |(name, day, spec): &(&str, u8, Value)| {
        let (namespace, name) = name.split_once('/').unwrap();
        let metadata = json!({
            "namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z"),
        });
        let ingress = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        ((namespace.into(), name.into()), Declared::of(&ingress))
    };
    ingresses.iter().map(of).collect()
}

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(kind, path, service): &(&str, &str, &str)| {
        let path = (!path.is_empty()).then_some(path);
        json!({"pathType": kind, "path": path, "backend": backend(service)})
    };
    let paths: Vec<Value> = paths.iter().map(path).collect();
    let http = (!paths.is_empty()).then(|| json!({"paths": paths}));
    json!({"host": host, "http": http})
}

/// Which ingress and service answer each URL.
fn answers(ingresses: &[(&str, u8, Value)], urls: &[&str]) -> Vec<String> {
    let all = declared(ingresses);
    let all = by_age(all.iter().map(|(place, declared)| (place, declared)));
    let table = Table::new(all.into_iter(), |service| {
        format!("{}/{}:{}", service.namespace, service.name, service.port)
    });
    let answer = |url: &&str| {
        let (host, path) = url.split_once('/').unwrap();
        match table.find(host, &format!("/{path}")) {
            None => "404".to_owned(),
            Some(Route { ingress, goal, .. }) => match goal {
                Goal::Service(service) => format!("{ingress} → {service}"),
                Goal::Resource(resource) => format!("{ingress} → {resource}"),
            },
        }
    };
    urls.iter().map(answer).collect()
}

#[test]
fn the_most_specific_host_decides_and_then_the_longest_path() {
    let spec = json!({"rules": [
        rule("a.example.com", &[("Prefix", "/", "a"), ("Exact", "/one", "one"), ("Prefix", "/one", "below")]),
        rule("*.example.com", &[("Prefix", "/", "wild")]),
        rule("", &[("ImplementationSpecific", "", "any"), ("Prefix", "/one", "any-one")]),
    ]});
    let urls = [
        "a.example.com/",
        "a.example.com/one",
        "a.example.com/one/two",
        "b.example.com/one",
        "a.b.example.com/one",
        "/two",
    ];
    assert_eq!(
        answers(&[("shop/web", 1, spec)], &urls),
        [
            "shop/web → shop/a:80",
            "shop/web → shop/one:80",
            "shop/web → shop/below:80",
            "shop/web → shop/wild:80",
            "shop/web → shop/any-one:80",
            "shop/web → shop/any:80",
        ]
    );
}

#[test]
fn of_two_ingresses_that_want_the_same_the_older_one_gets_it() {
    let spec = |service: &str, more: &str| json!({"rules": [rule("a.test", &[("Prefix", "/", service), ("Prefix", more, service)])]});
    let (young, old) = (
        ("a/young", 2, spec("young", "/young")),
        ("z/old", 1, spec("old", "/old")),
    );
    let urls = ["a.test/", "a.test/young", "a.test/old"];
    assert_eq!(
        answers(&[young, old], &urls),
        ["z/old → z/old:80", "a/young → a/young:80", "z/old → z/old:80"]
    );
    let same_day = [("b/b", 1, spec("b", "/b")), ("a/a", 1, spec("a", "/a"))];
    assert_eq!(answers(&same_day, &["a.test/"]), ["a/a → a/a:80"]);
}

#[test]
fn what_no_rule_names_goes_to_a_default_backend() {
    let only_default = json!({"defaultBackend": backend("everything")});
    let with_rules = json!({
        "defaultBackend": backend("rest"),
        "rules": [rule("a.test", &[("Prefix", "/a", "a")]), rule("all.test", &[])],
    });
    let urls = ["a.test/a", "a.test/b", "all.test/", "b.test/"];
    let rules = ("a/rules", 1, with_rules);
    assert_eq!(
        answers(&[rules.clone(), ("a/default", 2, only_default)], &urls),
        [
            "a/rules → a/a:80",
            "a/rules → a/rest:80",
            "a/rules → a/rest:80",
            "a/default → a/everything:80",
        ]
    );
    assert_eq!(answers(&[rules], &["b.test/"]), ["a/rules → a/rest:80"]);
    let plain = json!({"rules": [rule("a.test", &[("Prefix", "/a", "a")])]});
    assert_eq!(
        answers(&[("a/plain", 1, plain)], &["a.test/b", "b.test/a"]),
        ["404", "404"]
    );
}

#[test]
fn what_is_no_service_is_known_as_such() {
    let resource = json!({"apiGroup": "k8s.example.com", "kind": "Bucket", "name": "pictures"});
    let spec = json!({"defaultBackend": {"resource": resource}});
    assert_eq!(answers(&[("a/a", 1, spec)], &["x/"]), ["a/a → Bucket pictures"]);
}

#[test]
fn ports_have_numbers_or_names() {
    let named = json!({"service": {"name": "web", "port": {"name": "http"}}});
    let spec = json!({"defaultBackend": named});
    assert_eq!(answers(&[("a/a", 1, spec)], &["x/"]), ["a/a → a/web:http"]);
}
