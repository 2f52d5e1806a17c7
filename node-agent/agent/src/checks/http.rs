//! HTTP requests of probes and hooks: one connection each, redirects on the same host, no verification of TLS.

use std::pin::pin;

use flotilla_lifecycle::{HttpCheck, ProbeOutcome, host_port};
use flotilla_report::report;
use futures::future::{Either, select};
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;

use super::{OUTPUT_BYTES_MAX, dial, tls};

/// As many redirects as Go's client follows.
const REDIRECTS_MAX: usize = 10;
/// Kubelet's name in requests.
const AGENT: HeaderValue = HeaderValue::from_static("kube-probe/1.35");

/// An answer, as far as probes look at it.
pub(super) struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

/// Asks once; 200 to 399 is success.
pub(super) async fn probe(check: &HttpCheck) -> ProbeOutcome {
    let mut check = check.clone();
    for _ in 0..REDIRECTS_MAX {
        let answer = match get(&check).await {
            Ok(answer) => answer,
            Err(why) => return ProbeOutcome::Failure(why),
        };
        let is_redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        match answer.location.as_deref().filter(|_| is_redirect) {
            Some(location) => match redirected(&check, location) {
                Some(next) => check = next,
                None => {
                    let told = format!("Probe terminated redirects, Response body: {}", answer.body);
                    return ProbeOutcome::Warning(told);
                }
            },
            None if (200..400).contains(&answer.status) => return ProbeOutcome::Success,
            None => {
                let status = answer.status;
                return ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}"));
            }
        }
    }
    let why = format!("stopped after {REDIRECTS_MAX} redirects");
    ProbeOutcome::Failure(format!("Get \"{}\": {why}", check.url()))
}

/// Where a redirect leads; none when that is another host.
fn redirected(check: &HttpCheck, location: &str) -> Option<HttpCheck> {
    let uri: Uri = location.parse().ok()?;
    let mut next = check.clone();
    next.path = match uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.as_str().to_owned(),
        _ => format!("/{location}"),
    };
    if let Some(host) = uri.host() {
        if host.trim_matches(['[', ']']) != check.host {
            return None;
        }
        next.is_https = uri.scheme_str() == Some("https");
        next.port = uri.port_u16().unwrap_or(if next.is_https { 443 } else { 80 });
    }
    Some(next)
}

/// Sends the request; the error is Go's.
pub(super) async fn get(check: &HttpCheck) -> Result<Answer, String> {
    let wrap = |why: String| format!("Get \"{}\": {why}", check.url());
    let stream = dial(&check.host, check.port).await.map_err(wrap)?;
    if check.is_https {
        let stream = tls::connect(&check.host, stream).await;
        exchange(check, TokioIo::new(stream.map_err(wrap)?))
            .await
            .map_err(wrap)
    } else {
        exchange(check, TokioIo::new(stream)).await.map_err(wrap)
    }
}

async fn exchange(check: &HttpCheck, stream: impl Read + Write + Unpin) -> Result<Answer, String> {
    let mut request = Request::get(check.path.as_str());
    if let Some(headers) = request.headers_mut() {
        fill(headers, check);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| format!("cannot make the request: {}", report(&error)))?;
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| report(&error))?;
    let ask = async {
        let response = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        let mut read = Vec::new();
        while read.len() < OUTPUT_BYTES_MAX {
            let Some(frame) = body.frame().await else { break };
            if let Ok(data) = frame?.into_data() {
                read.extend_from_slice(&data);
            }
        }
        read.truncate(OUTPUT_BYTES_MAX);
        let location = head.headers.get(LOCATION);
        Ok(Answer {
            status: head.status.as_u16(),
            location: location.and_then(|value| Some(value.to_str().ok()?.to_owned())),
            body: String::from_utf8_lossy(&read).into_owned(),
        })
    };
    // The connection only moves bytes. Once it has ended, what it brought is still there to be read.
    let answer: Result<Answer, hyper::Error> = match select(pin!(ask), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, ask)) => ask.await,
    };
    answer.map_err(|error| {
        if error.is_incomplete_message() || error.is_canceled() {
            "EOF".to_owned()
        } else {
            report(&error)
        }
    })
}

/// The check's own headers win; an empty value removes one.
fn fill(headers: &mut HeaderMap, check: &HttpCheck) {
    let host = host_port(&check.host, check.port);
    if let Ok(host) = HeaderValue::from_str(&host) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let own = check.headers.iter().filter_map(|(name, value)| {
        let name: HeaderName = name.parse().ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    let own: Vec<(HeaderName, HeaderValue)> = own.collect();
    own.iter().for_each(|(name, _)| {
        headers.remove(name);
    });
    for (name, value) in own.into_iter().filter(|(_, value)| !value.is_empty()) {
        headers.append(name, value);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}
