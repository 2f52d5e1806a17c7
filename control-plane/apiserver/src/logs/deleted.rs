//! `pods/log?deleted=true`: the log of a pod that is no more, from whichever node still keeps it.
//!
//! An addition to Kubernetes' API. Nodes keep the logs of a pod's last runs for an hour after its end; since the
//! object is gone, every node is asked.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_tunnel::Ends;
use flotilla_tunnel::request::{GONE_LOG, GONE_PODS, GoneLogRequest, GonePod, GonePodsRequest};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::Response;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{Lines, LogOptions, options, text};
use crate::body::Body;
use crate::query::Query;
use crate::server::ApiServer;

/// A node that does not answer in this time is left out.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// As many other pods are named when there is none of the wanted name.
const NAMED_MAX: usize = 10;

/// The answer to a request for the log of a deleted pod.
pub(crate) async fn respond(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let kept = everywhere(server, namespace).await?;
    let (node, pod) = newest(&kept, name).ok_or_else(|| none(&kept, namespace, name))?;
    let wanted = options(&as_pod(pod), query, Timestamp::now())?;
    if wanted.follow {
        return Err(Status::bad_request(
            "the log of a deleted pod cannot be followed: it has ended",
        ));
    }
    let request = serde_json::to_vec(&request(pod, wanted)).map_err(Status::internal)?;
    let ends = server.streams().open(node, GONE_LOG, request.into()).await?;
    Ok(text(pieces(ends)))
}

/// What all nodes keep of a namespace, by node.
async fn everywhere(server: &ApiServer, namespace: &str) -> Result<Vec<(String, GonePod)>, Status> {
    let request = GonePodsRequest {
        namespace: namespace.to_owned(),
    };
    let request = Bytes::from(serde_json::to_vec(&request).map_err(Status::internal)?);
    let nodes = server.streams().nodes();
    let mut answers: FuturesUnordered<_> = nodes
        .into_iter()
        .map(|node| {
            let request = request.clone();
            async move {
                let answer = tokio::time::timeout(ANSWER_LIMIT, list(server, &node, request)).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::timeout("the node does not answer")));
                (node, answer)
            }
        })
        .collect();
    let mut kept = Vec::new();
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(pods) => kept.extend(pods.into_iter().map(|pod| (node.clone(), pod))),
            // What the others keep may be all that is wanted.
            Err(error) => tracing::info!(
                node,
                error = report(&error),
                "a node does not tell what logs it keeps"
            ),
        }
    }
    Ok(kept)
}

async fn list(server: &ApiServer, node: &str, request: Bytes) -> Result<Vec<GonePod>, Status> {
    let ends = server.streams().open(node, GONE_PODS, request).await?;
    let mut pieces = pieces(ends);
    let mut json = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        json.extend_from_slice(&piece?);
    }
    serde_json::from_slice(&json).map_err(Status::internal)
}

/// What a node sends on the stream's one channel.
fn pieces(ends: Ends) -> Lines {
    let pieces = futures::stream::unfold(Some(ends), |ends| async move {
        let mut ends = ends?;
        match ends.incoming.recv().await {
            Some(frame) if frame.close => None,
            Some(frame) => Some((Ok(frame.data), Some(ends))),
            None => Some((Err(Status::unavailable("the node went away in the middle")), None)),
        }
    });
    pieces.boxed()
}

/// Of all pods with this name the one that went last.
fn newest<'a>(kept: &'a [(String, GonePod)], name: &str) -> Option<(&'a str, &'a GonePod)> {
    let named = kept.iter().filter(|(_, pod)| pod.pod == name);
    let newest = named.max_by_key(|(_, pod)| pod.gone_at_unix_millis)?;
    Some((&newest.0, &newest.1))
}

fn none(kept: &[(String, GonePod)], namespace: &str, name: &str) -> Status {
    let mut others: Vec<&GonePod> = kept.iter().map(|(_, pod)| pod).collect();
    others.sort_by_key(|pod| std::cmp::Reverse(pod.gone_at_unix_millis));
    let names: Vec<&str> = others
        .iter()
        .take(NAMED_MAX)
        .map(|pod| pod.pod.as_str())
        .collect();
    let others = match names.is_empty() {
        true => String::new(),
        false => format!("; there are logs of {}", names.join(", ")),
    };
    Status::new(
        Reason::NotFound,
        format!(
            "no logs of a deleted pod \"{name}\" are kept in the namespace \"{namespace}\": nodes keep them for an \
             hour{others}"
        ),
    )
}

/// Enough of the pod to choose one of its containers.
fn as_pod(gone: &GonePod) -> Pod {
    let containers = gone.containers.iter().map(|name| Container {
        name: name.clone(),
        ..Container::default()
    });
    let mut pod = Pod {
        spec: Some(PodSpec {
            containers: containers.collect(),
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    pod.metadata.name = Some(gone.pod.clone());
    pod
}

fn request(pod: &GonePod, wanted: LogOptions) -> GoneLogRequest {
    GoneLogRequest {
        uid: pod.uid.clone(),
        container: wanted.container,
        previous: wanted.previous,
        timestamps: wanted.timestamps,
        tail_lines: wanted.tail_lines,
        limit_bytes: wanted.limit_bytes,
        since_unix_nanos: wanted
            .since
            .and_then(|since| i64::try_from(since.as_nanosecond()).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(pod: &str, uid: &str, at: i64) -> (String, GonePod) {
        let gone = GonePod {
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            gone_at_unix_millis: at,
            containers: vec!["a".to_owned()],
        };
        (format!("node-of-{uid}"), gone)
    }

    #[test]
    fn the_pod_that_went_last_is_meant() {
        let kept = [gone("web", "1", 10), gone("web", "2", 30), gone("api", "3", 40)];
        assert_eq!(newest(&kept, "web").unwrap().0, "node-of-2");
        assert_eq!(newest(&kept, "db"), None);
    }

    #[test]
    fn what_else_is_kept_is_named() {
        let kept = [gone("web", "1", 10), gone("api", "3", 40)];
        assert_eq!(
            none(&kept, "default", "db").message,
            "no logs of a deleted pod \"db\" are kept in the namespace \"default\": nodes keep them for an hour; \
             there are logs of api, web"
        );
    }
}
