//! A registry, spoken to over HTTP: manifests and blobs of one repository.
//!
//! *Guarantees*: credentials go to the registry and to the token service that it names, never to where a blob is
//! redirected. Nothing waits for ever. Nothing is read beyond its limit.

mod authorize;
mod challenge;
mod connect;
mod error;

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::time::timeout;

pub use error::RegistryError;

use crate::credentials::Credential;
use crate::files::sha256;
use crate::registries::{HostConfig, Place};
use connect::Http;

/// A registry that has not begun to answer by then is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A transfer that stands still for this long is broken.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// From a registry to its storage and on; more is a loop.
const REDIRECTS_MAX: usize = 5;
/// An error's explanation is short.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// Every kind of manifest that is understood.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                              application/vnd.docker.distribution.manifest.list.v2+json, \
                              application/vnd.docker.distribution.manifest.v2+json";
/// Of the time before content addressing.
const OLD_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v1";

/// One repository of one registry, with at most one user's credentials. Keeps its connections.
pub(crate) struct Client {
    http: Http,
    place: Place,
    credential: Option<Credential>,
    /// What the registry accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or an index whose bytes have been verified.
pub(crate) struct Document {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

/// A blob's bytes from some offset on.
pub(crate) struct BlobBody {
    /// 0 when the registry does not do ranges.
    pub(crate) start: u64,
    pub(crate) body: Incoming,
}

impl Client {
    /// Connects to nothing yet.
    pub(crate) fn new(
        place: Place,
        config: Option<&HostConfig>,
        credential: Option<Credential>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            http: connect::client(&place.host, config.and_then(|config| config.tls.as_ref()))?,
            place,
            credential,
            authorization: Mutex::default(),
        })
    }

    /// A manifest or index by tag or digest.
    pub(crate) async fn manifest(&self, reference: &str, bytes_max: u64) -> Result<Document, RegistryError> {
        let what = self.what(if reference.contains(':') { '@' } else { ':' }, reference);
        let url = format!(
            "{}/{}/manifests/{reference}",
            self.place.base, self.place.repository
        );
        let accept = [(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))];
        let response = self.get(&url, accept.into_iter().collect(), &what).await?;
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(OLD_MANIFEST.as_bytes())) {
            return Err(RegistryError::OldManifest { what });
        }
        let told = response.headers().get("docker-content-digest").cloned();
        let bytes = self.read(response.into_body(), bytes_max, &what).await?;
        let digest = sha256(&bytes);
        let told = told.as_ref().and_then(|told| told.to_str().ok());
        for expected in told
            .into_iter()
            .chain(reference.contains(':').then_some(reference))
        {
            if expected.starts_with("sha256:") && expected != digest {
                return Err(RegistryError::Digest {
                    what,
                    expected: expected.to_owned(),
                    found: digest,
                });
            }
        }
        Ok(Document { digest, bytes })
    }

    /// A small blob as a whole, verified.
    pub(crate) async fn document(&self, digest: &str, bytes_max: u64) -> Result<Vec<u8>, RegistryError> {
        let what = self.what('@', digest);
        let response = self.get(&self.blob_url(digest), HeaderMap::new(), &what).await?;
        let bytes = self.read(response.into_body(), bytes_max, &what).await?;
        let found = sha256(&bytes);
        if found == digest {
            return Ok(bytes);
        }
        Err(RegistryError::Digest {
            what,
            expected: digest.to_owned(),
            found,
        })
    }

    /// A blob from `offset` on, or from its start where the registry does not do ranges.
    pub(crate) async fn blob(&self, digest: &str, offset: u64) -> Result<BlobBody, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = format!("bytes={offset}-");
            headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("a number is a header's value"),
            );
        }
        let response = self
            .get(&self.blob_url(digest), headers, &self.what('@', digest))
            .await?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(response.headers()).unwrap_or(0),
            _ => 0,
        };
        Ok(BlobBody {
            start,
            body: response.into_body(),
        })
    }

    fn blob_url(&self, digest: &str) -> String {
        format!("{}/{}/blobs/{digest}", self.place.base, self.place.repository)
    }

    /// What is asked for, in words for errors: `host/repository:tag`.
    fn what(&self, separator: char, reference: &str) -> String {
        format!(
            "{}/{}{separator}{reference}",
            self.place.host, self.place.repository
        )
    }

    /// Asks, shows credentials when told to, and follows redirects. Only success comes back.
    async fn get(
        &self,
        url: &str,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let accepted = self.authorization().clone();
        let mut response = self.send(url, &headers, accepted).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let fresh = authorize::authorize(self, response.headers(), what).await?;
            *self.authorization() = Some(fresh.clone());
            response = self.send(url, &headers, Some(fresh)).await?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, host) = (response.status(), self.place.host.clone());
        // The explanation is a courtesy: what cannot be read of it is left out.
        let body = self
            .read(response.into_body(), ERROR_BYTES_MAX, what)
            .await
            .unwrap_or_default();
        let user = self
            .credential
            .as_ref()
            .map(|credential| credential.username.clone());
        Err(RegistryError::of_status(status, &body, host, what, user))
    }

    async fn send(
        &self,
        url: &str,
        headers: &HeaderMap,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let malformed = || RegistryError::Redirect {
            host: self.place.host.clone(),
        };
        let first: Uri = url.parse().map_err(|_| malformed())?;
        let mut uri = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut all = headers.clone();
            if uri.authority() == first.authority() && uri.scheme() == first.scheme() {
                all.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
            }
            let response = self.request(Request::get(uri.clone()), all, Bytes::new()).await?;
            let location = response
                .headers()
                .get(LOCATION)
                .filter(|_| response.status().is_redirection());
            let Some(location) = location else {
                return Ok(response);
            };
            let location = location.to_str().map_err(|_| malformed())?;
            uri = resolve(&uri, location).ok_or_else(malformed)?;
            if first.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
                return Err(malformed());
            }
        }
        Err(malformed())
    }

    async fn request(
        &self,
        builder: http::request::Builder,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, RegistryError> {
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("flotilla/", env!("CARGO_PKG_VERSION"))),
        );
        let mut request = builder
            .body(Full::new(body))
            .map_err(|_| RegistryError::Redirect {
                host: self.place.host.clone(),
            })?;
        let host = request
            .uri()
            .authority()
            .map_or_else(String::new, ToString::to_string);
        request.headers_mut().extend(headers);
        match timeout(ANSWER_LIMIT, self.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| RegistryError::of_connection(error, host)),
            Err(_) => Err(RegistryError::Silent {
                host,
                seconds: ANSWER_LIMIT.as_secs(),
            }),
        }
    }

    async fn read(&self, mut body: Incoming, bytes_max: u64, what: &str) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next(&mut body).await? {
            bytes.extend_from_slice(&data);
            if bytes.len() as u64 > bytes_max {
                return Err(RegistryError::TooLarge {
                    what: what.to_owned(),
                    max: bytes_max,
                });
            }
        }
        Ok(bytes)
    }

    /// The next bytes of a body; none at its end.
    pub(crate) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = timeout(STALL_LIMIT, body.frame())
                .await
                .map_err(|_| RegistryError::Silent {
                    host: self.place.host.clone(),
                    seconds: STALL_LIMIT.as_secs(),
                })?;
            match frame {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(RegistryError::Broken {
                        host: self.place.host.clone(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().expect("no holder of this lock panics")
    }
}

/// `bytes 100-199/200` → 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Where a redirect leads; a path stays on the same host.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let uri: Uri = location.parse().ok()?;
    if uri.authority().is_some() {
        return uri.scheme().is_some().then_some(uri);
    }
    let path = uri
        .path_and_query()
        .filter(|path| path.as_str().starts_with('/'))?
        .clone();
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_hosts_or_paths() {
        let from: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        let to = |location| resolve(&from, location).map(|uri| uri.to_string());
        assert_eq!(
            to("https://cdn.example/x?y=z").as_deref(),
            Some("https://cdn.example/x?y=z")
        );
        assert_eq!(to("/other?a").as_deref(), Some("https://r.example/other?a"));
        assert_eq!(to("relative"), None);
        assert_eq!(to(""), None);
    }

    #[test]
    fn ranges_are_understood() {
        let start = |text: &'static str| {
            range_start(
                &[(CONTENT_RANGE, HeaderValue::from_static(text))]
                    .into_iter()
                    .collect(),
            )
        };
        assert_eq!(start("bytes 100-199/200"), Some(100));
        assert_eq!(start("bytes */200"), None);
        assert_eq!(start("lines 1-2/3"), None);
    }
}
