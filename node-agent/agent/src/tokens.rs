//! Service account tokens for pods of this node, asked of any server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flotilla_proto::node::TokenRequest;
use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_volumes::TokenWanted;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use tokio::time::timeout;

use crate::follow::Servers;

/// A server that does not answer within this time is passed over.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A token is replaced after so much of its life.
const RENEWED_AFTER_PERCENT: i32 = 80;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchTokenError {
    #[error("this node has not joined the cluster yet")]
    NotJoined,
    #[error("no server answers")]
    Silent,
    #[error("{}", .0.message())]
    Refused(Box<tonic::Status>),
}

/// Asks the servers for tokens.
#[derive(Default)]
pub(crate) struct TokenClient {
    servers: OnceLock<Arc<Servers>>,
}

impl TokenClient {
    /// From now on servers can be asked.
    pub(crate) fn connect(&self, servers: Arc<Servers>) {
        // A second call could only bring the same.
        let _ = self.servers.set(servers);
    }

    /// A token for the pod's account.
    pub(crate) async fn fetch(&self, pod: &Pod, wanted: &TokenWanted) -> Result<String, FetchTokenError> {
        let servers = self.servers.get().ok_or(FetchTokenError::NotJoined)?;
        let request = request(pod, wanted);
        let mut failure = FetchTokenError::Silent;
        for address in servers.in_order() {
            let mut client = NodesClient::new(servers.channel(&address));
            match timeout(CALL_LIMIT, client.token(request.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner().token),
                Ok(Err(status)) if is_final(&status) => {
                    return Err(FetchTokenError::Refused(Box::new(status)));
                }
                Ok(Err(status)) => failure = FetchTokenError::Refused(Box::new(status)),
                Err(_) => {}
            }
        }
        Err(failure)
    }
}

fn request(pod: &Pod, wanted: &TokenWanted) -> TokenRequest {
    let meta = &pod.metadata;
    TokenRequest {
        namespace: meta.namespace.clone().unwrap_or_default(),
        pod_name: meta.name.clone().unwrap_or_default(),
        pod_uid: meta.uid.clone().unwrap_or_default(),
        audience: wanted.audience.clone(),
        expiration_seconds: wanted.seconds,
    }
}

/// Whether another server would say the same.
fn is_final(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::PermissionDenied | Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition
    )
}

/// From when to when a token is valid, as it says itself.
#[derive(Debug, Deserialize)]
struct Life {
    iat: i64,
    exp: i64,
}

impl Life {
    fn of(token: &str) -> Option<Life> {
        let claims = token.split('.').nth(1)?;
        let json = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice(&json).ok()
    }

    fn renewal(&self) -> Option<Timestamp> {
        let life = SignedDuration::from_secs(self.exp.checked_sub(self.iat)?);
        let begin = Timestamp::from_second(self.iat).ok()?;
        begin
            .checked_add(life.checked_mul(RENEWED_AFTER_PERCENT)? / 100)
            .ok()
    }
}

/// When the token is to be replaced; nothing when that cannot be read from it.
pub(crate) fn renewal(token: &str) -> Option<Timestamp> {
    Life::of(token)?.renewal()
}

/// Whether the token need not be replaced yet.
pub(crate) fn is_fresh(token: &str, now: Timestamp) -> bool {
    renewal(token).is_some_and(|renewal| now < renewal)
}

/// Whether the token has not run out.
pub(crate) fn is_valid(token: &str, now: Timestamp) -> bool {
    Life::of(token).is_some_and(|life| now.as_second() < life.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_at_four_fifths_of_its_life() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":2000,"sub":"x"}"#);
        let token = format!("h.{claims}.s");
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renewal(&token), Some(at(1800)));
        for (second, fresh, valid) in [(1799, true, true), (1800, false, true), (2000, false, false)] {
            assert_eq!(is_fresh(&token, at(second)), fresh, "{second}");
            assert_eq!(is_valid(&token, at(second)), valid, "{second}");
        }
        for broken in ["", "a.b.c", "a.!.c", "only"] {
            assert!(
                !is_valid(broken, at(0)) && renewal(broken).is_none(),
                "{broken:?}"
            );
        }
    }
}
