//! Answers of our own, and the bodies that travel through.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use crate::activity::Activity;
use crate::balancer::Lease;

/// What is sent to clients: an endpoint's body, or a text of ours.
pub(crate) type Answer = Either<Download, Full<Bytes>>;

/// A short text that says what went wrong, for people.
pub(crate) fn text(status: StatusCode, message: &str) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Full::from(format!("{status}: {message}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    // What a client sent comes back in it and must not be taken for anything else.
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Sends the client somewhere else for good, with the same method and body.
pub(crate) fn redirect(location: &str) -> Response<Answer> {
    let Ok(location) = HeaderValue::try_from(location) else {
        return text(StatusCode::BAD_REQUEST, "the URL cannot be redirected");
    };
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "this is served over HTTPS");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The body of a request. A clone is another handle: an endpoint that could not be reached has taken nothing of it, and
/// the next one gets it whole.
#[derive(Clone)]
pub(crate) struct Upload {
    body: Arc<Mutex<Incoming>>,
    activity: Activity,
}

impl Upload {
    pub(crate) fn new(body: Incoming, activity: Activity) -> Self {
        Self {
            body: Arc::new(Mutex::new(body)),
            activity,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Incoming) -> T) -> T {
        look(&mut self.body.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = self.with(|body| Pin::new(body).poll_frame(cx));
        if polled.is_ready() {
            self.activity.note();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

/// The body of an answer; its endpoint counts as busy until it has ended.
pub(crate) struct Download {
    body: Incoming,
    _lease: Lease,
}

impl Download {
    pub(crate) fn new(body: Incoming, lease: Lease) -> Self {
        Self { body, _lease: lease }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
