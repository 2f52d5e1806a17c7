//! Join tokens: what a new machine shows to be let in, and how it knows that it talks to the right cluster.

use std::{fmt, str::FromStr};

use crate::random;

/// `F1.<SHA-256 of the CA, hex>.<id>.<secret>`: the pin lets the joining machine verify the cluster before it
/// shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate in DER.
    pub ca_fingerprint: [u8; 32],
    /// Names the token's record in the store (`kube-system/bootstrap-token-<id>`); not secret.
    pub id: String,
    /// What must be shown.
    pub secret: String,
}

/// Why a text is not a join token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseTokenError {
    /// It has another shape.
    #[error(
        "a join token looks like F1.<64 hex digits>.<id>.<secret>; copy it whole from <data-dir>/join-token of a server"
    )]
    Shape,
}

impl JoinToken {
    /// A new token for the authority with this fingerprint: 3 bytes of id, 16 of secret.
    pub fn generate(ca_fingerprint: [u8; 32]) -> Self {
        Self {
            ca_fingerprint,
            id: hex::encode(random::<3>()),
            secret: hex::encode(random::<16>()),
        }
    }

    /// The part that goes to the server: `<id>.<secret>`.
    pub fn credential(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "F1.{}.{}.{}",
            hex::encode(self.ca_fingerprint),
            self.id,
            self.secret
        )
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["F1", pin, id, secret] = parts[..] else {
            return Err(ParseTokenError::Shape);
        };
        let mut ca_fingerprint = [0; 32];
        hex::decode_to_slice(pin, &mut ca_fingerprint).map_err(|_| ParseTokenError::Shape)?;
        if id.is_empty() || secret.is_empty() {
            return Err(ParseTokenError::Shape);
        }
        Ok(Self {
            ca_fingerprint,
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token = JoinToken::generate([7; 32]);
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
    }

    #[test]
    fn a_cut_token_is_refused() {
        for text in ["", "F1", "F1.00.a.b", "F2.aa.b.c", "hello"] {
            assert_eq!(text.parse::<JoinToken>(), Err(ParseTokenError::Shape), "{text}");
        }
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let token = JoinToken::generate([7; 32]);
        assert!(!format!("{token:?}").contains(&token.secret));
    }
}
