//! Questions that are asked by creating an object: who am I, may I, is this token good.

use std::collections::BTreeMap;

use flotilla_api::{Status, decode};
use http::{Method, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use serde::Serialize;

use crate::auth::{self, Attributes, GROUP_MASTERS, User};
use crate::body::Body;
use crate::call::Call;
use crate::path::ResourcePath;
use crate::render::json_response;
use crate::server::ApiServer;

/// A kind of question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) kind: &'static str,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// All questions that can be asked.
pub(crate) const REVIEWS: &[Review] = &[
    review(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview"),
    review(AUTHENTICATION, "tokenreviews", "TokenReview"),
    review(
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    review(AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    review(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview"),
];

const fn review(group: &'static str, resource: &'static str, kind: &'static str) -> Review {
    Review {
        group,
        version: "v1",
        resource,
        kind,
    }
}

/// The question behind a path.
pub(crate) fn find(group: &str, version: &str, resource: &str) -> Option<&'static Review> {
    REVIEWS
        .iter()
        .find(|one| (one.group, one.version, one.resource) == (group, version, resource))
}

/// Answers a question.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    path: &ResourcePath,
    review: &Review,
) -> Result<Response<Body>, Status> {
    if call.method != Method::POST || path.name.is_some() {
        return Err(Status::method_not_allowed());
    }
    let body = call.read_json().await?;
    match review.kind {
        "SelfSubjectReview" => answer(&who_am_i(&call.user, decode::body(&body)?)),
        "TokenReview" => {
            let mut review: TokenReview = decode::body(&body)?;
            let token = review.spec.token.clone().unwrap_or_default();
            review.status = Some(token_status(server.user_of_token(&token).await?));
            answer(&review)
        }
        "SelfSubjectAccessReview" => {
            let mut review: SelfSubjectAccessReview = decode::body(&body)?;
            let spec = &review.spec;
            let wanted = attributes(
                spec.resource_attributes.as_ref(),
                spec.non_resource_attributes.as_ref(),
            )?;
            review.status = Some(access_status(auth::allowed(&call.user, &wanted)));
            answer(&review)
        }
        "SelfSubjectRulesReview" => {
            let mut review: SelfSubjectRulesReview = decode::body(&body)?;
            review.status = Some(rules(&call.user));
            answer(&review)
        }
        _ => {
            let mut review: SubjectAccessReview = decode::body(&body)?;
            let spec = &review.spec;
            let wanted = attributes(
                spec.resource_attributes.as_ref(),
                spec.non_resource_attributes.as_ref(),
            )?;
            let user = User {
                name: spec.user.clone().unwrap_or_default(),
                groups: spec.groups.clone().unwrap_or_default(),
            };
            review.status = Some(access_status(auth::allowed(&user, &wanted)));
            answer(&review)
        }
    }
}

fn answer(review: &impl Serialize) -> Result<Response<Body>, Status> {
    Ok(json_response(
        StatusCode::CREATED,
        serde_json::to_vec(review).map_err(Status::internal)?,
    ))
}

fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        groups: Some(user.groups.clone()),
        ..UserInfo::default()
    }
}

fn who_am_i(user: &User, mut review: SelfSubjectReview) -> SelfSubjectReview {
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(user_info(user)),
    });
    review
}

fn token_status(user: Option<User>) -> TokenReviewStatus {
    match user {
        Some(user) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(&user)),
            ..TokenReviewStatus::default()
        },
        None => TokenReviewStatus {
            error: Some("invalid bearer token".to_owned()),
            ..TokenReviewStatus::default()
        },
    }
}

fn access_status(allowed: bool) -> SubjectAccessReviewStatus {
    SubjectAccessReviewStatus {
        allowed,
        ..SubjectAccessReviewStatus::default()
    }
}

fn attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<Attributes, Status> {
    match (resource, path) {
        (Some(resource), None) => {
            let resource = resource.clone();
            Ok(Attributes {
                verb: resource.verb.unwrap_or_default(),
                group: resource.group.unwrap_or_default(),
                resource: resource.resource.unwrap_or_default(),
                subresource: resource.subresource.unwrap_or_default(),
                namespace: resource.namespace.unwrap_or_default(),
                name: resource.name.unwrap_or_default(),
                path: None,
            })
        }
        (None, Some(path)) => {
            let path = path.clone();
            Ok(Attributes::of_path(
                &path.verb.unwrap_or_default(),
                &path.path.unwrap_or_default(),
            ))
        }
        _ => Err(Status::bad_request(
            "spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
    }
}

/// What `kubectl auth can-i --list` shows.
fn rules(user: &User) -> SubjectRulesReviewStatus {
    let all = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect::<Vec<_>>();
    let mut by_path: BTreeMap<&str, bool> = BTreeMap::new();
    for path in [
        "/healthz",
        "/livez",
        "/readyz",
        "/version",
        "/api",
        "/apis",
        "/openapi/v2",
        "/openapi/v3",
    ] {
        by_path.insert(path, auth::allowed(user, &Attributes::of_path("get", path)));
    }
    let readable: Vec<String> = by_path
        .into_iter()
        .filter(|(_, allowed)| *allowed)
        .map(|(path, _)| path.to_owned())
        .collect();
    let mut status = SubjectRulesReviewStatus {
        non_resource_rules: vec![NonResourceRule {
            non_resource_urls: Some(readable),
            verbs: all(&["get"]),
        }],
        ..SubjectRulesReviewStatus::default()
    };
    if user.is_in(GROUP_MASTERS) {
        status.resource_rules.push(ResourceRule {
            api_groups: Some(all(&["*"])),
            resources: Some(all(&["*"])),
            verbs: all(&["*"]),
            resource_names: None,
        });
        status.non_resource_rules = vec![NonResourceRule {
            non_resource_urls: Some(all(&["*"])),
            verbs: all(&["*"]),
        }];
    }
    status
}
