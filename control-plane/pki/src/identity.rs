//! A certificate with its key, where it is kept, and whom a certificate names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{GROUP_NODES, IssueError, create_private_folder, write_private};

/// The file that an identity is kept in.
pub const IDENTITY_FILE: &str = "identity.json";

/// Why an identity cannot be read, kept or understood.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what [`Identity::save`] wrote.
    #[error("{path} is damaged: remove it and join again with a token")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file of the identity cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What should be a certificate is none.
    #[error("not a valid X.509 certificate")]
    Malformed,
}

/// A certificate, its private key and the authority that signed it, all in PEM.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS#8).
    pub key_pem: String,
    /// The cluster's authority.
    pub ca_pem: String,
}

impl Identity {
    /// Reads `identity.json` from `folder`; `None` when there is none yet.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(IDENTITY_FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|source| IdentityError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Read { path, source }),
        }
    }

    /// Writes `identity.json` to `folder`. One file, so that a key is never left without its certificate.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let json = serde_json::to_vec_pretty(self).expect("three strings can be written as JSON");
        let path = folder.join(IDENTITY_FILE);
        create_private_folder(folder)
            .and_then(|()| write_private(&path, &json))
            .map_err(|source| IdentityError::Write { path, source })
    }

    /// Whom this identity's certificate names.
    pub fn peer(&self) -> Result<PeerIdentity, IdentityError> {
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|_| IdentityError::Malformed)?;
        PeerIdentity::of(&der)
    }
}

/// A fresh key and the request to certify it. The key never leaves the machine.
pub struct CertificateRequest {
    /// The PKCS#10 request in DER.
    pub csr_der: Vec<u8>,
    key_pem: String,
}

impl CertificateRequest {
    /// Makes a key (ECDSA P-256) and a request for it.
    pub fn generate() -> Result<Self, IssueError> {
        let key = KeyPair::generate().map_err(IssueError::Key)?;
        let request = CertificateParams::default()
            .serialize_request(&key)
            .map_err(IssueError::Sign)?;
        Ok(Self {
            csr_der: request.der().to_vec(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Joins the key with the certificate that was issued for it.
    pub fn identity(self, certificate_pem: String, ca_pem: String) -> Identity {
        Identity {
            certificate_pem,
            key_pem: self.key_pem,
            ca_pem,
        }
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The user name.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
    /// End of validity, in seconds since 1970.
    pub not_after_unix: i64,
}

impl PeerIdentity {
    /// Reads a DER certificate. Does not verify it: TLS has done so.
    pub fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Malformed)?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute
                .as_str()
                .map(str::to_owned)
                .map_err(|_| IdentityError::Malformed)
        };
        Ok(Self {
            common_name: subject
                .iter_common_name()
                .next()
                .map(text)
                .transpose()?
                .unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            not_after_unix: certificate.validity().not_after.timestamp(),
        })
    }

    /// The node name, when this is a node's certificate.
    pub fn node_name(&self) -> Option<&str> {
        let is_node = self.organizations.iter().any(|group| group == GROUP_NODES);
        self.common_name.strip_prefix("system:node:").filter(|_| is_node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterCa, Subject};

    #[test]
    fn an_identity_is_read_back_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Identity::load(folder.path()).unwrap().is_none());
        let identity = ClusterCa::generate()
            .unwrap()
            .issue(&Subject::Node("n".into()))
            .unwrap();
        identity.save(folder.path()).unwrap();
        let again = Identity::load(folder.path()).unwrap().unwrap();
        assert_eq!(again.certificate_pem, identity.certificate_pem);
        assert_eq!(again.key_pem, identity.key_pem);
    }
}
