//! `config.json` and its ancestor `.dockercfg`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Credential;

/// Why a document holds no credentials that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The document is not the JSON that docker writes.
    #[error("it is not a docker configuration in JSON")]
    Json(#[from] serde_json::Error),
    /// An `auth` field is no base64 of `user:password`.
    #[error("`auth` of {location:?} is not the base64 of user:password")]
    Auth {
        /// The registry that it stands at.
        location: String,
    },
}

/// The credentials of a document, by the location as written.
pub(super) struct Document {
    pub(super) credentials: Vec<(String, Credential)>,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(default, rename = "registrytoken")]
    registry_token: Option<String>,
}

impl Document {
    /// Reads a `config.json`.
    pub(super) fn config_json(json: &[u8]) -> Result<Self, CredentialsError> {
        let ConfigJson { auths } = serde_json::from_slice(json)?;
        Self::of(auths)
    }

    /// Reads a `.dockercfg`: what a `config.json` has under `auths`.
    pub(super) fn auths(json: &[u8]) -> Result<Self, CredentialsError> {
        Self::of(serde_json::from_slice(json)?)
    }

    fn of(auths: BTreeMap<String, Auth>) -> Result<Self, CredentialsError> {
        let credentials = auths
            .into_iter()
            .map(|(location, auth)| {
                let credential = auth.credential(&location)?;
                Ok((location, credential))
            })
            .collect::<Result<_, CredentialsError>>()?;
        Ok(Self { credentials })
    }
}

impl Auth {
    fn credential(self, location: &str) -> Result<Credential, CredentialsError> {
        let given = |token: Option<String>| token.filter(|token| !token.is_empty());
        let mut credential = Credential {
            username: self.username,
            password: self.password,
            identity_token: given(self.identity_token),
            registry_token: given(self.registry_token),
        };
        if let Some(auth) = given(self.auth) {
            let (username, password) = decode(&auth).ok_or_else(|| CredentialsError::Auth {
                location: location.to_owned(),
            })?;
            credential.username = username;
            credential.password = password;
        }
        Ok(credential)
    }
}

/// `user:password` out of base64, with or without padding; docker pads the password with zero bytes.
pub(crate) fn decode(auth: &str) -> Option<(String, String)> {
    let trimmed = auth.trim().trim_end_matches('=');
    let padded = format!("{trimmed}{}", "=".repeat((4 - trimmed.len() % 4) % 4));
    let text = String::from_utf8(STANDARD.decode(padded).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<(String, Credential)> {
        Document::config_json(json.as_bytes()).unwrap().credentials
    }

    #[test]
    fn auth_wins_over_name_and_password_and_needs_no_padding() {
        for auth in ["dXNlcjpwYTpzcw==", "dXNlcjpwYTpzcw"] {
            let json = format!(r#"{{"auths":{{"r":{{"username":"other","auth":"{auth}"}}}}}}"#);
            let (_, credential) = read(&json).remove(0);
            assert_eq!(
                (credential.username.as_str(), credential.password.as_str()),
                ("user", "pa:ss")
            );
        }
    }

    #[test]
    fn tokens_are_read_and_what_else_docker_writes_is_passed_over() {
        let found = read(
            r#"{"auths":{"r":{"identitytoken":"abc"},"s":{}},"credsStore":"desktop","HttpHeaders":{"User-Agent":"x"}}"#,
        );
        assert_eq!(found[0].1.identity_token.as_deref(), Some("abc"));
        assert_eq!(found[1].1, Credential::default());
    }

    #[test]
    fn what_is_no_base64_names_its_registry() {
        let broken = Document::config_json(br#"{"auths":{"r.example":{"auth":"***"}}}"#);
        assert!(matches!(broken, Err(CredentialsError::Auth { location }) if location == "r.example"));
        assert!(decode("bm9jb2xvbg==").is_none());
    }
}
