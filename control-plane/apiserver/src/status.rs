//! Failures as HTTP answers; the only place that knows HTTP's codes for them.

use flotilla_api::{Cause, Details, Reason, Status};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::body::Body;

/// A failure on its way to a client.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    /// With which an expired list may be continued inconsistently.
    continue_token: Option<String>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            status,
            continue_token: None,
        }
    }
}

impl Failure {
    /// A list that cannot be continued as it was, and how to go on all the same.
    pub(crate) fn expired_list(message: &str, continue_token: String) -> Self {
        Self {
            status: Status::expired(message),
            continue_token: Some(continue_token),
        }
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let code = code(self.status.reason);
        let mut body = object(&self.status);
        if let Some(token) = self.continue_token {
            body["metadata"]["continue"] = token.into();
        }
        let mut response = Response::new(Body::whole(body.to_string()));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if code == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self
            .status
            .details
            .and_then(|details| details.retry_after_seconds)
        {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The `Status` object of a failure, as in answers and in watches' `ERROR` events.
pub(crate) fn object(status: &Status) -> Value {
    let mut object = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": status.message,
        "reason": status.reason.as_str(),
        "code": code(status.reason).as_u16(),
    });
    if let Some(details) = &status.details {
        object["details"] = details_object(details);
    }
    object
}

fn details_object(details: &Details) -> Value {
    let mut object = Map::new();
    let texts = [
        ("name", &details.name),
        ("group", &details.group),
        ("kind", &details.kind),
        ("uid", &details.uid),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        object.insert(field.to_owned(), text.as_str().into());
    }
    if !details.causes.is_empty() {
        object.insert(
            "causes".to_owned(),
            details.causes.iter().map(cause_object).collect(),
        );
    }
    if let Some(seconds) = details.retry_after_seconds {
        object.insert("retryAfterSeconds".to_owned(), seconds.into());
    }
    Value::Object(object)
}

fn cause_object(cause: &Cause) -> Value {
    let texts = [
        ("reason", &cause.reason),
        ("message", &cause.message),
        ("field", &cause.field),
    ];
    let present = texts.into_iter().filter(|(_, text)| !text.is_empty());
    present
        .map(|(field, text)| (field.to_owned(), Value::from(text.as_str())))
        .collect()
}

fn code(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::Unauthorized => StatusCode::UNAUTHORIZED,
        Reason::Forbidden => StatusCode::FORBIDDEN,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::AlreadyExists | Reason::Conflict => StatusCode::CONFLICT,
        Reason::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::Gone | Reason::Expired => StatusCode::GONE,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::ServerTimeout | Reason::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        // Clients repeat a 5xx only when it says `Retry-After`: this one lasts until somebody makes room.
        Reason::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
    }
}
