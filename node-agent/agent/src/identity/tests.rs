//! Joining and renewing over real TLS.

use std::time::SystemTime;

use flotilla_pki::{ClusterCa, Subject, server_tls};
use flotilla_proto::node::nodes_server::{Nodes, NodesServer};
use flotilla_proto::node::{
    AgentMessage, DiskReport, DiskReported, FollowEvent, FollowRequest, JoinResponse, RenewResponse,
    ServerMessage, StreamFrame, TokenRequest, TokenResponse,
};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &str = "id.secret";

struct Authority {
    ca: Arc<ClusterCa>,
}

#[tonic::async_trait]
impl Nodes for Authority {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        if request.token != SECRET {
            return Err(Status::unauthenticated("the token is not valid"));
        }
        let certificate = self
            .ca
            .sign(&request.csr_der, &Subject::Node(request.node_name))
            .unwrap();
        Ok(Response::new(JoinResponse {
            certificate_pem: certificate,
            ca_pem: self.ca.certificate_pem().to_owned(),
            servers: vec!["10.0.0.9:6443".to_owned()],
            ..JoinResponse::default()
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let subject = Subject::Node("agent-1".to_owned());
        Ok(Response::new(RenewResponse {
            certificate_pem: self.ca.sign(&request.into_inner().csr_der, &subject).unwrap(),
            ca_pem: self.ca.certificate_pem().to_owned(),
        }))
    }

    type BlobStream = futures::stream::BoxStream<'static, Result<flotilla_proto::node::BlobChunk, Status>>;

    async fn blob(
        &self,
        _: Request<flotilla_proto::node::BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        Err(Status::not_found("there is no other node"))
    }

    async fn disk(&self, _: Request<DiskReport>) -> Result<Response<DiskReported>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn token(&self, _: Request<TokenRequest>) -> Result<Response<TokenResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type StreamStream = ReceiverStream<Result<StreamFrame, Status>>;

    async fn stream(
        &self,
        _: Request<Streaming<StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type FollowStream = ReceiverStream<Result<FollowEvent, Status>>;

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

/// A server with a CA of its own; returns its address.
async fn serve(ca: Arc<ClusterCa>, tracker: &TaskTracker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let subject = Subject::Server {
        name: "server-1".to_owned(),
        addresses: vec![address.ip()],
        names: Vec::new(),
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(server_tls(&ca.issue(&subject).unwrap()).unwrap());
    let (streams, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(4);
    let pumps = tracker.clone();
    tracker.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that only looks at the certificate hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let (near, mut far) = tokio::io::duplex(1 << 16);
            pumps.spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
            if streams.send(Ok(near)).await.is_err() {
                return;
            }
        }
    });
    let service = NodesServer::new(Authority { ca });
    let server = tonic::transport::Server::builder().add_service(service);
    tracker.spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    address.to_string()
}

struct Place {
    folder: tempfile::TempDir,
    directory: Directory,
    ca: Arc<ClusterCa>,
    _tracker: TaskTracker,
}

impl Place {
    async fn new() -> Self {
        let (folder, tracker) = (tempfile::tempdir().unwrap(), TaskTracker::new());
        let ca = Arc::new(ClusterCa::generate().unwrap());
        let address = serve(ca.clone(), &tracker).await;
        let directory = Directory::open(folder.path().join("servers.json"), &[address]);
        Self {
            folder,
            directory,
            ca,
            _tracker: tracker,
        }
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    async fn obtain(&self, token: Option<&str>) -> Result<Identity, JoinError> {
        let folder = self.pki();
        let obtained = obtain(&folder, token, "agent-1", &self.directory);
        tokio::time::timeout(LIMIT, obtained)
            .await
            .expect("joining takes too long")
    }

    fn token(&self, secret: &str, pin: [u8; 32]) -> String {
        JoinToken {
            ca_fingerprint: pin,
            id: "id".to_owned(),
            secret: secret.to_owned(),
        }
        .to_string()
    }
}

#[tokio::test]
async fn a_token_is_traded_for_a_certificate_once() {
    let place = Place::new().await;
    let token = place.token("secret", place.ca.fingerprint());
    let identity = place.obtain(Some(&token)).await.unwrap();
    assert_eq!(identity.peer().unwrap().node_name(), Some("agent-1"));
    assert_eq!(
        place.directory.servers().borrow().iter().collect::<Vec<_>>(),
        ["10.0.0.9:6443"]
    );
    let again = place.obtain(None).await.unwrap();
    assert_eq!(again.certificate_pem, identity.certificate_pem);
}

#[tokio::test]
async fn another_cluster_never_sees_the_secret() {
    let place = Place::new().await;
    let error = place
        .obtain(Some(&place.token("secret", [7; 32])))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, JoinError::Ca(FetchCaError::Pin { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refused_token_is_an_error_at_once() {
    let place = Place::new().await;
    let error = place
        .obtain(Some(&place.token("wrong", place.ca.fingerprint())))
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the cluster refuses this node: the token is not valid"
    );
}

#[tokio::test]
async fn a_node_without_certificate_and_token_says_so() {
    let place = Place::new().await;
    assert!(matches!(place.obtain(None).await, Err(JoinError::NoToken)));
    assert!(matches!(
        place.obtain(Some("nonsense")).await,
        Err(JoinError::Token(_))
    ));
}

#[tokio::test]
async fn an_old_certificate_is_renewed_and_a_young_one_is_kept() {
    let place = Place::new().await;
    let servers: Vec<String> = place.directory.servers().borrow().iter().cloned().collect();
    let token = place.token("secret", place.ca.fingerprint());
    let first = place.obtain(Some(&token)).await.unwrap();
    place.directory.update(&servers);
    let (connectors, mut renewed) = watch::channel(connector(&first).unwrap());
    renew_if_due(&place.pki(), &place.directory, &connectors)
        .await
        .unwrap();
    assert!(!renewed.has_changed().unwrap());
    let file = std::fs::File::options()
        .write(true)
        .open(place.pki().join(flotilla_pki::IDENTITY_FILE))
        .unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    renew_if_due(&place.pki(), &place.directory, &connectors)
        .await
        .unwrap();
    assert!(renewed.has_changed().unwrap());
    renewed.borrow_and_update();
    let second = Identity::load(&place.pki()).unwrap().unwrap();
    assert_ne!(second.certificate_pem, first.certificate_pem);
    assert_ne!(second.key_pem, first.key_pem);
}
