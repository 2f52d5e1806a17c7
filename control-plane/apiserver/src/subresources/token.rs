//! `serviceaccounts/token`: tokens for service accounts.

use std::time::Duration;

use flotilla_api::{Reason, Status, decode};
use flotilla_resources::Resources;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

use crate::auth::{AccountToken, Reference, ServiceAccountKeys};
use crate::body::Body;
use crate::call::Call;
use crate::render::json_response;
use crate::server::ApiServer;
use crate::write::Place;

/// Kubernetes' own limits.
const LIFETIME_SECONDS_MIN: i64 = 600;
const LIFETIME_SECONDS_MAX: i64 = 1 << 32;
const LIFETIME_SECONDS_DEFAULT: i64 = 3600;

/// Makes a token.
pub(super) async fn create(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
) -> Result<Response<Body>, Status> {
    let keys = server.account_keys().ok_or_else(|| {
        Status::new(
            Reason::ServiceUnavailable,
            "this server has no key to sign tokens with",
        )
    })?;
    let request = requested(&call.read_json().await?)?;
    let answer = issue_token(keys, server.resources(), place.namespace, place.name, request).await?;
    Ok(json_response(
        StatusCode::CREATED,
        serde_json::to_vec(&answer).map_err(Status::internal)?,
    ))
}

/// Makes a token for the account `name`, and answers the request with its status filled in.
///
/// # Errors
///
/// When the account or the pod that the token is to live with does not exist, or the lifetime is out of range.
pub async fn issue_token(
    keys: &ServiceAccountKeys,
    resources: &Resources,
    namespace: &str,
    name: &str,
    mut request: TokenRequest,
) -> Result<TokenRequest, Status> {
    let account = resources.get_typed::<ServiceAccount>(namespace, name).await?;
    let seconds = request
        .spec
        .expiration_seconds
        .unwrap_or(LIFETIME_SECONDS_DEFAULT);
    if !(LIFETIME_SECONDS_MIN..=LIFETIME_SECONDS_MAX).contains(&seconds) {
        return Err(Status::new(
            Reason::Invalid,
            format!(
                "spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration less than 10 minutes or larger than 2^32 seconds"
            ),
        ));
    }
    let token = AccountToken {
        namespace: namespace.to_owned(),
        account: Reference {
            name: name.to_owned(),
            uid: account.metadata.uid.unwrap_or_default(),
        },
        pod: bound_pod(resources, namespace, request.spec.bound_object_ref.as_ref()).await?,
        audiences: request.spec.audiences.clone(),
        lifetime: Duration::from_secs(seconds.unsigned_abs()),
    };
    let now = Timestamp::now();
    let signed = keys
        .sign(&token, now.as_second().unsigned_abs())
        .map_err(Status::internal)?;
    let expires = now
        .checked_add(SignedDuration::from_secs(seconds))
        .map_err(Status::internal)?;
    request.spec.expiration_seconds = Some(seconds);
    request.status = Some(TokenRequestStatus {
        expiration_timestamp: Time(expires),
        token: signed,
    });
    Ok(request)
}

/// Reads the request. Clients written in Go send a `status` without a time, which no answer could have.
fn requested(json: &[u8]) -> Result<TokenRequest, Status> {
    let mut body: Map<String, Value> = decode::body(json)?;
    body.remove("status");
    let request = serde_json::from_value(Value::Object(body));
    request.map_err(|error| Status::bad_request(format!("cannot read the request's body: {error}")))
}

/// The pod that the token is to live with; it must be the one that the client thinks of.
async fn bound_pod(
    resources: &Resources,
    namespace: &str,
    reference: Option<&BoundObjectReference>,
) -> Result<Option<Reference>, Status> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    let name = reference.name.clone().unwrap_or_default();
    if reference.kind.as_deref() != Some("Pod") {
        return Err(Status::bad_request(
            "cannot bind token for serviceaccount to a type other than Pod",
        ));
    }
    let pod = resources.get_typed::<Pod>(namespace, &name).await?;
    let uid = pod.metadata.uid.unwrap_or_default();
    match reference.uid.as_deref() {
        Some(wanted) if wanted != uid => Err(Status::new(
            Reason::Conflict,
            format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record ({uid})"
            ),
        )),
        _ => Ok(Some(Reference { name, uid })),
    }
}
