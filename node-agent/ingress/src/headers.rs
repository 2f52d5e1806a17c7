//! Which headers go through, and which are ours. Pure.
//!
//! What a client says about where it comes from is replaced, never believed: the node is the first that sees it.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Request, Version};

/// Concern one connection only and are never passed on.
const HOPS: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Why a request has no host that rules could be found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request names several hosts")]
    Several,
    #[error("the host that the request names is malformed")]
    Malformed,
}

/// The host of a request as it names it, port included; empty where an old client names none.
pub(crate) fn authority<B>(request: &Request<B>) -> Result<String, HostError> {
    let mut listed = request.headers().get_all(header::HOST).iter();
    let (first, second) = (listed.next(), listed.next());
    if second.is_some() {
        return Err(HostError::Several);
    }
    let named = match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => first.map(HeaderValue::as_bytes).unwrap_or_default(),
    };
    if named.is_empty() {
        let is_old = request.version() <= Version::HTTP_10;
        return is_old.then(String::new).ok_or(HostError::Missing);
    }
    let parsed = Authority::try_from(named).map_err(|_| HostError::Malformed)?;
    match parsed.as_str().contains('@') {
        true => Err(HostError::Malformed),
        false => Ok(parsed.as_str().to_owned()),
    }
}

/// The name that rules are found by: in lower case, without port and without the dot at the end.
pub(crate) fn host_of(authority: &str) -> String {
    let without_port = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let name = without_port.strip_suffix('.').unwrap_or(without_port);
    name.to_ascii_lowercase()
}

/// The protocol that the client wants to change to, if any.
pub(crate) fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let wanted = headers.get(header::UPGRADE)?;
    let asks = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    (asks && request.version() == Version::HTTP_11).then(|| wanted.clone())
}

/// Takes away what concerns one connection only.
pub(crate) fn strip_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        .collect();
    for name in named.iter().chain(&HOPS) {
        headers.remove(name);
    }
}

/// What a request carries on to an endpoint.
pub(crate) fn forwarded(
    headers: &mut HeaderMap,
    authority: &str,
    scheme: Scheme,
    client: IpAddr,
    upgrade: Option<&HeaderValue>,
) {
    let takes_trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| one.trim() == "trailers"));
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_hops(headers);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    join_cookies(headers);
    headers.remove(header::FORWARDED);
    let address = client.to_string();
    let port = port_of(authority).unwrap_or(scheme.default_port()).to_string();
    for (name, value) in [
        (FORWARDED_FOR, address.as_str()),
        (REAL_IP, address.as_str()),
        (FORWARDED_PROTO, scheme.as_str()),
        (FORWARDED_PORT, port.as_str()),
        (FORWARDED_HOST, authority),
        (header::HOST, authority),
    ] {
        headers.remove(&name);
        if let Some(value) = HeaderValue::from_str(value)
            .ok()
            .filter(|value| !value.is_empty())
        {
            headers.insert(name, value);
        }
    }
}

/// HTTP/2 may split cookies, HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if parts.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

fn port_of(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_request_has_one_host() {
        let of = |version, uri: &str, hosts: &[&str]| {
            let headers: Vec<(&str, &str)> = hosts.iter().map(|host| ("host", *host)).collect();
            authority(&request(version, uri, &headers))
        };
        let one = Version::HTTP_11;
        assert_eq!(of(one, "/", &["A.test:8080"]).unwrap(), "A.test:8080");
        assert_eq!(of(one, "http://b.test/", &["a.test"]).unwrap(), "b.test");
        assert_eq!(of(Version::HTTP_2, "https://b.test/", &[]).unwrap(), "b.test");
        assert_eq!(of(Version::HTTP_10, "/", &[]).unwrap(), "");
        assert_eq!(of(one, "/", &[]), Err(HostError::Missing));
        assert_eq!(of(one, "/", &["a", "b"]), Err(HostError::Several));
        for malformed in ["a b", "user@a.test", "a/b"] {
            assert_eq!(
                of(one, "/", &[malformed]),
                Err(HostError::Malformed),
                "{malformed}"
            );
        }
    }

    #[test]
    fn rules_are_found_by_the_name_alone() {
        for (authority, host) in [
            ("A.Test:8080", "a.test"),
            ("a.test.", "a.test"),
            ("a.test.:80", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn an_upgrade_has_to_be_asked_for_twice() {
        let headers = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert_eq!(
            upgrade(&request(Version::HTTP_11, "/", &headers)).unwrap(),
            "websocket"
        );
        assert_eq!(upgrade(&request(Version::HTTP_11, "/", &headers[1..])), None);
        assert_eq!(upgrade(&request(Version::HTTP_11, "/", &headers[..1])), None);
        assert_eq!(upgrade(&request(Version::HTTP_10, "/", &headers)), None);
    }

    fn passed_on(headers: &[(&str, &str)], upgrade: Option<&str>) -> Vec<String> {
        let mut headers = request(Version::HTTP_11, "/", headers).headers().clone();
        let upgrade = upgrade.map(|protocol| HeaderValue::from_str(protocol).unwrap());
        forwarded(
            &mut headers,
            "a.test:8443",
            Scheme::Https,
            "192.0.2.7".parse().unwrap(),
            upgrade.as_ref(),
        );
        let mut shown: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let own = [
            "host: a.test:8443",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: a.test:8443",
            "x-forwarded-port: 8443",
            "x-forwarded-proto: https",
            "x-real-ip: 192.0.2.7",
        ];
        let received = [
            ("host", "old"),
            ("connection", "close, X-Mine"),
            ("x-mine", "secret"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("upgrade", "h2c"),
            // What a client says of itself is not believed.
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ];
        assert_eq!(passed_on(&received, None), own);
        let kept = [("accept", "text/html"), ("te", "trailers, deflate")];
        let mut expected = own.map(str::to_owned).to_vec();
        expected.extend(["accept: text/html".to_owned(), "te: trailers".to_owned()]);
        expected.sort();
        assert_eq!(passed_on(&kept, None), expected);
    }

    #[test]
    fn upgrades_and_split_cookies_are_made_whole() {
        let received = [("cookie", "a=1"), ("cookie", "b=2")];
        let passed = passed_on(&received, Some("websocket"));
        for expected in ["connection: upgrade", "upgrade: websocket", "cookie: a=1; b=2"] {
            assert!(passed.iter().any(|header| header == expected), "{passed:?}");
        }
    }
}
