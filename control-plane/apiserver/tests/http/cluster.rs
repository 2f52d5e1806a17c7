//! A single server to send requests to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::{Reason, Status};
use flotilla_apiserver::{
    ApiServer, Body, InFlightLimits, LogOptions, NodeStats, NodeStreams, Options, Peer, PodLogs,
    ServiceAccountKeys, Snapshots, User,
};
use flotilla_raft::Replica;
use flotilla_resources::Resources;
use flotilla_tunnel::request::{self, Outcome, channel};
use flotilla_tunnel::{Ends, Frame};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Pod;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An API server over a replica of its own.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) replica: Replica,
    pub(crate) drain: CancellationToken,
    pub(crate) reports: Arc<Reports>,
    _folder: tempfile::TempDir,
}

/// What nodes have reported, as the test says.
#[derive(Default)]
pub(crate) struct Reports(Mutex<BTreeMap<String, Bytes>>);

impl Reports {
    /// A node reports this.
    pub(crate) fn keep(&self, node: &str, summary: &Value) {
        let json = summary.to_string().into();
        self.0.lock().unwrap().insert(node.to_owned(), json);
    }
}

impl NodeStats for Reports {
    fn newest(&self, node: &str) -> Option<Bytes> {
        self.0.lock().unwrap().get(node).cloned()
    }

    fn all(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().values().cloned().collect()
    }
}

/// A file that breaks off.
struct NoSnapshots;

#[async_trait]
impl Snapshots for NoSnapshots {
    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let start = Bytes::from_static(b"FLTBAK");
        Ok(futures::stream::iter([Ok(start), Err(Status::internal("cut"))]).boxed())
    }
}

/// Answers every request for a log with what it was asked for.
struct EchoLogs;

#[async_trait]
impl PodLogs for EchoLogs {
    async fn open(
        &self,
        _: &Pod,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let line = format!("{} tail={:?}\n", options.container, options.tail_lines);
        Ok(futures::stream::iter([Ok(line.into()), Err(Status::internal("cut"))]).boxed())
    }
}

/// The one node, `node-1`: its commands and its ports send back what they get. Commands end with code 3.
struct EchoNode(TaskTracker);

#[async_trait]
impl NodeStreams for EchoNode {
    fn nodes(&self) -> Vec<String> {
        vec!["node-1".to_owned()]
    }

    async fn open(&self, node: &str, kind: &str, request_json: Bytes) -> Result<Ends, Status> {
        if node != "node-1" {
            return Err(Status::unavailable(format!(
                "node {node:?} has no connection to this server"
            )));
        }
        let (ends, far) = flotilla_tunnel::pair();
        match kind {
            request::PORT_FORWARD => {
                let wanted: request::PortForwardRequest = serde_json::from_slice(&request_json).unwrap();
                if wanted.port == 81 {
                    let message = "error forwarding port 81 to pod web: refused";
                    return Err(Status::new(Reason::InternalError, message));
                }
                self.0.spawn(echo(far, request::CONNECTION, None));
            }
            request::GONE_PODS => {
                let gone = request::GonePod {
                    pod: "gone".to_owned(),
                    uid: "uid-gone".to_owned(),
                    containers: vec!["a".to_owned()],
                    ..Default::default()
                };
                let json = serde_json::to_vec(&[gone]).unwrap();
                far.outgoing
                    .send(Frame::data(request::PIECES, json))
                    .await
                    .unwrap();
                far.outgoing.send(Frame::close(request::PIECES)).await.unwrap();
            }
            request::GONE_LOG => {
                far.outgoing
                    .send(Frame::data(request::PIECES, request_json))
                    .await
                    .unwrap();
                far.outgoing.send(Frame::close(request::PIECES)).await.unwrap();
            }
            _ => {
                let outcome = serde_json::to_vec(&Outcome::Exited(3)).unwrap();
                self.0.spawn(echo(far, channel::STDOUT, Some(outcome)));
            }
        }
        Ok(ends)
    }
}

async fn echo(mut ends: Ends, back: u8, outcome: Option<Vec<u8>>) {
    while let Some(frame) = ends.incoming.recv().await {
        let back = if frame.channel == channel::RESIZE {
            channel::STDERR
        } else {
            back
        };
        let (data, close) = (frame.data, frame.close);
        if ends
            .outgoing
            .send(Frame {
                channel: back,
                data,
                close,
            })
            .await
            .is_err()
            || close
        {
            break;
        }
    }
    if let Some(outcome) = outcome {
        ends.outgoing
            .send(Frame::data(channel::OUTCOME, outcome))
            .await
            .ok();
    }
}

/// An answer that has been read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    /// The message of a failure.
    #[track_caller]
    pub(crate) fn refused(self, code: u16) -> String {
        let body = self.expect(code);
        assert_eq!(body["kind"], "Status");
        assert_eq!(body["code"], code);
        body["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Cluster {
    /// A cluster with the namespace `default`.
    pub(crate) async fn start() -> Self {
        Self::limited_to(InFlightLimits::default()).await
    }

    /// The same with other limits of requests.
    pub(crate) async fn limited_to(in_flight: InFlightLimits) -> Self {
        Self::with(in_flight, flotilla_raft::Limits::default()).await
    }

    /// The same with other limits of requests and of the store.
    pub(crate) async fn with(in_flight: InFlightLimits, limits: flotilla_raft::Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connector: flotilla_raft::PeerConnector =
            Arc::new(|_| tonic::transport::Channel::from_static("http://127.0.0.1:1").connect_lazy());
        let options = flotilla_raft::Options {
            id: 1,
            name: "server-1".into(),
            address: "127.0.0.1:1".into(),
            data_dir: folder.path().to_owned(),
            platform: flotilla_raft::Platform::real(connector),
            timing: flotilla_raft::Timing::default(),
            limits,
        };
        let replica = Replica::open(options).await.unwrap();
        replica.bootstrap().await.unwrap();
        let (resources, _) = Resources::new(replica.clone(), flotilla_resources::Options::default());
        let key =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let drain = CancellationToken::new();
        let reports = Arc::<Reports>::default();
        let options = Options {
            service_account_keys: Some(ServiceAccountKeys::from_pkcs8_der(key.as_ref()).unwrap()),
            address: "127.0.0.1:6443".into(),
            drain: drain.clone(),
            stats: reports.clone(),
            in_flight,
            snapshots: Arc::new(NoSnapshots),
        };
        let server = ApiServer::new(
            resources,
            options,
            Arc::new(EchoLogs),
            Arc::new(EchoNode(TaskTracker::new())),
        );
        let cluster = Self {
            server,
            replica,
            drain,
            reports,
            _folder: folder,
        };
        cluster
            .create("/api/v1/namespaces", json!({"metadata": {"name": "default"}}))
            .await;
        cluster
    }

    /// Sends a request as an administrator and returns the answer's head.
    pub(crate) async fn open(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Body> {
        let admin = User {
            name: "admin".into(),
            groups: vec!["system:masters".into()],
        };
        self.open_as(Some(admin), method, uri, headers, body).await
    }

    pub(crate) async fn open_as(
        &self,
        user: Option<User>,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.server.handle(request, Peer { user, remote }).await
    }

    /// Posts a body of any kind as an administrator.
    pub(crate) async fn post_body<B>(&self, uri: &str, body: B) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
    {
        let user = User {
            name: "admin".into(),
            groups: vec!["system:masters".into()],
        };
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let request = Request::post(uri).body(body).unwrap();
        let peer = Peer {
            user: Some(user),
            remote,
        };
        self.server.handle(request, peer).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        read(self.open(method, uri, headers, body).await).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[], "").await
    }

    /// Creates an object that must be accepted.
    pub(crate) async fn create(&self, uri: &str, object: Value) -> Value {
        self.send(Method::POST, uri, &[], &object.to_string())
            .await
            .expect(201)
    }

    /// Creates a config map in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}});
        self.create("/api/v1/namespaces/default/configmaps", object).await
    }

    pub(crate) async fn merge(&self, uri: &str, patch: Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.send(Method::PATCH, uri, &headers, &patch.to_string()).await
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = limited(body.collect()).await.unwrap().to_bytes();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Awaits what must happen soon.
pub(crate) async fn limited<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it takes too long")
}

/// A deployment's body.
pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                         "spec": {"containers": [{"name": "web", "image": "demo:v1"}]}},
        },
    })
}

/// A pod's body.
pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "demo:v1"}]}})
}
