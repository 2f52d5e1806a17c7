//! `/openapi/v2` and `/openapi/v3`, each document encoded once, when it is first asked for.

mod protobuf;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use flotilla_api::{Status, openapi};
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::negotiate;
use crate::render::json_response;

/// The documents that clients have asked for so far.
#[derive(Default)]
pub(crate) struct Documents {
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    v3: Mutex<HashMap<(String, String), Arc<Document>>>,
}

/// An encoded document and the tag by which clients know it.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    tag: String,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self {
            bytes: bytes.into(),
            tag: format!("{:016X}", hasher.finish()),
        }
    }

    fn respond(&self, call: &Call, content_type: &'static str) -> Response<Body> {
        let tag = format!("\"{}\"", self.tag);
        let known = call
            .headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = match known {
            true => json_response(StatusCode::NOT_MODIFIED, Bytes::new()),
            false => json_response(StatusCode::OK, self.bytes.clone()),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

impl Documents {
    /// `/openapi/v2`
    pub(crate) fn v2(&self, call: &Call) -> Response<Body> {
        if negotiate::wants_openapi_protobuf(call.accept()) {
            let document = self
                .v2_protobuf
                .get_or_init(|| Document::new(protobuf::encode(&openapi::v2())));
            return document.respond(call, negotiate::OPENAPI_PROTOBUF);
        }
        self.v2_json().respond(call, "application/json")
    }

    fn v2_json(&self) -> &Document {
        self.v2_json
            .get_or_init(|| Document::new(openapi::v2().to_string().into_bytes()))
    }

    /// `/openapi/v3`
    pub(crate) fn v3_index(&self) -> Response<Body> {
        let tag = &self.v2_json().tag;
        let paths: Map<String, Value> = openapi::v3_index()
            .into_iter()
            .map(|path| {
                let url = format!("/openapi/v3/{path}?hash={tag}");
                (path, json!({"serverRelativeURL": url}))
            })
            .collect();
        json_response(StatusCode::OK, json!({"paths": paths}).to_string())
    }

    /// `/openapi/v3/apis/GROUP/VERSION`
    pub(crate) fn v3(&self, call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
        let key = (group.to_owned(), version.to_owned());
        let known = self
            .v3
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        let document = match known {
            Some(document) => document,
            None => {
                let document = openapi::v3(group, version).ok_or_else(Status::no_such_path)?;
                let document = Arc::new(Document::new(document.to_string().into_bytes()));
                self.v3
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, Arc::clone(&document));
                document
            }
        };
        Ok(document.respond(call, "application/json"))
    }
}
