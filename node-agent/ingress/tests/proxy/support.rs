//! Endpoints, clients and a proxy between them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flotilla_api::ingresses;
use flotilla_ingress::{Endpoints, Limits, Listening, Options, Port, Proxy, Reachable, SharedRules};
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LIMIT: Duration = Duration::from_secs(30);

/// Awaits something, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it happens within the limit")
}

/// Looks at a condition until it holds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    within(async {
        while !holds().await {
            looks.tick().await;
        }
    })
    .await;
}

#[derive(Default)]
struct Services {
    version: AtomicU64,
    known: Mutex<HashMap<String, Vec<SocketAddr>>>,
}

impl Endpoints for Services {
    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn resolve(&self, namespace: &str, service: &str, port: &Port) -> Reachable {
        assert_eq!((namespace, port), ("shop", &Port::Number(80)));
        match self.known.lock().unwrap().get(service) {
            Some(addresses) => Reachable::At(addresses.clone()),
            None => Reachable::NoService,
        }
    }
}

/// A proxy, and what it goes by.
pub(crate) struct World {
    pub(crate) rules: SharedRules,
    services: Arc<Services>,
    listening: watch::Receiver<Listening>,
    pub(crate) shutdown: CancellationToken,
    /// The proxy's tasks.
    tracker: TaskTracker,
    /// Those of clients and endpoints.
    pub(crate) others: TaskTracker,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Some(0), Some(0))
    }

    pub(crate) fn on(http_port: Option<u16>, https_port: Option<u16>) -> Self {
        Self::within(http_port, https_port, Limits::default())
    }

    /// A proxy for plain requests with other limits.
    pub(crate) fn with(limits: Limits) -> Self {
        Self::within(Some(0), None, limits)
    }

    fn within(http_port: Option<u16>, https_port: Option<u16>, limits: Limits) -> Self {
        let rules = SharedRules::default();
        rules.class(&ingresses::flotilla_class());
        rules.classes_synced();
        rules.ingresses_synced();
        rules.secrets_synced();
        let (services, tracker) = (Arc::new(Services::default()), TaskTracker::new());
        let options = Options {
            http_port,
            https_port,
        };
        let proxy = Proxy::new(options, rules.clone(), services.clone(), tracker.clone());
        let proxy = proxy.with_limits(limits);
        let (listening, shutdown) = (proxy.listening(), CancellationToken::new());
        tracker.spawn(proxy.run(shutdown.clone()));
        Self {
            rules,
            services,
            listening,
            shutdown,
            tracker,
            others: TaskTracker::new(),
        }
    }

    /// These are the endpoints of a service from now on.
    pub(crate) fn serve(&self, service: &str, addresses: &[SocketAddr]) {
        let mut known = self.services.known.lock().unwrap();
        known.insert(service.to_owned(), addresses.to_vec());
        self.services.version.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.clone()
    }

    /// The port for plain requests, once it is open.
    pub(crate) async fn http(&self) -> u16 {
        let mut listening = self.listening();
        let open = within(listening.wait_for(|now| now.http.is_some()))
            .await
            .unwrap();
        open.http.unwrap()
    }

    /// The port for TLS, once it is open.
    pub(crate) async fn https(&self) -> u16 {
        let mut listening = self.listening();
        let open = within(listening.wait_for(|now| now.https.is_some()))
            .await
            .unwrap();
        open.https.unwrap()
    }

    /// Stops the proxy; all its tasks end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        within(self.tracker.wait()).await;
    }
}

/// An ingress for a host, of our class.
pub(crate) fn ingress(host: &str, paths: &[(&str, &str)], fields: &Value) -> Ingress {
    let path = |(path, service): &(&str, &str)| {
        let backend = json!({"service": {"name": service, "port": {"number": 80}}});
        json!({"pathType": "Prefix", "path": path, "backend": backend})
    };
    let paths: Vec<Value> = paths.iter().map(path).collect();
    let mut spec = json!({
        "ingressClassName": ingresses::CLASS, "rules": [{"host": host, "http": {"paths": paths}}],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let metadata = json!({"namespace": "shop", "name": "front", "creationTimestamp": "2026-01-01T00:00:00Z"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A secret with a new certificate, and that certificate.
pub(crate) fn secret(name: &str) -> (Secret, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([format!("{name}.test")]).unwrap();
    let mut secret = Secret {
        type_: Some(ingresses::TLS_SECRET_TYPE.to_owned()),
        ..Secret::default()
    };
    secret.metadata.namespace = Some("shop".to_owned());
    secret.metadata.name = Some(name.to_owned());
    let file = |name: &str, text: String| (name.to_owned(), ByteString(text.into_bytes()));
    secret.data = Some(
        [
            file("tls.crt", made.cert.pem()),
            file("tls.key", made.signing_key.serialize_pem()),
        ]
        .into(),
    );
    (secret, made.cert.der().to_vec())
}

/// An address at which nothing listens.
pub(crate) async fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A server that says what it was asked, and echoes bodies at `/echo`.
pub(crate) async fn endpoint(world: &World, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), world.others.clone());
    world.others.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(name, request)) });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tasks.spawn(async move { drop(connection.await) });
        }
    });
    address
}

fn answer(name: &str, request: Request<Incoming>) -> Response<Either<Incoming, Full<Bytes>>> {
    let response = Response::builder()
        .header("x-endpoint", name)
        .header("connection", "x-hop")
        .header("x-hop", "1");
    if request.uri().path() == "/echo" {
        return response.body(Either::Left(request.into_body())).unwrap();
    }
    let mut lines = vec![format!("{} {}", request.method(), request.uri())];
    let headers = request.headers().iter();
    lines.extend(headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    response
        .body(Either::Right(Full::from(lines.join("\n"))))
        .unwrap()
}

/// A server that answers the first request of each connection with these bytes and closes at the second. Counts them.
pub(crate) async fn raw_endpoint(world: &World, answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (tasks, counted) = (world.others.clone(), count.clone());
    world.others.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tasks.spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.unwrap() > 0 {
                    counted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    (address, count)
}

/// A WebSocket server that sends every text back with its path before it.
pub(crate) async fn websocket_endpoint(world: &World) -> SocketAddr {
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    world.others.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut path = String::new();
        let note = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if let Ok(text) = message.to_text().map(str::to_owned)
                && message.is_text()
            {
                socket
                    .send(Message::text(format!("{path}: {text}")))
                    .await
                    .unwrap();
            }
        }
    });
    address
}

/// A connection over which requests can be sent.
pub(crate) async fn connect<B>(world: &World, port: u16) -> http1::SendRequest<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    world.others.spawn(async move { drop(connection.await) });
    sender
}

/// Sends one request; its answer, whole.
pub(crate) async fn send(port: u16, request: Request<Full<Bytes>>) -> (http::response::Parts, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let asking = async {
        let response = sender.send_request(request).await.unwrap();
        drop(sender);
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, String::from_utf8(body.to_vec()).unwrap())
    };
    let (answer, _) = within(async { tokio::join!(asking, connection) }).await;
    answer
}

/// An HTTP/2 connection.
pub(crate) async fn connect_h2(
    world: &World,
    port: u16,
    name: &'static str,
) -> http2::SendRequest<Full<Bytes>> {
    let stream = tls(port, name, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = http2::handshake(Tasks(world.others.clone()), TokioIo::new(stream))
        .await
        .unwrap();
    world.others.spawn(async move { drop(connection.await) });
    sender
}

/// The certificate that is shown for a name, in DER.
pub(crate) async fn certificate(_: &World, port: u16, name: &'static str) -> Vec<u8> {
    let stream = tls(port, name, &[b"http/1.1"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn tls(port: u16, name: &'static str, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    within(connector.connect(ServerName::try_from(name).unwrap(), stream))
        .await
        .unwrap()
}

#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// The tests look at the certificate themselves.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
