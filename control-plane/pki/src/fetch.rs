//! Gets a cluster's CA from a server that is not trusted yet, and checks it against the pin of a join token.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{SERVER_NAME, tls::provider};

/// Why the CA could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchCaError {
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The server that was dialled.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server answered, but is not of the token's cluster.
    #[error(
        "the server at {address} is not of the cluster that the join token names (another CA, or something in between)"
    )]
    Pin {
        /// The server that was dialled.
        address: String,
        /// What TLS said.
        source: io::Error,
    },
}

/// A server that is there answers within this time. One that is frozen, or behind a filter, never does.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Connects to `address` (`host:port`) and returns the CA in PEM, if its SHA-256 is `pin` and it signed the
/// server's certificate.
pub async fn fetch_ca(address: &str, pin: [u8; 32]) -> Result<String, FetchCaError> {
    let fetched = timeout(ANSWER_LIMIT, fetch(address, pin)).await;
    let fetched = fetched.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    fetched.map_err(|source| {
        let address = address.to_owned();
        if is_refusal(&source) {
            FetchCaError::Pin { address, source }
        } else {
            FetchCaError::Connect { address, source }
        }
    })
}

/// What TLS itself finds wrong is wrong for good; all else, such as a connection that breaks while the server
/// starts or stops, is not.
fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Error>())
}

async fn fetch(address: &str, pin: [u8; 32]) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let verifier = PinnedCa {
        pin,
        provider: provider(),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let ca = chain.iter().find(|certificate| fingerprint(certificate) == pin);
    let ca = ca.ok_or_else(|| io::Error::other(Error::General(NOT_PINNED.to_owned())))?;
    Ok(pem(ca))
}

const NOT_PINNED: &str = "no certificate of the chain has the pinned hash";

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Trusts exactly the CA with the pinned hash, which the server must send in its chain.
#[derive(Debug)]
struct PinnedCa {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.pin)
            .ok_or_else(|| Error::General(NOT_PINNED.to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{ClientTls, ClusterCa, Subject, server_tls};

    async fn serve_once(ca: &ClusterCa) -> (SocketAddr, impl Future<Output = ()>) {
        let subject = Subject::Server {
            name: "s".into(),
            addresses: vec![],
            names: vec![],
        };
        let tls = server_tls(&ca.issue(&subject).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        };
        (address, serve)
    }

    #[tokio::test]
    async fn the_pinned_ca_is_fetched() {
        let ca = ClusterCa::generate().unwrap();
        let (address, serve) = serve_once(&ca).await;
        let address = address.to_string();
        let (fetched, ()) = tokio::join!(fetch_ca(&address, ca.fingerprint()), serve);
        let fetched = fetched.unwrap();
        assert_eq!(
            fetched.replace(['\r', '\n'], ""),
            ca.certificate_pem().replace(['\r', '\n'], "")
        );
        ClientTls::anonymous(&fetched).unwrap();
    }

    /// It may be the right one, which is just starting or stopping.
    #[tokio::test]
    async fn a_server_that_hangs_up_is_no_other_cluster() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hang_up = async { drop(listener.accept().await.unwrap()) };
        let (fetched, ()) = tokio::join!(fetch_ca(&address, [0; 32]), hang_up);
        assert!(matches!(fetched.unwrap_err(), FetchCaError::Connect { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let error = fetch_ca(&address, [0; 32]).await.unwrap_err();
        assert!(
            matches!(error, FetchCaError::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut)
        );
    }

    #[tokio::test]
    async fn another_cluster_is_refused() {
        let ca = ClusterCa::generate().unwrap();
        let (address, serve) = serve_once(&ca).await;
        let address = address.to_string();
        let (fetched, ()) = tokio::join!(fetch_ca(&address, [0; 32]), serve);
        assert!(matches!(fetched.unwrap_err(), FetchCaError::Pin { .. }));
    }
}
