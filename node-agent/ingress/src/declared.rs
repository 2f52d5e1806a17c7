//! An Ingress as far as it matters to the proxy, in little memory. Pure.

use std::fmt;

use flotilla_api::ingresses;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1 as networking;

use crate::paths::PathType;

/// One ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Of two that want the same, the older one gets it.
    pub(crate) created: Option<Timestamp>,
    pub(crate) class: Option<Box<str>>,
    pub(crate) rules: Box<[Rule]>,
    pub(crate) default: Option<Target>,
    pub(crate) tls: Box<[Tls]>,
    /// Plain requests are sent to HTTPS.
    pub(crate) redirects: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Empty: all hosts that no other rule names.
    pub(crate) host: Box<str>,
    pub(crate) paths: Box<[PathRule]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathRule {
    pub(crate) path: Box<str>,
    pub(crate) kind: PathType,
    pub(crate) target: Target,
}

/// Hosts, and the secret with their certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) hosts: Box<[Box<str>]>,
    pub(crate) secret: Box<str>,
}

/// What a rule leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Service {
        name: Box<str>,
        port: Port,
    },
    /// Another kind of object, which this proxy cannot serve.
    Resource(Box<str>),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// By its number.
    Number(u16),
    /// By its name.
    Name(Box<str>),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(number) => number.fmt(f),
            Port::Name(name) => f.write_str(name),
        }
    }
}

impl Declared {
    pub(crate) fn of(ingress: &networking::Ingress) -> Self {
        let created = ingress.metadata.creation_timestamp.as_ref();
        let spec = ingress.spec.clone().unwrap_or_default();
        Self {
            created: created.map(|time| time.0),
            class: ingresses::class_name(ingress).map(Into::into),
            rules: spec.rules.iter().flatten().map(rule).collect(),
            default: spec.default_backend.as_ref().and_then(target),
            tls: spec.tls.iter().flatten().map(tls).collect(),
            redirects: ingresses::redirects(ingress),
        }
    }
}

fn rule(rule: &networking::IngressRule) -> Rule {
    let listed = rule.http.iter().flat_map(|http| &http.paths);
    let paths = listed.filter_map(|one| {
        let path = one.path.as_deref().filter(|path| !path.is_empty());
        Some(PathRule {
            path: path.unwrap_or("/").into(),
            kind: PathType::of(&one.path_type),
            target: target(&one.backend)?,
        })
    });
    Rule {
        host: rule.host.as_deref().unwrap_or_default().into(),
        paths: paths.collect(),
    }
}

fn tls(tls: &networking::IngressTLS) -> Tls {
    let hosts = tls.hosts.iter().flatten();
    Tls {
        hosts: hosts.map(|host| host.as_str().into()).collect(),
        secret: tls.secret_name.as_deref().unwrap_or_default().into(),
    }
}

/// Nothing when the backend says nothing, which validation does not let pass.
fn target(backend: &networking::IngressBackend) -> Option<Target> {
    if let Some(resource) = &backend.resource {
        let shown = format!("{} {}", resource.kind, resource.name);
        return Some(Target::Resource(shown.into()));
    }
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref()?;
    let name = port.name.as_deref().filter(|name| !name.is_empty());
    let number = || port.number.and_then(|number| u16::try_from(number).ok());
    let port = match name {
        Some(name) => Port::Name(name.into()),
        None => Port::Number(number()?),
    };
    Some(Target::Service {
        name: service.name.as_str().into(),
        port,
    })
}
