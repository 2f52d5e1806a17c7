//! One request while it is being answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_api::Status;
use flotilla_store::REQUEST_BYTES_MAX;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method};
use http_body::Body as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;

use crate::auth::User;
use crate::inflight::{Class, InFlight, Permit};
use crate::negotiate::{self, Encoding, Format};
use crate::protobuf;
use crate::query::Query;

/// A body that trickles in for longer than this is not worth a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Any error of a transport.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body could not be read to its end.
///
/// A type of its own and not the box alone: the compiler cannot prove for the box's erased lifetime that futures
/// which read the body may change threads.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ReadBodyError(pub(crate) BoxError);

/// The body of a request.
pub(crate) type RequestBody = BoxBody<Bytes, ReadBodyError>;

/// The parts of a request that handlers look at.
pub(crate) struct Call {
    pub(crate) user: User,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) raw_query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// The right to the connection, where it can be had.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Where room for the body is had.
    pub(crate) in_flight: Arc<InFlight>,
    /// The room that the body takes until the request is answered.
    pub(crate) room: Option<Permit>,
}

impl Call {
    fn header(&self, name: HeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub(crate) fn accept(&self) -> &str {
        self.header(ACCEPT)
    }

    pub(crate) fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE)
    }

    pub(crate) fn format(&self) -> Result<Format, Status> {
        negotiate::format(self.accept())
    }

    /// The whole body. One that says that it is too large is refused before any of it is read, and one that does not say
    /// as soon as it is.
    pub(crate) async fn read_body(&mut self) -> Result<Bytes, Status> {
        let size = self.body.size_hint();
        if size.lower() > REQUEST_BYTES_MAX as u64 {
            return Err(body_too_large());
        }
        let room = self
            .in_flight
            .take_body(Class::Mutating, size.upper().unwrap_or(u64::MAX))?;
        self.room = Some(room);
        let body = Limited::new(self.take_body(), REQUEST_BYTES_MAX).collect();
        let body = tokio::time::timeout(BODY_TIMEOUT, body)
            .await
            .map_err(|_| Status::timeout("the body of the request did not arrive in time"))?;
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(body_too_large()),
            Err(error) => Err(Status::bad_request(format!(
                "cannot read the body of the request: {error}"
            ))),
        }
    }

    /// The body as it comes in; none is left.
    pub(crate) fn take_body(&mut self) -> RequestBody {
        let empty = BoxBody::new(http_body_util::Empty::new().map_err(|never| match never {}));
        std::mem::replace(&mut self.body, empty)
    }

    /// The body as JSON; YAML and protobuf are translated.
    pub(crate) async fn read_json(&mut self) -> Result<Bytes, Status> {
        let encoding = negotiate::encoding(self.content_type())?;
        let body = self.read_body().await?;
        match encoding {
            Encoding::Json => Ok(body),
            Encoding::Yaml => yaml_to_json(&body),
            // An empty body needs no envelope: a deletion without options.
            Encoding::Protobuf if body.is_empty() => Ok(body),
            Encoding::Protobuf => protobuf::to_json(&body)
                .map(|object| object.to_string().into())
                .map_err(|error| {
                    Status::bad_request(format!("cannot read the request's protobuf body: {error}"))
                }),
        }
    }
}

fn body_too_large() -> Status {
    Status::too_large(format_args!("limit is {REQUEST_BYTES_MAX}"))
}

fn yaml_to_json(yaml: &[u8]) -> Result<Bytes, Status> {
    let value: serde_json::Value = serde_yaml::from_slice(yaml)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    serde_json::to_vec(&value)
        .map(Bytes::from)
        .map_err(Status::internal)
}
