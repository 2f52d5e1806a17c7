//! Tokens of service accounts: JWTs that the cluster's key signs.

use std::time::Duration;

use flotilla_report::report;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use super::User;

/// Whom the tokens come from, as their `iss` says.
const ISSUER: &str = "https://kubernetes.default.svc";

/// Why a key cannot sign tokens.
#[derive(Debug, thiserror::Error)]
#[error("the service account key is not an ECDSA P-256 key in PKCS#8 form")]
pub struct ReadKeyError;

/// The key pair that signs service accounts' tokens and checks them.
#[derive(Clone)]
pub struct ServiceAccountKeys {
    signing: EncodingKey,
    checking: DecodingKey,
}

impl std::fmt::Debug for ServiceAccountKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceAccountKeys")
    }
}

impl ServiceAccountKeys {
    /// Reads a private key (ECDSA P-256, PKCS#8, DER), which every server of the cluster must share.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, ReadKeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
            .map_err(|_| ReadKeyError)?;
        Ok(Self {
            signing: EncodingKey::from_ec_der(der),
            checking: DecodingKey::from_ec_der(pair.public_key().as_ref()),
        })
    }

    /// A token for an account.
    pub(crate) fn sign(&self, token: &AccountToken, now_seconds: u64) -> Result<String, SignTokenError> {
        let claims = Claims::new(token, now_seconds);
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing).map_err(SignTokenError)
    }

    /// What a token says, if this cluster has signed it for itself and it is still valid.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.validate_nbf = true;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.checking, &validation);
        match decoded {
            Ok(data) => Some(data.claims),
            Err(error) => {
                tracing::debug!(error = report(&error), "a bearer token was refused");
                None
            }
        }
    }
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a service account token")]
pub(crate) struct SignTokenError(#[source] jsonwebtoken::errors::Error);

/// What a token is to say.
#[derive(Debug, Clone)]
pub(crate) struct AccountToken {
    pub(crate) namespace: String,
    pub(crate) account: Reference,
    /// The pod that the token lives with.
    pub(crate) pod: Option<Reference>,
    /// Empty: the API server.
    pub(crate) audiences: Vec<String>,
    pub(crate) lifetime: Duration,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What stands in a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Bound,
}

/// The objects that a token is bound to; it dies with any of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
}

impl Claims {
    fn new(token: &AccountToken, now_seconds: u64) -> Self {
        let audiences = match token.audiences.is_empty() {
            true => vec![ISSUER.to_owned()],
            false => token.audiences.clone(),
        };
        Self {
            aud: audiences,
            exp: now_seconds + token.lifetime.as_secs(),
            iat: now_seconds,
            nbf: now_seconds,
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", token.namespace, token.account.name),
            kubernetes: Bound {
                namespace: token.namespace.clone(),
                serviceaccount: token.account.clone(),
                pod: token.pod.clone(),
            },
        }
    }

    /// The account as a user.
    pub(crate) fn user(&self) -> User {
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", self.kubernetes.namespace),
        ];
        User {
            name: self.sub.clone(),
            groups,
        }
        .authenticated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ServiceAccountKeys {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        ServiceAccountKeys::from_pkcs8_der(der.as_ref()).unwrap()
    }

    fn token(audiences: &[&str]) -> AccountToken {
        AccountToken {
            namespace: "default".into(),
            account: Reference {
                name: "robot".into(),
                uid: "1".into(),
            },
            pod: None,
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            lifetime: Duration::from_secs(600),
        }
    }

    #[test]
    fn a_signed_token_names_its_account() {
        let keys = keys();
        let now = jsonwebtoken::get_current_timestamp();
        let claims = keys.verify(&keys.sign(&token(&[]), now).unwrap()).unwrap();
        assert_eq!(claims.user().name, "system:serviceaccount:default:robot");
        assert!(claims.user().is_in("system:serviceaccounts:default"));
    }

    #[test]
    fn tokens_that_are_old_foreign_or_meant_for_others_are_refused() {
        let (ours, theirs) = (keys(), keys());
        let now = jsonwebtoken::get_current_timestamp();
        assert!(ours.verify(&theirs.sign(&token(&[]), now).unwrap()).is_none());
        assert!(
            ours.verify(&ours.sign(&token(&[]), now - 3600).unwrap())
                .is_none()
        );
        assert!(
            ours.verify(&ours.sign(&token(&["vault"]), now).unwrap())
                .is_none()
        );
        assert!(ours.verify("a.b.c").is_none());
    }
}
