//! Objects in the form that a client asked for: themselves, rows of a table, or only metadata.

use std::borrow::Cow;

use bytes::Bytes;
use flotilla_api::{Kind, Object, Status};
use flotilla_report::report;
use flotilla_store::{Key, Revision, Stored};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::negotiate::Format;
use crate::partial;

const WARNING: HeaderName = HeaderName::from_static("warning");
/// More warnings than this help nobody, and headers are limited.
const WARNINGS_MAX: usize = 20;

/// What comes with a row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

/// Writes objects of a kind in one form.
#[derive(Clone)]
pub(crate) struct Renderer {
    kind: &'static Kind,
    format: Format,
    include: Include,
}

/// A list's own metadata.
#[derive(Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Renderer {
    /// The form that the request asks for.
    pub(crate) fn of(kind: &'static Kind, call: &Call) -> Result<Self, Status> {
        let include = match call.query.get("includeObject") {
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            None | Some("Metadata") => Include::Metadata,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        Ok(Self {
            kind,
            format: call.format()?,
            include,
        })
    }

    /// An object by itself; `None` when the stored bytes cannot be read.
    pub(crate) fn object(&self, stored: &Stored) -> Option<Bytes> {
        self.state(&stored.key, &stored.json, stored.modified)
    }

    /// One state of an object, given as it would be stored.
    pub(crate) fn state(&self, key: &Key, stored: &Bytes, revision: Revision) -> Option<Bytes> {
        match self.format {
            Format::Json => self.json(key, stored),
            Format::Partial(version) => partial::object(version, &self.json(key, stored)?),
            Format::Table(version) => {
                let meta = ListMeta {
                    revision,
                    ..ListMeta::default()
                };
                let mut table = self.list_start(&meta).into_bytes();
                table.extend_from_slice(&self.row(version, key, stored)?);
                table.extend_from_slice(LIST_END);
                Some(table.into())
            }
        }
    }

    /// An object as an element of a list.
    pub(crate) fn item(&self, stored: &Stored) -> Option<Bytes> {
        match self.format {
            Format::Table(version) => self.row(version, &stored.key, &stored.json),
            _ => self.object(stored),
        }
    }

    /// What a list begins with, up to its first element.
    pub(crate) fn list_start(&self, meta: &ListMeta) -> String {
        let mut metadata = json!({"resourceVersion": meta.revision.to_string()});
        if let Some(token) = &meta.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = meta.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let (kind, version) = match self.format {
            Format::Json => (self.kind.list_kind, Cow::Owned(self.kind.api_version())),
            Format::Partial(version) => ("PartialObjectMetadataList", Cow::Borrowed(version)),
            Format::Table(version) => ("Table", Cow::Borrowed(version)),
        };
        let start = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"#);
        match self.format {
            Format::Table(_) => format!(r#"{start}"columnDefinitions":{},"rows":["#, self.columns()),
            _ => format!(r#"{start}"items":["#),
        }
    }

    /// An object without content that tells a watcher how far it has come.
    pub(crate) fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.format {
            Format::Json => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Format::Partial(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata})
            }
            Format::Table(version) => {
                json!({"kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
        }
    }

    /// The stored bytes, or those of the view that this kind is of another stored kind.
    fn json(&self, key: &Key, stored: &Bytes) -> Option<Bytes> {
        let Some(storage) = self.kind.storage() else {
            return Some(stored.clone());
        };
        let object = readable(key, storage.decode_stored(stored))?;
        Some(self.kind.from_storage(object).encode().into())
    }

    fn columns(&self) -> Value {
        let columns = self.kind.columns.iter().map(|column| {
            json!({"name": column.name, "type": column.type_, "format": column.format,
                   "description": column.description, "priority": column.priority})
        });
        columns.collect()
    }

    fn row(&self, version: &str, key: &Key, stored: &Bytes) -> Option<Bytes> {
        let json = self.json(key, stored)?;
        let object = readable(key, self.kind.decode_stored(&json))?;
        let cells = Value::Array(self.kind.cells(&*object, Timestamp::now()));
        let object = match self.include {
            Include::Nothing => Bytes::from_static(b"null"),
            Include::Metadata => partial::object(version, &json)?,
            Include::Object => json,
        };
        let mut row = format!(r#"{{"cells":{cells},"object":"#).into_bytes();
        row.extend_from_slice(&object);
        row.push(b'}');
        Some(row.into())
    }
}

/// An object that cannot be read is told to the operator and left out of the answer.
fn readable(key: &Key, decoded: Result<Box<dyn Object>, Status>) -> Option<Box<dyn Object>> {
    decoded
        .inspect_err(
            |error| tracing::error!(object = %key, error = report(error), "a stored object cannot be read"),
        )
        .ok()
}

/// What every list ends with.
pub(crate) const LIST_END: &[u8] = b"]}";

/// Any JSON as an answer.
pub(crate) fn json_response(code: StatusCode, json: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(json.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// One object as an answer, with warnings for its sender.
pub(crate) fn object_response(
    renderer: &Renderer,
    code: StatusCode,
    stored: &Stored,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    let json = renderer
        .object(stored)
        .ok_or_else(|| Status::internal(format!("the stored object {} cannot be read", stored.key)))?;
    let mut response = json_response(code, json);
    for warning in warnings.iter().take(WARNINGS_MAX) {
        // Quotes and control characters would end the quoted text of the header.
        let text: String = warning
            .chars()
            .filter(|letter| !letter.is_control())
            .flat_map(|letter| match letter {
                '"' | '\\' => vec!['\\', letter],
                other => vec![other],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    Ok(response)
}
