//! Failures of API requests, in the words that kubectl prints.

use std::fmt;

use crate::field::FieldError;
use crate::kind::Kind;

/// Why a request failed; becomes a `Status` object with an HTTP code at the API server's edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The machine-readable class of the failure.
    pub reason: Reason,
    /// The sentence for people.
    pub message: String,
    /// What the failure is about.
    pub details: Option<Details>,
}

/// The object and the causes of a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Group of the resource that was asked for.
    pub group: String,
    /// Resource (plural), or the kind for invalid objects, as Kubernetes has it.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object, where it is known.
    pub uid: String,
    /// One entry for each thing that is wrong.
    pub causes: Vec<Cause>,
    /// When a retry may help.
    pub retry_after_seconds: Option<u32>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Kubernetes' cause type, like `FieldValueInvalid`.
    pub reason: String,
    /// The sentence for people, without the field.
    pub message: String,
    /// Path of the field, like `spec.replicas`.
    pub field: String,
}

/// The machine-readable class of a failure; Kubernetes' `StatusReason`, but for `InsufficientStorage`, for which it
/// has none: there the words of etcd come through as an internal error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Kubernetes' own")]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    Gone,
    Expired,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    RequestEntityTooLarge,
    TooManyRequests,
    Timeout,
    ServerTimeout,
    ServiceUnavailable,
    InternalError,
    InsufficientStorage,
}

impl Reason {
    const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Invalid,
        Self::Gone,
        Self::Expired,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::UnsupportedMediaType,
        Self::RequestEntityTooLarge,
        Self::TooManyRequests,
        Self::Timeout,
        Self::ServerTimeout,
        Self::ServiceUnavailable,
        Self::InternalError,
        Self::InsufficientStorage,
    ];

    /// The reason with this spelling.
    pub fn parse(spelling: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == spelling)
    }

    /// The spelling in `status.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::TooManyRequests => "TooManyRequests",
            Self::Timeout => "Timeout",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::InternalError => "InternalError",
            Self::InsufficientStorage => "InsufficientStorage",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A failure without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(reason: Reason, kind: &Kind, name: &str, message: String) -> Self {
        let details = Details {
            group: kind.group.into(),
            kind: kind.resource.into(),
            name: name.into(),
            ..Details::default()
        };
        Self {
            reason,
            message,
            details: Some(details),
        }
    }

    /// `pods "x" not found`
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified_resource());
        Self::about(Reason::NotFound, kind, name, message)
    }

    /// `deployments.apps "web" already exists`
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified_resource());
        Self::about(Reason::AlreadyExists, kind, name, message)
    }

    /// `Operation cannot be fulfilled on pods "x": <why>`
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.qualified_resource()
        );
        Self::about(Reason::Conflict, kind, name, message)
    }

    /// The conflict of a writer whose copy of the object is stale.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// `pods "x" is forbidden: <why>`
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let resource = kind.qualified_resource();
        let message = match name {
            "" => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::about(Reason::Forbidden, kind, name, message)
    }

    /// `Deployment.apps "web" is invalid: <fields>`
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_fields(kind.group, kind.kind, name, errors)
    }

    /// `DeleteOptions.meta.k8s.io "" is invalid: <fields>`: the parameters of a request make no sense.
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        Self::invalid_fields("meta.k8s.io", kind, "", errors)
    }

    fn invalid_fields(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let details = Details {
            group: group.into(),
            kind: kind.into(),
            name: name.into(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..Details::default()
        };
        let mut problems: Vec<String> = Vec::new();
        for error in errors.iter().map(ToString::to_string) {
            if !problems.contains(&error) {
                problems.push(error);
            }
        }
        let problems = match problems.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let separator = if group.is_empty() { "" } else { "." };
        let message = format!("{kind}{separator}{group} \"{name}\" is invalid: {problems}");
        Self {
            reason: Reason::Invalid,
            message,
            details: Some(details),
        }
    }

    /// The request itself makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// `Internal error occurred: <what>`
    pub fn internal(what: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {what}");
        let cause = Cause {
            reason: String::new(),
            message: what.to_string(),
            field: String::new(),
        };
        let details = Details {
            causes: vec![cause],
            ..Details::default()
        };
        Self {
            reason: Reason::InternalError,
            message,
            details: Some(details),
        }
    }

    /// The resource version that was asked for has left the history; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// Nobody has logged in.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// The path leads nowhere.
    pub fn no_such_path() -> Self {
        let details = Details::default();
        let message = "the server could not find the requested resource".into();
        Self {
            reason: Reason::NotFound,
            message,
            details: Some(details),
        }
    }

    /// The resource is there, the verb is not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// Not now; nothing has happened.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// Too much at once; nothing has happened, and a retry after a second helps once others are done.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self {
            details: Some(Details {
                retry_after_seconds: Some(1),
                ..Details::default()
            }),
            ..Self::new(Reason::TooManyRequests, message)
        }
    }

    /// `Request entity too large: <what, and the limit>`
    pub fn too_large(what: impl fmt::Display) -> Self {
        let message = format!("Request entity too large: {what}");
        Self::new(Reason::RequestEntityTooLarge, message)
    }

    /// The store has no room for what grows; nothing has happened. Says how to make room, as retries do not.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(Reason::InsufficientStorage, message)
    }

    /// The answer did not come in time; the request may have been carried out.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Reason::Timeout, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    #[test]
    fn messages_are_those_that_kubectl_shows() {
        let pods = registry().by_kind("", "v1", "Pod").unwrap();
        let deployments = registry().by_kind("apps", "v1", "Deployment").unwrap();
        for (status, message) in [
            (Status::not_found(pods, "x"), "pods \"x\" not found"),
            (
                Status::already_exists(deployments, "web"),
                "deployments.apps \"web\" already exists",
            ),
            (
                Status::modified(deployments, "web"),
                "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (Status::forbidden(pods, "", "no"), "pods is forbidden: no"),
            (Status::forbidden(pods, "x", "no"), "pods \"x\" is forbidden: no"),
            (Status::internal("oops"), "Internal error occurred: oops"),
        ] {
            assert_eq!(status.to_string(), message);
        }
    }
}
