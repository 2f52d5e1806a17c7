//! The server: what it is made of, and the way of every request through it.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::{Reason, Status};
use flotilla_resources::Resources;
use futures::FutureExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::auth::{self, Attributes, ServiceAccountKeys, User};
use crate::body::Body;
use crate::call::{BoxError, Call, ReadBodyError};
use crate::inflight::{self, Class, InFlight, InFlightLimits};
use crate::list::RecentSnapshots;
use crate::logs::PodLogs;
use crate::metrics::NodeStats;
use crate::openapi::Documents;
use crate::path::{self, Target};
use crate::query::Query;
use crate::render::json_response;
use crate::snapshots::{self, Snapshots};
use crate::status::Failure;
use crate::streaming::NodeStreams;
use crate::{discovery, exposition, health, negotiate, resource};

/// What an API server is told at its start.
pub struct Options {
    /// Signs service accounts' tokens; without it there are none.
    pub service_account_keys: Option<ServiceAccountKeys>,
    /// `host:port` under which clients reach this server, for discovery.
    pub address: String,
    /// Cancelled when the server drains: watches end, and it is no longer ready.
    pub drain: CancellationToken,
    /// What the nodes have reported of themselves.
    pub stats: Arc<dyn NodeStats>,
    /// How much may be under way at once.
    pub in_flight: InFlightLimits,
    /// Writes the whole cluster to a file.
    pub snapshots: Arc<dyn Snapshots>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Whom the client's certificate names, if it has shown one.
    pub user: Option<User>,
    /// Where the connection comes from.
    pub remote: SocketAddr,
}

/// Answers the requests of the Kubernetes API. A clone is cheap and shares everything.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    resources: Resources,
    options: Options,
    logs: Arc<dyn PodLogs>,
    streams: Arc<dyn NodeStreams>,
    /// Connections that are no longer HTTP's.
    upgraded: TaskTracker,
    recent: RecentSnapshots,
    documents: Documents,
    in_flight: Arc<InFlight>,
}

impl ApiServer {
    /// A server over the shared write path.
    pub fn new(
        resources: Resources,
        options: Options,
        logs: Arc<dyn PodLogs>,
        streams: Arc<dyn NodeStreams>,
    ) -> Self {
        let (recent, documents) = (RecentSnapshots::default(), Documents::default());
        let in_flight = Arc::new(InFlight::new(options.in_flight));
        Self(Arc::new(Inner {
            resources,
            options,
            logs,
            streams,
            upgraded: TaskTracker::new(),
            recent,
            documents,
            in_flight,
        }))
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.0.resources
    }

    pub(crate) fn recent(&self) -> &RecentSnapshots {
        &self.0.recent
    }

    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.0.options.drain
    }

    pub(crate) fn logs(&self) -> &dyn PodLogs {
        &*self.0.logs
    }

    pub(crate) fn streams(&self) -> &Arc<dyn NodeStreams> {
        &self.0.streams
    }

    pub(crate) fn upgraded(&self) -> &TaskTracker {
        &self.0.upgraded
    }

    pub(crate) fn stats(&self) -> &dyn NodeStats {
        &*self.0.options.stats
    }

    pub(crate) fn account_keys(&self) -> Option<&ServiceAccountKeys> {
        self.0.options.service_account_keys.as_ref()
    }

    /// Answers any request that is not gRPC; failures and panics are answers too.
    ///
    /// Dropping the future gives the request up. A write that has been proposed by then may still happen.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let span = tracing::debug_span!("request", method = %request.method(), path = request.uri().path(),
            remote = %peer.remote, user = tracing::field::Empty);
        self.0.recent.forget_old();
        let answer = AssertUnwindSafe(self.answer(request, peer))
            .catch_unwind()
            .instrument(span.clone())
            .await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => failure.into_response(),
            Err(_) => Failure::from(Status::internal("the request made the server panic")).into_response(),
        };
        tracing::debug!(parent: &span, code = response.status().as_u16(), "answered");
        response
    }

    async fn answer<B>(&self, request: Request<B>, peer: Peer) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let target = path::parse(parts.uri.path());
        let class = inflight::class(&parts.method, &target, query.flag("watch"));
        let permit = class.map(|class| self.0.in_flight.enter(class)).transpose()?;
        let bearer = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let user = self.authenticate(bearer, peer.user).await?;
        let user = auth::impersonated(user, &parts.headers)?;
        tracing::Span::current().record("user", user.name.as_str());
        let mut call = Call {
            user,
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query,
            raw_query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            body: BoxBody::new(body.map_err(|error| ReadBodyError(error.into()))),
            upgrade,
            in_flight: Arc::clone(&self.0.in_flight),
            room: None,
        };
        let response = match target {
            Target::Resource(path) => resource::respond(self, &mut call, &path).await,
            Target::Snapshot => self.snapshot(&call).await,
            target => self.document(&call, &target),
        }?;
        // Others are done once their answer is known: it is made from what they hold while it is sent.
        Ok(match class {
            Some(Class::LongRunning) => response.map(|body| body.holding(permit)),
            _ => response,
        })
    }

    /// Whom the request comes from: a certificate goes before a token; a bad token is refused, none is anonymous.
    async fn authenticate(
        &self,
        authorization: Option<&str>,
        certified: Option<User>,
    ) -> Result<User, Status> {
        if let Some(user) = certified {
            return Ok(user.authenticated());
        }
        let Some(authorization) = authorization else {
            return Ok(User::anonymous());
        };
        let token = authorization
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token
            .map(|(_, token)| token.trim())
            .ok_or_else(Status::unauthorized)?;
        self.user_of_token(token).await?.ok_or_else(Status::unauthorized)
    }

    /// The service account of a token, if the token is valid and what it is bound to still exists.
    pub(crate) async fn user_of_token(&self, token: &str) -> Result<Option<User>, Status> {
        let Some(claims) = self.account_keys().and_then(|keys| keys.verify(token)) else {
            return Ok(None);
        };
        let bound = &claims.kubernetes;
        let account = self
            .resources()
            .get_typed::<ServiceAccount>(&bound.namespace, &bound.serviceaccount.name);
        if present(account.await.map(|account| account.metadata.uid))?.as_deref()
            != Some(&bound.serviceaccount.uid)
        {
            return Ok(None);
        }
        if let Some(pod) = &bound.pod {
            let found = self.resources().get_typed::<Pod>(&bound.namespace, &pod.name);
            if present(found.await.map(|pod| pod.metadata.uid))?.as_deref() != Some(&pod.uid) {
                return Ok(None);
            }
        }
        Ok(Some(claims.user()))
    }

    /// The whole cluster as a file.
    async fn snapshot(&self, call: &Call) -> Result<Response<Body>, Failure> {
        let verb = call.method.as_str().to_lowercase();
        auth::check(&call.user, &Attributes::of_path(&verb, &call.path))?;
        match call.method {
            Method::GET => Ok(snapshots::respond(&*self.0.options.snapshots).await?),
            _ => Err(Status::method_not_allowed().into()),
        }
    }

    /// Answers what does not concern objects.
    fn document(&self, call: &Call, target: &Target) -> Result<Response<Body>, Failure> {
        let verb = call.method.as_str().to_lowercase();
        auth::check(&call.user, &Attributes::of_path(&verb, &call.path))?;
        if call.method != Method::GET {
            return Err(Status::method_not_allowed().into());
        }
        let found = match target {
            Target::Root => Some(root()),
            Target::Version => Some(discovery::version()),
            Target::CoreVersions | Target::Groups => {
                return Ok(self.groups(call, *target == Target::CoreVersions));
            }
            Target::Group(group) => discovery::group(group),
            Target::GroupVersion { group, version } => discovery::resources(group, version),
            Target::OpenApiV2 => return Ok(self.0.documents.v2(call)),
            Target::OpenApiV3Index => return Ok(self.0.documents.v3_index()),
            Target::OpenApiV3 { group, version } => return Ok(self.0.documents.v3(call, group, version)?),
            Target::Health { probe, check } => {
                let replica = self.resources().replica();
                let draining = self.drain().is_cancelled();
                let answer = health::respond(replica, probe, check.as_deref(), &call.query, draining);
                return Ok(answer.ok_or_else(Status::no_such_path)?);
            }
            Target::Metrics => {
                return Ok(exposition::respond(self.resources().replica(), &self.0.in_flight));
            }
            Target::Resource(_) | Target::Snapshot | Target::Unknown => None,
        };
        let found = found.ok_or_else(Status::no_such_path)?;
        Ok(json_response(StatusCode::OK, found.to_string()))
    }

    /// `/api` and `/apis`, aggregated for clients that know that form.
    fn groups(&self, call: &Call, core: bool) -> Response<Body> {
        let Some(version) = negotiate::aggregated_discovery(call.accept()) else {
            let plain = if core {
                discovery::core_versions(&self.0.options.address)
            } else {
                discovery::group_list()
            };
            return json_response(StatusCode::OK, plain.to_string());
        };
        let mut response = json_response(StatusCode::OK, discovery::aggregated(version, core).to_string());
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

/// Turns "not found" into nothing.
fn present<T>(found: Result<Option<T>, Status>) -> Result<Option<T>, Status> {
    match found {
        Err(status) if status.reason == Reason::NotFound => Ok(None),
        other => other,
    }
}

/// `/`: the paths that there are.
fn root() -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for path in flotilla_api::openapi::v3_index() {
        if let Some((group, _)) = path.rsplit_once('/').filter(|(group, _)| *group != "api") {
            paths.push(format!("/{group}"));
        }
        paths.push(format!("/{path}"));
    }
    let others = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    json!({"paths": paths})
}
