//! TLS settings of both sides and the gRPC channel over them.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{Identity, SERVER_NAME};

/// A peer that answers no keep-alive for this long is taken for dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not PEM.
    #[error("a certificate or key is not valid PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The certificate and key do not fit or are not accepted.
    #[error("the certificate or its key is not accepted")]
    Rustls(#[source] rustls::Error),
    /// The authority cannot be a trust anchor.
    #[error("the cluster's certificate authority cannot verify clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// How a node, server or tool dials a server: the cluster's CA, and its own certificate.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Trusts the identity's CA and shows its certificate.
    pub fn with_identity(identity: &Identity) -> Result<Self, TlsError> {
        let config = client_builder(&identity.ca_pem)?
            .with_client_auth_cert(
                certificates(&identity.certificate_pem)?,
                private_key(&identity.key_pem)?,
            )
            .map_err(TlsError::Rustls)?;
        Ok(Self::new(config))
    }

    /// Trusts the CA and shows no certificate; good for joining only.
    pub fn anonymous(ca_pem: &str) -> Result<Self, TlsError> {
        Ok(Self::new(client_builder(ca_pem)?.with_no_client_auth()))
    }

    fn new(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            config: Arc::new(config),
        }
    }

    /// Connects to `address` (`host:port`) and verifies the server by [`SERVER_NAME`].
    pub async fn connect(&self, address: &str) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name");
        TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await
    }
}

/// A lazy gRPC channel to the server at `address` (`host:port`). It reconnects by itself.
pub fn channel(address: &str, tls: &ClientTls) -> Channel {
    let target = address.to_owned();
    let tls = tls.clone();
    // The connector does TLS itself, hence the scheme.
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap_or_else(|_| Endpoint::from_static("http://invalid.address"))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let (target, tls) = (target.clone(), tls.clone());
            async move { tls.connect(&target).await.map(TokioIo::new) }
        }))
}

/// What a server listens with: its chain (the CA included, so that a joining machine can check its pin), client
/// certificates asked for but not required, HTTP/2 and HTTP/1.1.
pub fn server_tls(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&identity.ca_pem)?), provider())
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Verifier)?;
    let mut chain = certificates(&identity.certificate_pem)?;
    chain.extend(certificates(&identity.ca_pem)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private_key(&identity.key_pem)?)
        .map_err(TlsError::Rustls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn client_builder(
    ca_pem: &str,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .with_root_certificates(roots(ca_pem)?))
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).map_err(TlsError::Rustls)?;
    }
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(TlsError::Pem)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(TlsError::Pem)
}
