//! Lets machines in: a token for a certificate, and a new certificate for an old one.

use flotilla_api::registry;
use flotilla_pki::Subject;
use flotilla_proto::node::{JoinRequest, JoinResponse, RenewRequest, RenewResponse, Role, ServerSecrets};
use flotilla_resources::Resources;
use k8s_openapi::api::core::v1::Secret;
use tonic::Status;

use crate::material::Material;

/// Where join tokens are kept, as Kubernetes keeps bootstrap tokens.
pub(crate) const TOKEN_NAMESPACE: &str = "kube-system";
/// The type of a token's Secret.
pub(crate) const TOKEN_SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Marks a token whose holder may become a server, and so is handed the authority's key.
pub(crate) const USAGE_SERVERS: &str = "usage-join-servers";

/// The name of the Secret that keeps the token with this id.
pub(crate) fn token_secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

pub(crate) async fn join(
    resources: &Resources,
    material: &Material,
    request: JoinRequest,
) -> Result<JoinResponse, Status> {
    let rights = check_token(resources, &request.token).await?;
    if request.role() == Role::Server && !rights.servers {
        return Err(Status::permission_denied(
            "this join token is for agents only; copy <data-dir>/join-token of a server",
        ));
    }
    if !is_node_name(&request.node_name) {
        return Err(Status::invalid_argument(format!(
            "{:?} is not a node name: use lower-case letters, digits, '-' and '.', at most 63 of them",
            request.node_name
        )));
    }
    let certificate_pem = sign(material, &request.csr_der, &request.node_name)?;
    tracing::info!(node = request.node_name, role = request.role, "a machine joins");
    Ok(JoinResponse {
        certificate_pem,
        ca_pem: material.ca.certificate_pem().to_owned(),
        servers: resources
            .replica()
            .members()
            .into_iter()
            .map(|member| member.address)
            .collect(),
        server_secrets: (request.role() == Role::Server).then(|| ServerSecrets {
            ca_key_pem: material.ca.key_pem().to_owned(),
            service_account_key_pem: material.service_account_key_pem.clone(),
        }),
    })
}

pub(crate) fn renew(
    material: &Material,
    node: &str,
    request: &RenewRequest,
) -> Result<RenewResponse, Status> {
    Ok(RenewResponse {
        certificate_pem: sign(material, &request.csr_der, node)?,
        ca_pem: material.ca.certificate_pem().to_owned(),
    })
}

fn sign(material: &Material, csr_der: &[u8], node: &str) -> Result<String, Status> {
    material
        .ca
        .sign(csr_der, &Subject::Node(node.to_owned()))
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What the holder of a token may join as; everybody may as an agent.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    servers: bool,
}

/// What `<id>.<secret>` is good for, if it is a token that is still good.
async fn check_token(resources: &Resources, credential: &str) -> Result<Rights, Status> {
    let refused = || {
        Status::permission_denied(
            "the join token is unknown or has expired; make another, or copy <data-dir>/join-token of a server",
        )
    };
    let (id, secret) = credential.split_once('.').ok_or_else(refused)?;
    let kind = registry().of::<Secret>();
    let found = resources.get(kind, TOKEN_NAMESPACE, &token_secret_name(id)).await;
    let stored = found.map_err(|status| match status.reason {
        flotilla_api::Reason::NotFound => refused(),
        _ => Status::unavailable(status.message),
    })?;
    let record: Secret = serde_json::from_slice(&stored.json).map_err(|_| refused())?;
    rights(&record, secret, jiff::Timestamp::now()).ok_or_else(refused)
}

/// What the record of a token grants to whoever shows `secret`.
fn rights(record: &Secret, secret: &str, now: jiff::Timestamp) -> Option<Rights> {
    let data = record.data.as_ref()?;
    let kept = data.get("token-secret")?;
    let expired = data.get("expiration").is_some_and(|when| {
        let end = std::str::from_utf8(&when.0)
            .ok()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        end.is_none_or(|end| end <= now)
    });
    let good =
        record.type_.as_deref() == Some(TOKEN_SECRET_TYPE) && !expired && same(&kept.0, secret.as_bytes());
    good.then(|| Rights {
        servers: data.get(USAGE_SERVERS).is_some_and(|value| value.0 == b"true"),
    })
}

/// Compares without telling by its time where the difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn is_node_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63 && name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().last())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn node_names_are_dns_names() {
        for good in ["a", "server-1", "n1.example"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", &"x".repeat(64)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }

    fn granted(data: &[(&str, &str)], secret: &str) -> Option<Rights> {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let record = Secret {
            type_: Some(TOKEN_SECRET_TYPE.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        rights(&record, secret, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn only_a_token_for_servers_makes_servers() {
        let agents = granted(&[("token-secret", "s")], "s");
        assert_eq!(agents, Some(Rights { servers: false }));
        let servers = granted(&[("token-secret", "s"), (USAGE_SERVERS, "true")], "s");
        assert_eq!(servers, Some(Rights { servers: true }));
    }

    #[test]
    fn wrong_and_expired_tokens_grant_nothing() {
        let until = |when| granted(&[("token-secret", "s"), ("expiration", when)], "s");
        assert!(until("2026-01-01T00:00:01Z").is_some());
        assert_eq!(until("2026-01-01T00:00:00Z"), None);
        assert_eq!(until("tomorrow"), None);
        assert_eq!(granted(&[("token-secret", "s")], "t"), None);
        assert_eq!(granted(&[], ""), None);
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
    }
}
