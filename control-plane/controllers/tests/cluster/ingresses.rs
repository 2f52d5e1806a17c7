//! The default class of ingresses, their addresses, and what is told of broken ones.

use flotilla_api::ingresses;
use flotilla_resources::{DeleteOptions, Part};
use k8s_openapi::api::core::v1::{Event, Node, NodeAddress, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::json;

use crate::harness::{Cluster, eventually};

fn class(cluster: &Cluster) -> Option<IngressClass> {
    let (classes, _) = cluster.resources.list_typed::<IngressClass>(None);
    classes.first().map(|class| (**class).clone())
}

fn ingress(cluster: &Cluster) -> Ingress {
    let (found, _) = cluster.resources.list_typed::<Ingress>(Some("default"));
    (*found[0]).clone()
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    let balancer = ingress(cluster).status.and_then(|status| status.load_balancer);
    let points = balancer.and_then(|balancer| balancer.ingress);
    points
        .into_iter()
        .flatten()
        .filter_map(|point| point.ip)
        .collect()
}

/// How often an event with this reason happened.
fn told(cluster: &Cluster, reason: &str) -> i32 {
    let (events, _) = cluster.resources.list_typed::<Event>(Some("default"));
    let with_reason = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some(reason));
    with_reason.map(|event| event.count.unwrap_or(1)).sum()
}

async fn create(cluster: &Cluster) {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "metadata": {"name": "front", "namespace": "default"},
        "spec": {"defaultBackend": backend, "tls": [{"secretName": "missing"}]},
    });
    let ingress: Ingress = serde_json::from_value(ingress).unwrap();
    cluster.resources.create_typed(ingress).await.unwrap();
}

/// The node's proxy listens at these ports.
async fn listens(cluster: &Cluster, node: &str, address: &str, ports: &str) {
    let (node, address, ports) = (node.to_owned(), address.to_owned(), ports.to_owned());
    let resources = &cluster.resources;
    let addressed = resources.modify::<Node>("", &node, Part::Status, |node| {
        let status = node.status.get_or_insert_default();
        status.addresses = Some(vec![NodeAddress {
            type_: "InternalIP".to_owned(),
            address: address.clone(),
        }]);
        true
    });
    addressed.await.unwrap();
    let annotated = resources.modify::<Node>("", &node, Part::Whole, |node| {
        let annotations = node.metadata.annotations.get_or_insert_default();
        annotations.insert(ingresses::PORTS_ANNOTATION.to_owned(), ports.clone());
        true
    });
    annotated.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_class_is_made_and_whoever_changes_it_is_not_contradicted() {
    let cluster = Cluster::start(0).await;
    eventually("there is a default class", || {
        class(&cluster).is_some_and(|class| ingresses::is_default(&class) && ingresses::is_ours(&class))
    })
    .await;
    let unmark = cluster
        .resources
        .modify::<IngressClass>("", ingresses::CLASS, Part::Whole, |class| {
            class.metadata.annotations = None;
            true
        });
    unmark.await.unwrap();
    cluster.depose().await;
    cluster.elect();
    create(&cluster).await;
    assert_eq!(
        ingresses::class_name(&ingress(&cluster)),
        None,
        "there is no default"
    );
    assert!(!ingresses::is_default(&class(&cluster).unwrap()));
    let options = DeleteOptions::default();
    cluster
        .resources
        .delete_typed::<IngressClass>("", ingresses::CLASS, &options)
        .await
        .unwrap();
    cluster.depose().await;
    cluster.elect();
    eventually("the next leader makes it again", || class(&cluster).is_some()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_has_the_addresses_of_nodes_that_serve_it_and_is_told_once_what_is_missing() {
    let cluster = Cluster::start(2).await;
    eventually("there is a default class", || class(&cluster).is_some()).await;
    create(&cluster).await;
    assert_eq!(ingresses::class_name(&ingress(&cluster)), Some(ingresses::CLASS));
    listens(&cluster, "node-1", "10.0.0.1", "80,443").await;
    listens(&cluster, "node-2", "10.0.0.2", "").await;
    eventually("the one node that listens", || {
        addresses(&cluster) == ["10.0.0.1"]
    })
    .await;
    listens(&cluster, "node-2", "10.0.0.2", "80").await;
    eventually("both nodes", || addresses(&cluster) == ["10.0.0.1", "10.0.0.2"]).await;
    eventually("both that are missing are told", || {
        told(&cluster, "ServiceNotFound") == 1 && told(&cluster, "SecretNotFound") == 1
    })
    .await;
    // The service comes, with another port: that is news, the secret is not.
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 81}]},
    });
    let service: Service = serde_json::from_value(service).unwrap();
    cluster.resources.create_typed(service).await.unwrap();
    eventually("the port is missing", || {
        told(&cluster, "ServicePortNotFound") == 1
    })
    .await;
    assert_eq!(told(&cluster, "SecretNotFound"), 1);
    cluster.silence("node-1");
    eventually("a silent node serves nothing", || {
        addresses(&cluster) == ["10.0.0.2"]
    })
    .await;
    cluster.stop().await;
}
