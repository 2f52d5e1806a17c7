//! Service account tokens for pods, asked for by the node that they are bound to.

use flotilla_api::Reason;
use flotilla_apiserver::issue_token;
use flotilla_proto::node::{TokenRequest, TokenResponse};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as AccountTokenRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::Pod;
use tonic::Status;

use super::Nodes;

/// Makes the token, if the pod is this node's and asks for one like it.
pub(super) async fn issue(nodes: &Nodes, node: &str, request: TokenRequest) -> Result<TokenResponse, Status> {
    let keys = nodes
        .inner
        .account_keys
        .as_ref()
        .ok_or_else(|| Status::unavailable("this server has no key to sign tokens with"))?;
    let resources = &nodes.inner.resources;
    let pod = resources
        .get_typed::<Pod>(&request.namespace, &request.pod_name)
        .await
        .map_err(status)?;
    let account = entitled(&pod, node, &request).map_err(Status::permission_denied)?;
    let made = issue_token(keys, resources, &request.namespace, &account, wanted(&request)).await;
    let token = made.map_err(status)?.status.map(|status| status.token);
    Ok(TokenResponse {
        token: token.unwrap_or_default(),
    })
}

/// The account whose token the node may have for its pod.
fn entitled(pod: &Pod, node: &str, request: &TokenRequest) -> Result<String, String> {
    let name = &request.pod_name;
    if pod.metadata.uid.as_deref() != Some(&request.pod_uid) {
        return Err(format!("pod {name} is another one by now: its uid has changed"));
    }
    let spec = pod
        .spec
        .as_ref()
        .ok_or_else(|| format!("pod {name} has no spec"))?;
    if spec.node_name.as_deref() != Some(node) {
        return Err(format!("pod {name} is not bound to node {node}"));
    }
    let projected = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    let asks = tokens.any(|token| token.audience.as_deref().unwrap_or_default() == request.audience);
    match asks {
        true => Ok(spec
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".to_owned())),
        false => Err(format!(
            "no volume of pod {name} asks for a token for audience {:?}",
            request.audience
        )),
    }
}

fn wanted(request: &TokenRequest) -> AccountTokenRequest {
    AccountTokenRequest {
        spec: TokenRequestSpec {
            audiences: Some(request.audience.clone())
                .filter(|audience| !audience.is_empty())
                .into_iter()
                .collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(request.pod_name.clone()),
                uid: Some(request.pod_uid.clone()),
            }),
            expiration_seconds: Some(request.expiration_seconds),
        },
        ..AccountTokenRequest::default()
    }
}

fn status(error: flotilla_api::Status) -> Status {
    match error.reason {
        Reason::NotFound => Status::not_found(error.message),
        Reason::Invalid | Reason::BadRequest => Status::invalid_argument(error.message),
        Reason::Conflict => Status::failed_precondition(error.message),
        _ => Status::unavailable(error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_tokens_of_its_own_pods_only_and_only_those_they_ask_for() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","uid":"u"},"spec":{"nodeName":"a","serviceAccountName":"robot","containers":[],
                "volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token"}},
                    {"serviceAccountToken":{"path":"other","audience":"vault"}}]}}]}}"#,
        )
        .unwrap();
        let check = |node: &str, uid: &str, audience: &str, expected: Result<&str, &str>| {
            let request = TokenRequest {
                pod_name: "p".to_owned(),
                pod_uid: uid.to_owned(),
                audience: audience.to_owned(),
                ..TokenRequest::default()
            };
            let found = entitled(&pod, node, &request);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check("a", "u", "", Ok("robot"));
        check("a", "u", "vault", Ok("robot"));
        check("b", "u", "", Err("pod p is not bound to node b"));
        check(
            "a",
            "v",
            "",
            Err("pod p is another one by now: its uid has changed"),
        );
        check(
            "a",
            "u",
            "bank",
            Err("no volume of pod p asks for a token for audience \"bank\""),
        );
    }
}
