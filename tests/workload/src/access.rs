//! How the servers of a cluster are reached, and as whom.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use flotilla_pki::SERVER_NAME;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_yaml::Value;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A server on the same machine answers within microseconds, or does not.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// One server, and how to open a connection to it: blocking, from whatever network it is reached.
#[derive(Clone)]
pub struct Server {
    /// For messages.
    pub name: String,
    /// Opens a connection.
    pub dial: Arc<dyn Fn() -> io::Result<TcpStream> + Send + Sync>,
}

impl Server {
    /// A server at an address that this process reaches.
    pub fn at(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            dial: Arc::new(move || dial(address)),
        }
    }
}

/// Connects within a second, or fails.
pub fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, CONNECT_LIMIT)
}

/// The administrator's credentials.
#[derive(Clone)]
pub struct Access {
    tls: Arc<ClientConfig>,
}

/// Why a kubeconfig gives no access.
#[derive(Debug, thiserror::Error)]
pub enum ReadAccessError {
    /// It cannot be read.
    #[error("cannot read the kubeconfig")]
    Read(#[source] io::Error),
    /// It is not YAML.
    #[error("the kubeconfig is not YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// There is no such field, or it is not PEM in base64.
    #[error("the kubeconfig has no usable {0}")]
    Field(&'static str),
    /// TLS refuses what it holds.
    #[error("the certificates of the kubeconfig are not accepted")]
    Tls(#[source] rustls::Error),
}

impl Access {
    /// The first cluster and user of a kubeconfig. Its server address is not used.
    pub fn read(kubeconfig: &Path) -> Result<Self, ReadAccessError> {
        let text = std::fs::read_to_string(kubeconfig).map_err(ReadAccessError::Read)?;
        let config: Value = serde_yaml::from_str(&text).map_err(ReadAccessError::Yaml)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let mut roots = RootCertStore::empty();
        for certificate in certificates(cluster, "certificate-authority-data")? {
            roots.add(certificate).map_err(ReadAccessError::Tls)?;
        }
        let key = pem(user, "client-key-data")?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|_| ReadAccessError::Field("client-key-data"))?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ReadAccessError::Tls)?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(user, "client-certificate-data")?, key)
            .map_err(ReadAccessError::Tls)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Opens a connection to a server, which must be one of the cluster's.
    pub(crate) async fn connect(&self, server: &Server) -> io::Result<TlsStream<tokio::net::TcpStream>> {
        let dial = Arc::clone(&server.dial);
        let stream = tokio::task::spawn_blocking(move || dial())
            .await
            .map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let name = ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name");
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }
}

fn pem(object: &Value, field: &'static str) -> Result<Vec<u8>, ReadAccessError> {
    let text = object[field].as_str().ok_or(ReadAccessError::Field(field))?;
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).map_err(|_| ReadAccessError::Field(field))
}

fn certificates(
    object: &Value,
    field: &'static str,
) -> Result<Vec<CertificateDer<'static>>, ReadAccessError> {
    CertificateDer::pem_slice_iter(&pem(object, field)?)
        .collect::<Result<_, _>>()
        .map_err(|_| ReadAccessError::Field(field))
}
