//! Which certificate is shown to whom: by the name that the client asks for, else one that is made here.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use flotilla_report::report;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, server};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::live::Live;

/// What a client sees whose name no ingress has a certificate for.
const SELF_SIGNED_NAME: &str = "ingress.flotilla.local";

/// Why a secret's certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("tls.crt is not a PEM certificate")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    #[error("tls.crt holds no certificate")]
    Empty,
    #[error("tls.key is not a PEM private key")]
    Key(#[source] rustls_pki_types::pem::Error),
    #[error("certificate and key do not fit each other, or are of a kind that is not supported")]
    Unfit(#[source] rustls::Error),
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    #[error("cannot set TLS up")]
    Rustls(#[from] rustls::Error),
}

/// Reads a certificate chain and its key.
pub(crate) fn parse(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(CertificateError::Certificate)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(CertificateError::Unfit)
}

/// TLS for clients: 1.2 and 1.3, HTTP/2 and HTTP/1.1, certificates of what is live at that moment.
pub(crate) fn server_config(live: Arc<ArcSwap<Live>>) -> Result<Arc<ServerConfig>, TlsError> {
    let resolver = Resolver {
        live,
        own: own_certificate()?,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A certificate that nobody trusts, the same for as long as the process runs.
fn own_certificate() -> Result<Arc<CertifiedKey>, TlsError> {
    static OWN: OnceLock<Arc<CertifiedKey>> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own.clone());
    }
    let made = rcgen::generate_simple_self_signed([SELF_SIGNED_NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![made.cert.der().clone()];
    let own = CertifiedKey::from_der(chain, key.into(), &ring::default_provider())?;
    Ok(OWN.get_or_init(|| Arc::new(own)).clone())
}

#[derive(Debug)]
struct Resolver {
    live: Arc<ArcSwap<Live>>,
    own: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let live = self.live.load();
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let found = live.certificates.get(name.trim_end_matches('.'));
        Some(found.unwrap_or(&self.own).clone())
    }
}

/// Says why a secret cannot be used.
pub(crate) fn complain(namespace: &str, secret: &str, error: &CertificateError) {
    tracing::error!(
        namespace,
        secret,
        error = report(error),
        "the certificate of an ingress cannot be used; clients see a self-signed one until the secret is mended"
    );
}
