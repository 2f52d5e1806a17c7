//! The cluster's certificate authority.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::{GROUP_MASTERS, GROUP_NODES, GROUP_SERVERS, Identity, SERVER_NAME, random};

/// Certificates are dated back by this much, so that a machine whose clock is late accepts them.
const BACKDATE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
const CA_VALIDITY: jiff::SignedDuration = jiff::SignedDuration::from_hours(10 * 365 * 24);
/// Serving, administrator and node certificates. Nodes renew theirs long before.
const LEAF_VALIDITY: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

/// Why no certificate could be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The stored authority cannot be read.
    #[error("the cluster's certificate authority cannot be read")]
    Authority(#[source] rcgen::Error),
    /// The authority's PEM holds no certificate.
    #[error("the cluster's certificate authority is not a PEM certificate")]
    AuthorityPem(#[source] rustls_pki_types::pem::Error),
    /// The request is not a valid PKCS#10 request.
    #[error("the certificate request is malformed")]
    Request(#[source] rcgen::Error),
    /// A name cannot stand in a certificate.
    #[error("a name cannot stand in a certificate")]
    Name(#[source] rcgen::Error),
    /// Signing failed.
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
    /// No key could be made.
    #[error("no key can be made")]
    Key(#[source] rcgen::Error),
}

/// Whom a certificate is for; decides its common name, organizations and usages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A person or tool with all rights (`O=system:masters`).
    Admin(String),
    /// A node agent (`O=system:nodes`, `CN=system:node:<name>`).
    Node(String),
    /// A control-plane replica: serves under its addresses and calls its peers.
    Server {
        /// The node name of the server.
        name: String,
        /// Addresses that clients outside the cluster may dial.
        addresses: Vec<IpAddr>,
        /// DNS names that clients outside the cluster may dial.
        names: Vec<String>,
    },
}

/// The certificate authority: signs, never serves.
pub struct ClusterCa {
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// Makes a new authority (ECDSA P-256, ten years).
    pub fn generate() -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name =
            distinguished_name(&format!("flotilla-ca-{}", hex::encode(random::<4>())), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, CA_VALIDITY);
        let certificate = params.self_signed(&key).map_err(IssueError::Sign)?;
        Self::load(&certificate.pem(), &key.serialize_pem())
    }

    /// Takes up an authority from its certificate and key in PEM.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key_pem).map_err(IssueError::Authority)?;
        let certificate_der =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(IssueError::AuthorityPem)?;
        let issuer = Issuer::from_ca_cert_der(&certificate_der, key).map_err(IssueError::Authority)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            certificate_der,
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// The authority's certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// SHA-256 of the certificate's DER form: what a join token pins.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate_der).into()
    }

    /// Makes a key and a certificate for `subject`.
    pub fn issue(&self, subject: &Subject) -> Result<Identity, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let certificate = leaf_params(subject)?
            .signed_by(&key, &self.issuer)
            .map_err(IssueError::Sign)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            ca_pem: self.certificate_pem.clone(),
        })
    }

    /// Signs the key of a PKCS#10 request for `subject`. Names that the request itself asks for are ignored.
    pub fn sign(&self, csr_der: &[u8], subject: &Subject) -> Result<String, IssueError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(IssueError::Request)?;
        let certificate = leaf_params(subject)?
            .signed_by(&request.public_key, &self.issuer)
            .map_err(IssueError::Sign)?;
        Ok(certificate.pem())
    }
}

fn leaf_params(subject: &Subject) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&random::<16>()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, LEAF_VALIDITY);
    params.distinguished_name = match subject {
        Subject::Admin(name) => distinguished_name(name, Some(GROUP_MASTERS)),
        Subject::Node(name) => distinguished_name(&format!("system:node:{name}"), Some(GROUP_NODES)),
        Subject::Server {
            name,
            addresses,
            names,
        } => {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = server_names(addresses, names)?;
            distinguished_name(&format!("flotilla:server:{name}"), Some(GROUP_SERVERS))
        }
    };
    Ok(params)
}

fn server_names(addresses: &[IpAddr], names: &[String]) -> Result<Vec<SanType>, IssueError> {
    [
        SERVER_NAME,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .into_iter()
    .chain(names.iter().map(String::as_str))
    .map(|name| Ok(SanType::DnsName(name.try_into().map_err(IssueError::Name)?)))
    .chain(addresses.iter().map(|address| Ok(SanType::IpAddress(*address))))
    .collect()
}

fn distinguished_name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn set_validity(params: &mut CertificateParams, validity: jiff::SignedDuration) {
    let now = jiff::Timestamp::now();
    params.not_before = date(now - BACKDATE);
    params.not_after = date(now + validity);
}

fn date(timestamp: jiff::Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(timestamp.as_second()).expect("dates near now are in range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificateRequest;

    #[test]
    fn an_authority_survives_being_stored() {
        let ca = ClusterCa::generate().unwrap();
        let again = ClusterCa::load(ca.certificate_pem(), ca.key_pem()).unwrap();
        assert_eq!(ca.fingerprint(), again.fingerprint());
        again.issue(&Subject::Admin("admin".into())).unwrap();
    }

    #[test]
    fn the_server_decides_the_subject_of_a_request() {
        let ca = ClusterCa::generate().unwrap();
        let request = CertificateRequest::generate().unwrap();
        let pem = ca
            .sign(&request.csr_der, &Subject::Node("agent-1".into()))
            .unwrap();
        let identity = request.identity(pem, ca.certificate_pem().to_owned());
        let peer = identity.peer().unwrap();
        assert_eq!(peer.common_name, "system:node:agent-1");
        assert_eq!(peer.organizations, ["system:nodes"]);
        assert_eq!(peer.node_name(), Some("agent-1"));
    }

    #[test]
    fn a_malformed_request_is_refused() {
        let ca = ClusterCa::generate().unwrap();
        let error = ca.sign(b"nonsense", &Subject::Node("a".into())).unwrap_err();
        assert!(matches!(error, IssueError::Request(_)));
    }
}
