//! Connections to a registry: whom to trust, and as whom.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::RegistryError;
use crate::registries::Tls;

/// A registry that takes no connection by then is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Requests over kept connections.
pub(super) type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Makes a client for a host.
pub(super) fn client(host: &str, tls: Option<&Tls>) -> Result<Http, RegistryError> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config(host, tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn config(host: &str, tls: Option<&Tls>) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for every version");
    let builder = if tls.is_some_and(|tls| tls.insecure_skip_verify) {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots(host, tls)?)
    };
    let own = tls.and_then(|tls| Some((tls.cert_file.as_ref()?, tls.key_file.as_ref()?)));
    let Some((certificate, key)) = own else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(host, certificate)?;
    let secret =
        PrivateKeyDer::from_pem_slice(&read(host, key)?).map_err(|error| unusable(host, key, error))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| unusable(host, certificate, error))
}

/// The system's authorities and the one that is configured.
fn roots(host: &str, tls: Option<&Tls>) -> Result<RootCertStore, RegistryError> {
    let mut roots = RootCertStore::empty();
    // A machine without any can still use what is configured; what is damaged in its bundle is no reason to fail.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = tls.and_then(|tls| tls.ca_file.as_ref()) {
        for certificate in certificates(host, path)? {
            roots
                .add(certificate)
                .map_err(|error| unusable(host, path, error))?;
        }
    }
    Ok(roots)
}

fn certificates(host: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(host, path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(host, path, error))?;
    if found.is_empty() {
        return Err(unusable(host, path, "there is no certificate in it"));
    }
    Ok(found)
}

fn read(host: &str, path: &Path) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(path).map_err(|source| RegistryError::File {
        host: host.to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn unusable(host: &str, path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> RegistryError {
    RegistryError::Pem {
        host: host.to_owned(),
        path: path.to_owned(),
        source: source.into(),
    }
}

/// `insecure_skip_verify`: takes any certificate, as the operator asked for.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
