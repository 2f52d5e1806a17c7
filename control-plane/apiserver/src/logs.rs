//! `pods/log`: which lines of which container, read by whoever reaches the pod's node.

pub(crate) mod deleted;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::Status;
use flotilla_report::report;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::body::Body;
use crate::query::Query;

/// Which part of a container's log is wanted, and how.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    /// The container's name; never empty.
    pub container: String,
    /// Whether lines that come later are sent as well.
    pub follow: bool,
    /// Whether the log of the run before the current one is meant.
    pub previous: bool,
    /// Whether each line starts with its time.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines from this moment on.
    pub since: Option<Timestamp>,
}

/// So soon a node refuses to follow a log that it does not have. It decides at once; the rest is the way there.
const FOLLOWED_BEGINS_WITHIN: Duration = Duration::from_millis(500);

type Lines = BoxStream<'static, Result<Bytes, Status>>;

/// Opens logs of pods, wherever those run.
#[async_trait]
pub trait PodLogs: Send + Sync {
    /// The log's bytes. The stream ends with the log, or with the container when it is followed; dropping it stops
    /// whatever feeds it.
    async fn open(
        &self,
        pod: &Pod,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status>;
}

/// The answer to a request for a log.
pub(crate) async fn respond(logs: &dyn PodLogs, pod: &Pod, query: &Query) -> Result<Response<Body>, Status> {
    let options = options(pod, query, Timestamp::now())?;
    let lines = if is_assigned(pod) {
        let follow = options.follow;
        begun(logs.open(pod, options).await?, follow).await?
    } else {
        // As in Kubernetes: a pod without a node has an empty log.
        futures::stream::empty().boxed()
    };
    Ok(text(lines))
}

/// An answer whose body is made while it is read.
fn text(lines: Lines) -> Response<Body> {
    // The head is sent by now: a failure in the middle can only end the body.
    let lines = lines.take_while(|line| {
        if let Err(status) = line {
            tracing::debug!(error = report(&status), "a log stream ended early");
        }
        std::future::ready(line.is_ok())
    });
    let mut response = Response::new(Body::stream(
        lines.filter_map(|line| std::future::ready(line.ok())),
    ));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn is_assigned(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
}

/// Waits for the first lines, so that a log that cannot be read is told with the head of the answer. A followed log
/// may have nothing to say for now, so it is not waited for as long.
async fn begun(mut lines: Lines, follow: bool) -> Result<Lines, Status> {
    let first = match follow {
        true => tokio::time::timeout(FOLLOWED_BEGINS_WITHIN, lines.next()).await,
        false => Ok(lines.next().await),
    };
    match first {
        Err(_silent) => Ok(lines),
        Ok(None) => Ok(futures::stream::empty().boxed()),
        Ok(Some(first)) => {
            let first = futures::stream::iter([Ok(first?)]);
            Ok(first.chain(lines).boxed())
        }
    }
}

fn options(pod: &Pod, query: &Query, now: Timestamp) -> Result<LogOptions, Status> {
    let count = |name: &str| match query.number(name)? {
        Some(number) if number < 0 => Err(Status::bad_request(format!(
            "{name}: Invalid value: {number}: must be greater than or equal to 0"
        ))),
        number => Ok(number.map(i64::unsigned_abs)),
    };
    Ok(LogOptions {
        container: container(pod, query.get("container"))?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: count("tailLines")?,
        limit_bytes: count("limitBytes")?,
        since: since(query, now)?,
    })
}

fn since(query: &Query, now: Timestamp) -> Result<Option<Timestamp>, Status> {
    if let Some(seconds) = query.number("sinceSeconds")? {
        let length = jiff::SignedDuration::from_secs(seconds);
        return now
            .checked_sub(length)
            .map(Some)
            .map_err(|error| Status::bad_request(format!("sinceSeconds: {error}")));
    }
    let Some(time) = query.get("sinceTime") else {
        return Ok(None);
    };
    time.parse()
        .map(Some)
        .map_err(|error| Status::bad_request(format!("sinceTime: {error}")))
}

/// The container that is meant: the named one, or the only one.
pub(crate) fn container(pod: &Pod, wanted: Option<&str>) -> Result<String, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let names = |containers: &[k8s_openapi::api::core::v1::Container]| -> Vec<String> {
        containers
            .iter()
            .map(|container| container.name.clone())
            .collect()
    };
    let (main, init) = (
        names(&spec.containers),
        names(&spec.init_containers.unwrap_or_default()),
    );
    let ephemeral: Vec<String> = spec
        .ephemeral_containers
        .into_iter()
        .flatten()
        .map(|container| container.name)
        .collect();
    match wanted {
        Some(wanted)
            if main
                .iter()
                .chain(&init)
                .chain(&ephemeral)
                .any(|name| name == wanted) =>
        {
            Ok(wanted.to_owned())
        }
        Some(wanted) => Err(Status::bad_request(format!(
            "container {wanted} is not valid for pod {name}"
        ))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]{}",
            main.join(" "),
            match init.is_empty() {
                true => String::new(),
                false => format!(" or one of the init containers: [{}]", init.join(" ")),
            }
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str]) -> Pod {
        let containers: Vec<_> = containers
            .iter()
            .map(|name| serde_json::json!({"name": name}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"}, "spec": {"containers": containers, "initContainers": [{"name": "init"}]},
        }))
        .unwrap()
    }

    fn read(containers: &[&str], query: &str) -> Result<LogOptions, String> {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        options(&pod(containers), &Query::parse(query), now).map_err(|status| status.message)
    }

    #[test]
    fn the_only_container_needs_no_name() {
        assert_eq!(read(&["a"], "").unwrap().container, "a");
        assert_eq!(read(&["a", "b"], "container=init").unwrap().container, "init");
        assert_eq!(
            read(&["a", "b"], "").unwrap_err(),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [init]"
        );
        assert_eq!(
            read(&["a"], "container=x").unwrap_err(),
            "container x is not valid for pod web"
        );
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_is_refused_before_the_head() {
        let refused = || futures::stream::iter([Err(Status::bad_request("waiting to start"))]).boxed();
        assert!(begun(refused(), false).await.is_err());
        assert!(begun(refused(), true).await.is_err());
        let cut = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(Status::internal("cut"))]);
        assert_eq!(begun(cut.boxed(), false).await.unwrap().count().await, 2);
    }

    #[tokio::test]
    async fn a_silent_log_is_followed() {
        assert!(begun(futures::stream::pending().boxed(), true).await.is_ok());
    }

    #[test]
    fn the_part_of_the_log_is_read_from_the_query() {
        let options = read(&["a"], "follow=true&tailLines=5&sinceSeconds=60&timestamps=1").unwrap();
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!(options.tail_lines, Some(5));
        assert_eq!(options.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert!(read(&["a"], "tailLines=-1").is_err());
        assert!(read(&["a"], "sinceTime=yesterday").is_err());
    }
}
