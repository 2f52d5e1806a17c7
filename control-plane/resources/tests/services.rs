//! Addresses and node ports of services on a real replica.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_api::Status;
use flotilla_raft::{Limits, Options, Platform, Replica, Timing};
use flotilla_resources::{DeleteOptions, Part, Resources};
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceSpec};
use serde_json::{Value, json};

struct Store {
    resources: Resources,
    _folder: tempfile::TempDir,
}

/// A store with the namespaces `default` and `kube-system`, whose services have 14 addresses.
async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        id: 1,
        name: "one".into(),
        address: "127.0.0.1:1".into(),
        data_dir: folder.path().to_owned(),
        platform: Platform::real(Arc::new(|_| {
            tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        })),
        timing: Timing::default(),
        limits: Limits::default(),
    };
    let replica = Replica::open(options).await.unwrap();
    replica.bootstrap().await.unwrap();
    replica.leadership().wait_for(|now| now.is_self).await.unwrap();
    let options = flotilla_resources::Options {
        service_cidr: "10.43.0.0/28".parse().unwrap(),
        ..flotilla_resources::Options::default()
    };
    let (resources, _) = Resources::new(replica, options);
    for name in ["default", "kube-system"] {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        resources.create_typed(namespace).await.unwrap();
    }
    Store {
        resources,
        _folder: folder,
    }
}

fn service(namespace: &str, name: &str, fields: &Value) -> Service {
    let mut spec = json!({"ports": [{"port": 80}]});
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let metadata = json!({"name": name, "namespace": namespace});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

impl Store {
    async fn create(&self, name: &str, fields: &Value) -> Result<ServiceSpec, Status> {
        let created = self
            .resources
            .create_typed(service("default", name, fields))
            .await?;
        Ok(created.spec.unwrap())
    }

    async fn delete(&self, name: &str) {
        let options = DeleteOptions::default();
        self.resources
            .delete_typed::<Service>("default", name, &options)
            .await
            .unwrap();
    }

    async fn change(&self, name: &str, change: impl Fn(&mut ServiceSpec)) -> Result<ServiceSpec, Status> {
        let changed = self
            .resources
            .modify::<Service>("default", name, Part::Whole, |service| {
                change(service.spec.as_mut().unwrap());
                true
            });
        Ok(changed.await?.unwrap().spec.unwrap())
    }
}

fn said(result: Result<ServiceSpec, Status>) -> String {
    result.map_or_else(
        |status| status.message,
        |spec| spec.cluster_ip.unwrap_or_default(),
    )
}

fn node_ports(spec: &ServiceSpec) -> Vec<i32> {
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    ports.chain(spec.health_check_node_port).collect()
}

#[tokio::test]
async fn every_service_has_an_address_of_its_own_until_there_is_none_left() {
    let store = store().await;
    let all = (0..12).map(|number| {
        let store = &store;
        async move { said(store.create(&format!("s{number}"), &json!({})).await) }
    });
    let addresses: BTreeSet<String> = futures::future::join_all(all).await.into_iter().collect();
    assert_eq!(addresses.len(), 12, "created at once: {addresses:?}");
    assert!(
        !addresses.contains("10.43.0.1") && !addresses.contains("10.43.0.10"),
        "kept: {addresses:?}"
    );
    let full = said(store.create("one-more", &json!({})).await);
    assert!(full.contains("10.43.0.0/28 is full"), "{full}");
    store.delete("s3").await;
    let again = said(store.create("one-more", &json!({})).await);
    assert!(
        addresses.contains(&again),
        "what was given back is given out: {again}"
    );
    assert_eq!(
        said(store.create("headless", &json!({"clusterIP": "None"})).await),
        "None"
    );
}

#[tokio::test]
async fn a_chosen_address_must_be_free_and_in_range() {
    let store = store().await;
    let asks = |address: &str| json!({"clusterIP": address});
    assert_eq!(said(store.create("a", &asks("10.43.0.5")).await), "10.43.0.5");
    let taken = "Service \"b\" is invalid: spec.clusterIPs: Invalid value: \"10.43.0.5\": failed to allocate IP \
                 10.43.0.5: provided IP is already allocated";
    assert_eq!(said(store.create("b", &asks("10.43.0.5")).await), taken);
    for (address, why) in [
        ("10.44.0.5", "The range of valid IPs is 10.43.0.0/28"),
        ("10.43.0.10", "already allocated"),
        ("10.43.0.1", "already allocated"),
    ] {
        let refused = said(store.create("b", &asks(address)).await);
        assert!(refused.ends_with(why), "{refused}");
    }
    let dns = service("kube-system", "kube-dns", &asks("10.43.0.10"));
    store.resources.create_typed(dns).await.unwrap();
}

#[tokio::test]
async fn node_ports_come_and_go_with_the_type() {
    let store = store().await;
    let spec = store.create("a", &json!({"type": "NodePort"})).await.unwrap();
    let port = node_ports(&spec)[0];
    assert!((30000..=32767).contains(&port));
    let same = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let refused = said(store.create("b", &same).await);
    assert!(
        refused.ends_with("provided port is already allocated"),
        "{refused}"
    );
    let low = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    let refused = said(store.create("b", &low).await);
    assert!(
        refused.ends_with("The range of valid ports is 30000-32767"),
        "{refused}"
    );
    let plain = store
        .change("a", |spec| spec.type_ = Some("ClusterIP".into()))
        .await
        .unwrap();
    assert_eq!((node_ports(&plain).len(), plain.cluster_ip), (0, spec.cluster_ip));
    assert_eq!(
        node_ports(&store.create("b", &same).await.unwrap()),
        [port],
        "it was given back"
    );
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let both: BTreeSet<i32> = node_ports(&store.create("c", &local).await.unwrap())
        .into_iter()
        .collect();
    assert_eq!(both.len(), 2, "the service's and that of its health check");
}

#[tokio::test]
async fn one_port_serves_both_protocols_of_a_service() {
    let store = store().await;
    let ports = json!([
        {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30053},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053},
    ]);
    let spec = store
        .create("dns", &json!({"type": "NodePort", "ports": ports}))
        .await
        .unwrap();
    assert_eq!(node_ports(&spec), [30053, 30053]);
}

#[tokio::test]
async fn another_name_has_no_address_and_gives_the_old_one_back() {
    let store = store().await;
    let before = said(store.create("a", &json!({})).await);
    let named = store.change("a", |spec| {
        spec.type_ = Some("ExternalName".into());
        spec.external_name = Some("example.com".into());
    });
    assert_eq!(said(named.await), "");
    assert_eq!(
        said(store.create("b", &json!({"clusterIP": before})).await),
        before
    );
    let back = store
        .change("a", |spec| spec.type_ = Some("ClusterIP".into()))
        .await
        .unwrap();
    assert!(
        back.cluster_ip
            .is_some_and(|address| !address.is_empty() && address != before)
    );
}
