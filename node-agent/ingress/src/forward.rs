//! One request: to which service, to which endpoint, and what the client hears of it.
//!
//! A request is sent to another endpoint only if the one before could not be connected to. One that may come twice (GET,
//! HEAD, OPTIONS, without a body) is sent once more as well when an endpoint closed the connection before it answered
//! anything, as servers do that end. Everything else is tried once.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_report::report;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::activity::Activity;
use crate::answer::{Answer, Download, Upload, redirect, text};
use crate::balancer::{Balancer, Lease, Missing};
use crate::connection::Caller;
use crate::headers::{Scheme, authority, forwarded, host_of, strip_hops, upgrade};
use crate::listen::Listening;
use crate::live::Live;
use crate::table::{Goal, Route};
use crate::tunnel;

/// Endpoints are pods on nodes of the same cluster: one that takes longer is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How many endpoints a request is offered to.
const ENDPOINTS_TRIED_MAX: usize = 3;
/// Kept connections are closed earlier than servers do it (Node.js after 5 s), so that few requests meet one that is
/// being closed.
const KEPT_IDLE: Duration = Duration::from_secs(4);
/// Connections that are kept per endpoint; as many as a busy endpoint serves at once.
const KEPT_MAX: usize = 128;
/// Dead peers of long answers and tunnels are found by the kernel.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Forwards requests. A clone shares its connections.
#[derive(Clone)]
pub(crate) struct Forwarder {
    live: Arc<ArcSwap<Live>>,
    client: Client<HttpConnector, Upload>,
    tracker: TaskTracker,
    /// Where plain requests are sent to that want HTTPS.
    listening: watch::Receiver<Listening>,
}

/// Hands tasks of connections to a tracker.
#[derive(Clone)]
pub(crate) struct Tasks(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Forwarder {
    pub(crate) fn new(
        live: Arc<ArcSwap<Live>>,
        listening: watch::Receiver<Listening>,
        tracker: TaskTracker,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEP_ALIVE));
        let client = Client::builder(Tasks(tracker.clone()))
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(KEPT_MAX)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Self {
            live,
            client,
            tracker,
            listening,
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, caller: &Arc<Caller>, request: Request<Incoming>) -> Response<Answer> {
        let authority = match authority(&request) {
            Ok(authority) => authority,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let Some(target) = request.uri().path_and_query().filter(|_| is_forwarded(&request)) else {
            return text(
                StatusCode::BAD_REQUEST,
                "this proxy forwards requests for paths only",
            );
        };
        let (host, target) = (host_of(&authority), target.clone());
        let live = self.live.load_full();
        let Some(route) = live.table.find(&host, target.path()) else {
            let message = format!(
                "no Ingress has a rule for host {host:?} and path {:?}",
                target.path()
            );
            return text(StatusCode::NOT_FOUND, &message);
        };
        if route.redirects
            && caller.scheme == Scheme::Http
            && let Some(port) = self.listening.borrow().https
        {
            return redirect(&https_url(&host, port, &target));
        }
        let balancer = match &route.goal {
            Goal::Service(balancer) => balancer.clone(),
            Goal::Resource(resource) => {
                let message = format!(
                    "ingress {}: {resource} is no Service, and nothing else can be served",
                    route.ingress
                );
                return text(StatusCode::SERVICE_UNAVAILABLE, &message);
            }
        };
        let exchange = Exchange::new(self, caller, request, &authority, target);
        match exchange.carry_out(&balancer).await {
            Ok(response) => response,
            Err(failure) => failure.answer(route, &balancer),
        }
    }
}

/// Requests for the server itself (`OPTIONS *`) and tunnels (`CONNECT`) have no path.
fn is_forwarded(request: &Request<Incoming>) -> bool {
    request.method() != Method::CONNECT && request.uri().path().starts_with('/')
}

fn https_url(host: &str, port: u16, target: &PathAndQuery) -> String {
    match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    }
}

/// Why an endpoint did not answer.
#[derive(Debug)]
enum Failure {
    Missing(Missing),
    /// The last endpoint that was tried, and why.
    Endpoint(SocketAddr, String),
    /// This endpoint took longer than that.
    Slow(SocketAddr, Duration),
}

impl Failure {
    fn answer(self, route: &Route<Arc<Balancer>>, balancer: &Balancer) -> Response<Answer> {
        let service = &balancer.service;
        let place = format!("{}/{}", service.namespace, service.name);
        let (status, why) = match self {
            Failure::Missing(Missing::Service) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("service {place} does not exist, or has no endpoints of its own"),
            ),
            Failure::Missing(Missing::Port) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("service {place} has no port {}", service.port),
            ),
            Failure::Missing(Missing::Endpoints) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("service {service} has no ready endpoints"),
            ),
            Failure::Endpoint(address, why) => (
                StatusCode::BAD_GATEWAY,
                format!("service {service}, endpoint {address}: {why}"),
            ),
            Failure::Slow(address, limit) => (
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "service {service}, endpoint {address}: no answer within {} s",
                    limit.as_secs()
                ),
            ),
        };
        let message = format!("ingress {}: {why}", route.ingress);
        tracing::debug!(status = status.as_u16(), message, "a request was not answered");
        text(status, &message)
    }
}

/// One request on its way.
struct Exchange<'a> {
    forwarder: &'a Forwarder,
    caller: &'a Arc<Caller>,
    /// Method and headers as they are sent.
    head: http::request::Parts,
    target: PathAndQuery,
    upload: Upload,
    activity: Activity,
    /// The client's side of a change of protocol.
    upgrading: Option<OnUpgrade>,
}

impl<'a> Exchange<'a> {
    fn new(
        forwarder: &'a Forwarder,
        caller: &'a Arc<Caller>,
        mut request: Request<Incoming>,
        authority: &str,
        target: PathAndQuery,
    ) -> Self {
        let protocol = upgrade(&request);
        let upgrading = protocol.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let client = caller.address;
        forwarded(
            &mut head.headers,
            authority,
            caller.scheme,
            client,
            protocol.as_ref(),
        );
        head.version = Version::HTTP_11;
        head.extensions = http::Extensions::new();
        let activity = Activity::new();
        Self {
            forwarder,
            caller,
            head,
            target,
            upload: Upload::new(body, activity.clone()),
            activity,
            upgrading,
        }
    }

    async fn carry_out(mut self, balancer: &Balancer) -> Result<Response<Answer>, Failure> {
        let may_come_twice = matches!(self.head.method, Method::GET | Method::HEAD | Method::OPTIONS)
            && self.upload.is_end_stream()
            && self.upgrading.is_none();
        let mut tried = BTreeSet::new();
        let mut last = Failure::Missing(Missing::Endpoints);
        let mut was_lost = false;
        while tried.len() < ENDPOINTS_TRIED_MAX {
            let Some(lease) = balancer.choose(&tried).map_err(Failure::Missing)? else {
                break;
            };
            let address = lease.endpoint.address;
            let error = match self.ask(&lease).await {
                None => return Err(Failure::Slow(address, self.caller.limits.answer)),
                Some(Ok(response)) => return Ok(self.respond(response, lease)),
                Some(Err(error)) => error,
            };
            last = Failure::Endpoint(address, reason(&error));
            if error.is_connect() {
                lease.endpoint.shun();
                tried.insert(address);
            } else if may_come_twice && !was_lost && is_lost(&error) {
                was_lost = true;
            } else {
                break;
            }
        }
        Err(last)
    }

    /// Sends the request to an endpoint; nothing when that does not answer in time.
    async fn ask(&self, lease: &Lease) -> Option<Result<Response<Incoming>, ClientError>> {
        let mut head = self.head.clone();
        let uri = Uri::builder()
            .scheme("http")
            .authority(lease.endpoint.authority.clone())
            .path_and_query(self.target.clone());
        head.uri = uri
            .build()
            .expect("scheme, authority and path were parsed before");
        let request = Request::from_parts(head, self.upload.clone());
        // Dropping either arm ends the exchange with the endpoint.
        tokio::select! {
            answered = self.forwarder.client.request(request) => Some(answered),
            () = self.activity.ceased(self.caller.limits.answer) => None,
        }
    }

    fn respond(&mut self, mut response: Response<Incoming>, lease: Lease) -> Response<Answer> {
        let protocol = response.headers().get(http::header::UPGRADE).cloned();
        strip_hops(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.switch(&mut response, protocol, &lease);
        }
        let (mut head, body) = response.into_parts();
        head.extensions = http::Extensions::new();
        head.version = Version::HTTP_11;
        Response::from_parts(head, Either::Left(Download::new(body, lease)))
    }

    /// The endpoint has changed the protocol: from here on bytes go to and fro.
    fn switch(&mut self, response: &mut Response<Incoming>, protocol: Option<HeaderValue>, lease: &Lease) {
        let Some(client) = self.upgrading.take() else {
            return;
        };
        let headers = response.headers_mut();
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(http::header::UPGRADE, protocol);
        }
        let endpoint = hyper::upgrade::on(response);
        let busy = lease.again();
        let caller = self.caller.clone();
        self.forwarder.tracker.spawn(async move {
            tunnel::carry(client, endpoint, &caller).await;
            drop(busy);
        });
    }
}

/// The system's words for what went wrong.
fn reason(error: &ClientError) -> String {
    match innermost_io(error) {
        Some(io) if io.kind() == io::ErrorKind::TimedOut => {
            format!("cannot be connected to within {} s", CONNECT_LIMIT.as_secs())
        }
        Some(io) => io.to_string().to_lowercase(),
        None => report(error),
    }
}

/// Whether the endpoint closed a connection before it answered anything.
fn is_lost(error: &ClientError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let closed = chain(error)
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(|cause| cause.is_incomplete_message() || cause.is_canceled() || cause.is_closed());
    let broken = innermost_io(error).is_some_and(|io| {
        matches!(
            io.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        )
    });
    closed || broken
}

fn innermost_io(error: &ClientError) -> Option<&io::Error> {
    chain(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .last()
}

fn chain(error: &ClientError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause: &&(dyn StdError + 'static)| {
        (*cause).source()
    })
}
