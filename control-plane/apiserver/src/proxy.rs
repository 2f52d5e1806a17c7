//! `pods/proxy`: plain HTTP to a pod's address, through this server.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use flotilla_api::{Reason, Status};
use futures::StreamExt;
use http::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::BodyStream;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;

use crate::body::Body;
use crate::call::{Call, RequestBody};
use crate::path::ResourcePath;
use crate::server::ApiServer;
use crate::subresources;
use crate::write::Place;
use flotilla_api::registry;

/// A pod that does not accept a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers that belong to one connection, not to the request; credentials are for this server only.
const DROPPED: [HeaderName; 8] = [
    CONNECTION,
    HOST,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    http::header::AUTHORIZATION,
];

type HttpClient = Client<HttpConnector, RequestBody>;

static CLIENT: LazyLock<HttpClient> = LazyLock::new(|| {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // A pod's address may soon be another pod's: connections are not kept for long.
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(2))
        .build(connector)
});

/// Forwards a request to a pod.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    path: &ResourcePath,
) -> Result<Response<Body>, Status> {
    let target = path.name.as_deref().unwrap_or_default();
    let (name, port) = match target.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (target, None),
    };
    let place = Place {
        kind: registry().of::<Pod>(),
        namespace: path.namespace(),
        name,
    };
    let pod = subresources::pod(server, place).await?;
    let uri = uri(&pod, port, path.rest.as_deref(), call.raw_query.as_deref())?;
    let mut request = Request::builder().method(call.method.clone()).uri(uri);
    if let Some(headers) = request.headers_mut() {
        *headers = forwarded(&call.headers);
    }
    let body = call.take_body();
    let request = request.body(body).map_err(Status::internal)?;
    let response = CLIENT
        .request(request)
        .await
        .map_err(|error| unreachable(name, &error))?;
    let (mut parts, body) = response.into_parts();
    parts.headers = forwarded(&parts.headers);
    let pieces = BodyStream::new(body)
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(|frame| std::future::ready(frame.ok().and_then(|frame| frame.into_data().ok())));
    Ok(Response::from_parts(parts, Body::stream(pieces)))
}

fn unreachable(name: &str, error: &dyn std::error::Error) -> Status {
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    Status::new(
        Reason::ServiceUnavailable,
        format!("error trying to reach pod {name}: {error}{cause}"),
    )
}

fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in DROPPED {
        headers.remove(name);
    }
    headers
}

/// Where a request to the pod goes.
fn uri(pod: &Pod, port: Option<&str>, rest: Option<&str>, query: Option<&str>) -> Result<Uri, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let address = address.filter(|address| !address.is_empty());
    let address = address
        .ok_or_else(|| Status::unavailable(format!("address not allowed: pod {name} has none yet")))?;
    let host = match address.parse() {
        Ok(address) if !is_a_pods(address) => return Err(Status::bad_request("address not allowed")),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => return Err(Status::bad_request("address not allowed")),
    };
    let port = port_number(pod, port)?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("http://{host}:{port}/{}{query}", rest.unwrap_or_default())
        .parse()
        .map_err(|error| Status::bad_request(format!("the path cannot be forwarded: {error}")))
}

/// Whether a pod can have this address. A node says itself which addresses its pods have: it must not lead a request to
/// this server's own services or to a cloud's metadata.
fn is_a_pods(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !link_local && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// The named or numbered port; without one the first of the first container, else 80.
fn port_number(pod: &Pod, wanted: Option<&str>) -> Result<u16, Status> {
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let mut ports = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let found = match wanted {
        None => ports
            .next()
            .map_or(Some(80), |port| u16::try_from(port.container_port).ok()),
        Some(wanted) => wanted.parse().ok().filter(|port| *port != 0).or_else(|| {
            let named = ports.find(|port| port.name.as_deref() == Some(wanted))?;
            u16::try_from(named.container_port).ok()
        }),
    };
    found
        .ok_or_else(|| Status::bad_request(format!("the pod has no port \"{}\"", wanted.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: Option<&str>, rest: Option<&str>, query: Option<&str>) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"}, "status": {"podIP": "10.42.0.5"},
            "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 8080, "name": "http"}]}]},
        }))
        .unwrap();
        uri(&pod, port, rest, query)
            .map(|uri| uri.to_string())
            .map_err(|status| status.message)
    }

    #[test]
    fn addresses_that_no_pod_can_have_are_refused() {
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "localhost",
            "10.42.0.5/x?",
        ] {
            let pod = serde_json::from_value(serde_json::json!({"status": {"podIP": address}})).unwrap();
            let refused = uri(&pod, Some("80"), None, None).unwrap_err();
            assert_eq!(refused.message, "address not allowed", "{address}");
        }
    }

    #[test]
    fn requests_go_to_the_pods_address() {
        assert_eq!(target(None, None, None).unwrap(), "http://10.42.0.5:8080/");
        assert_eq!(
            target(Some("http"), Some("a/b"), Some("x=1")).unwrap(),
            "http://10.42.0.5:8080/a/b?x=1"
        );
        assert_eq!(
            target(Some("9090"), None, None).unwrap(),
            "http://10.42.0.5:9090/"
        );
        assert_eq!(
            target(Some("nope"), None, None).unwrap_err(),
            "the pod has no port \"nope\""
        );
        assert!(target(Some("0"), None, None).is_err());
    }
}
