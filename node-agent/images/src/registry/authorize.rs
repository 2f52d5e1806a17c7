//! Gets what a registry wants to see after it said `401`: a password, or a token from the service that it names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request};
use serde::Deserialize;

use super::challenge::{Challenge, parse};
use super::{Client, ERROR_BYTES_MAX, RegistryError};
use crate::credentials::Credential;

/// Tokens with many claims reach some kilobytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The `Authorization` that answers a registry's challenges.
pub(super) async fn authorize(
    client: &Client,
    headers: &HeaderMap,
    what: &str,
) -> Result<HeaderValue, RegistryError> {
    let challenges: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(parse)
        .collect();
    let by_scheme = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    let credential = client.credential.as_ref();
    let refused = || RegistryError::Unauthorized {
        what: what.to_owned(),
        user: credential.map(|credential| credential.username.clone()),
    };
    if let Some(challenge) = by_scheme("bearer") {
        if let Some(token) = credential.and_then(|credential| credential.registry_token.as_ref()) {
            return header("Bearer", token).ok_or_else(refused);
        }
        let token = token(client, challenge, what).await?;
        return header("Bearer", &token).ok_or_else(refused);
    }
    let (Some(_), Some(credential)) = (by_scheme("basic"), credential) else {
        return Err(refused());
    };
    basic(credential).ok_or_else(refused)
}

async fn token(client: &Client, challenge: &Challenge, what: &str) -> Result<String, RegistryError> {
    let parameter = |name: &str| challenge.parameters.get(name).cloned().unwrap_or_default();
    let realm = parameter("realm");
    let scope = match parameter("scope") {
        scope if scope.is_empty() => format!("repository:{}:pull", client.place.repository),
        scope => scope,
    };
    let mut fields = vec![("service", parameter("service")), ("scope", scope)];
    let mut headers = HeaderMap::new();
    let (request, body) = match &client.credential {
        Some(Credential {
            identity_token: Some(token),
            ..
        }) => {
            fields.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "flotilla".to_owned()),
                ("refresh_token", token.clone()),
            ]);
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
            (Request::post(&realm), form_of(&fields))
        }
        credential => {
            headers.extend(
                credential
                    .as_ref()
                    .and_then(basic)
                    .map(|value| (AUTHORIZATION, value)),
            );
            let separator = if realm.contains('?') { '&' } else { '?' };
            (
                Request::get(format!("{realm}{separator}{}", form_of(&fields))),
                String::new(),
            )
        }
    };
    let no_token = || RegistryError::Token {
        host: client.place.host.clone(),
        realm: realm.clone(),
    };
    let response = client.request(request, headers, Bytes::from(body)).await?;
    let status = response.status();
    if !status.is_success() {
        let body = client
            .read(response.into_body(), ERROR_BYTES_MAX, what)
            .await
            .unwrap_or_default();
        let user = client
            .credential
            .as_ref()
            .map(|credential| credential.username.clone());
        return Err(RegistryError::of_status(status, &body, realm, what, user));
    }
    let body = client.read(response.into_body(), TOKEN_BYTES_MAX, what).await?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| no_token())?;
    let found = [answer.token, answer.access_token];
    found
        .into_iter()
        .find(|token| !token.is_empty())
        .ok_or_else(no_token)
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential {
        username, password, ..
    } = credential;
    if username.is_empty() && password.is_empty() {
        return None;
    }
    header("Basic", &STANDARD.encode(format!("{username}:{password}")))
}

fn header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Fields as a query or a form has them; empty ones are left out.
fn form_of(fields: &[(&str, String)]) -> String {
    let pairs = fields.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    pairs.join("&")
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_escaped_and_empty_ones_left_out() {
        let fields = [
            ("service", "r.example".to_owned()),
            ("empty", String::new()),
            ("scope", "repository:a/ü b:pull".to_owned()),
        ];
        assert_eq!(
            form_of(&fields),
            "service=r.example&scope=repository%3Aa%2F%C3%BC%20b%3Apull"
        );
    }

    #[test]
    fn passwords_are_sent_as_basic_and_not_shown() {
        let credential = Credential {
            username: "me".to_owned(),
            password: "pa:ss".to_owned(),
            ..Credential::default()
        };
        let header = basic(&credential).unwrap();
        assert_eq!(header.as_bytes(), b"Basic bWU6cGE6c3M=");
        assert!(!format!("{header:?}").contains("bWU6"));
        assert!(basic(&Credential::default()).is_none());
    }
}
