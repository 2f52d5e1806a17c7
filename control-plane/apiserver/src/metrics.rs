//! `metrics.k8s.io` and the summary of a node, from what the nodes have reported to this server.
//!
//! Nothing of it is stored, and nobody is asked: the newest report of each node is at hand. Objects that no longer
//! exist are left out, and labels are those that the objects have now.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::metrics::{NodeMetrics, PodMetrics};
use flotilla_api::static_pods::mirror_of;
use flotilla_api::summary::Summary;
use flotilla_api::{Kind, Object, Status, registry};
use flotilla_report::report;
use flotilla_store::{Draft, Key, ResourceName, Stored};
use http::{Method, Response, StatusCode};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::body::Body;
use crate::call::Call;
use crate::list::{self, ListMeta};
use crate::path::ResourcePath;
use crate::render::{Renderer, json_response, object_response};
use crate::selection::Selection;
use crate::server::ApiServer;

/// The newest reports of the nodes, as JSON in the shape of [`Summary`].
pub trait NodeStats: Send + Sync {
    /// The report of one node; nothing before its first, or when it has been silent for long.
    fn newest(&self, node: &str) -> Option<Bytes>;
    /// The reports of all nodes.
    fn all(&self) -> Vec<Bytes>;
}

/// Answers a request for a kind of `metrics.k8s.io`.
pub(crate) fn respond(
    server: &ApiServer,
    call: &Call,
    kind: &'static Kind,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    if call.method != Method::GET || path.subresource.is_some() {
        return Err(Status::method_not_allowed());
    }
    let renderer = Renderer::of(kind, call)?;
    let objects = match kind.namespaced {
        true => pods(server, path.namespace.as_deref()),
        false => nodes(server),
    };
    let mut stored: Vec<Arc<Stored>> = objects
        .iter()
        .map(|object| Arc::new(imagined(kind, &**object)))
        .collect();
    if let Some(name) = &path.name {
        let found = stored.iter().find(|object| *object.key.name == **name);
        let found = found.ok_or_else(|| Status::not_found(kind, name))?;
        return object_response(&renderer, StatusCode::OK, found, &[]);
    }
    let selection = Selection::parse(kind, &call.query)?;
    stored.retain(|object| selection.picks(object));
    Ok(list::body(renderer, &ListMeta::default(), stored))
}

/// Answers what is asked of a node through its proxy: the summary, and nothing else.
pub(crate) fn of_node(
    server: &ApiServer,
    call: &Call,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    if call.method != Method::GET {
        return Err(Status::method_not_allowed());
    }
    let target = path.name.as_deref().unwrap_or_default();
    // Kubelet's port may be named as well.
    let name = target.split(':').next().unwrap_or_default();
    if path.rest.as_deref().map(|rest| rest.trim_end_matches('/')) != Some("stats/summary") {
        return Err(Status::no_such_path());
    }
    let (nodes, _) = server.resources().list_typed::<Node>(None);
    if !nodes
        .iter()
        .any(|node| node.metadata.name.as_deref() == Some(name))
    {
        return Err(Status::not_found(registry().of::<Node>(), name));
    }
    let summary = server.stats().newest(name);
    let summary = summary.ok_or_else(|| {
        Status::unavailable(format!(
            "node {name:?} has reported no statistics to this server yet; it does so every 10 seconds"
        ))
    })?;
    Ok(json_response(StatusCode::OK, summary))
}

fn summaries(server: &ApiServer) -> Vec<Summary> {
    let read = |json: Bytes| {
        serde_json::from_slice(&json)
            .inspect_err(|error| tracing::warn!(error = report(error), "a node's statistics cannot be read"))
            .ok()
    };
    server.stats().all().into_iter().filter_map(read).collect()
}

fn nodes(server: &ApiServer) -> Vec<Box<dyn Object>> {
    let (nodes, _) = server.resources().list_typed::<Node>(None);
    let summaries = summaries(server);
    let metrics = |summary: &Summary| {
        let name = Some(summary.node.node_name.as_str());
        let node = nodes.iter().find(|node| node.metadata.name.as_deref() == name)?;
        let metrics = NodeMetrics::of(summary, node.metadata.labels.clone())?;
        Some(Box::new(metrics) as Box<dyn Object>)
    };
    summaries.iter().filter_map(metrics).collect()
}

fn pods(server: &ApiServer, namespace: Option<&str>) -> Vec<Box<dyn Object>> {
    let (pods, _) = server.resources().list_typed::<Pod>(namespace);
    let known: std::collections::BTreeMap<&str, &Arc<Pod>> = pods
        .iter()
        // A node measures a static pod under the uid that it has there.
        .filter_map(|pod| Some((mirror_of(pod).or(pod.metadata.uid.as_deref())?, pod)))
        .collect();
    let summaries = summaries(server);
    let measured = summaries.iter().flat_map(|summary| &summary.pods);
    let mut metrics: Vec<PodMetrics> = measured
        .filter_map(|stats| {
            let pod = known.get(stats.pod_ref.uid.as_str())?;
            PodMetrics::of(stats, pod.metadata.labels.clone())
        })
        .collect();
    metrics.sort_by(|one, other| {
        let key = |metrics: &PodMetrics| (metrics.metadata.namespace.clone(), metrics.metadata.name.clone());
        key(one).cmp(&key(other))
    });
    metrics
        .into_iter()
        .map(|metrics| Box::new(metrics) as Box<dyn Object>)
        .collect()
}

/// The object in the form in which stored ones are rendered.
pub(crate) fn imagined(kind: &Kind, object: &dyn Object) -> Stored {
    let meta = object.meta();
    let resource = ResourceName::new(kind.group, kind.resource);
    let name = meta.name.as_deref().unwrap_or_default();
    let key = Key::new(resource, meta.namespace.as_deref().unwrap_or_default(), name);
    let draft = Draft {
        json: object.encode().into(),
        revision_at: 0,
    };
    Stored::imagined(key, &draft)
}
