//! Which service answers a request: all ingresses of our classes as one table. Pure.
//!
//! The most specific host decides, then the longest path. What no rule names goes to the default backend of the oldest
//! ingress that has rules for the host, else to that of the oldest ingress without rules, else of any. Of two ingresses
//! that want the same, the older one gets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::declared::{Declared, Port, Target};
use crate::hosts::Hosts;
use crate::paths::{Paths, plain};

/// Namespace and name.
pub(crate) type Place = (Box<str>, Box<str>);

/// A port of a service, as an ingress names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServicePort {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) port: Port,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Route<B> {
    /// `namespace/name`, for people to read.
    pub(crate) ingress: Arc<str>,
    pub(crate) redirects: bool,
    pub(crate) goal: Goal<B>,
}

#[derive(Debug)]
pub(crate) enum Goal<B> {
    /// To one of a service's endpoints.
    Service(B),
    /// To something that is no service.
    Resource(Box<str>),
}

/// All routes.
#[derive(Debug)]
pub(crate) struct Table<B> {
    hosts: Hosts<Host<B>>,
    default: Option<Route<B>>,
}

#[derive(Debug)]
struct Host<B> {
    paths: Paths<Route<B>>,
    default: Option<Route<B>>,
}

impl<B> Table<B> {
    /// Ingresses, the oldest first; `backend` makes what stands for a service.
    pub(crate) fn new<'a>(
        ingresses: impl Iterator<Item = (&'a Place, &'a Declared)> + Clone,
        mut backend: impl FnMut(ServicePort) -> B,
    ) -> Self {
        let mut hosts = Hosts::default();
        for (place, declared) in ingresses.clone() {
            let mut route = RouteMaker::new(place, declared, &mut backend);
            for rule in &declared.rules {
                let host = hosts.entry_or(&rule.host, Host::empty);
                for path in &rule.paths {
                    host.paths.add(&path.path, path.kind, || route.make(&path.target));
                }
                if let (None, Some(target)) = (&host.default, &declared.default) {
                    host.default = Some(route.make(target));
                }
            }
        }
        let with_default = ingresses.filter_map(|(place, declared)| {
            let target = declared.default.as_ref()?;
            Some((place, declared, target))
        });
        // The first of those that are equal is the oldest.
        let default = with_default.min_by_key(|(_, declared, _)| !declared.rules.is_empty());
        let default = default
            .map(|(place, declared, target)| RouteMaker::new(place, declared, &mut backend).make(target));
        Self { hosts, default }
    }

    /// The route of a request; the host is in lower case and without its port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Route<B>> {
        let host = self.hosts.get(host);
        let named = host.and_then(|host| host.paths.get(&plain(path)).or(host.default.as_ref()));
        named.or(self.default.as_ref())
    }
}

impl<B> Host<B> {
    fn empty() -> Self {
        Self {
            paths: Paths::default(),
            default: None,
        }
    }
}

struct RouteMaker<'a, F> {
    namespace: &'a str,
    ingress: Arc<str>,
    redirects: bool,
    backend: F,
}

impl<'a, F> RouteMaker<'a, F> {
    fn new((namespace, name): &'a Place, declared: &Declared, backend: F) -> Self {
        Self {
            namespace,
            ingress: format!("{namespace}/{name}").into(),
            redirects: declared.redirects,
            backend,
        }
    }

    fn make<B>(&mut self, target: &Target) -> Route<B>
    where
        F: FnMut(ServicePort) -> B,
    {
        let goal = match target {
            Target::Service { name, port } => Goal::Service((self.backend)(ServicePort {
                namespace: self.namespace.into(),
                name: name.clone(),
                port: port.clone(),
            })),
            Target::Resource(shown) => Goal::Resource(shown.clone()),
        };
        Route {
            ingress: self.ingress.clone(),
            redirects: self.redirects,
            goal,
        }
    }
}

/// In the order in which ingresses get what several want: the oldest first.
pub(crate) fn by_age<'a>(
    ingresses: impl Iterator<Item = (&'a Place, &'a Declared)>,
) -> Vec<(&'a Place, &'a Declared)> {
    let sorted: BTreeMap<_, _> = ingresses
        // One without a time is one that this process has not heard of by a server: the youngest.
        .map(|(place, declared)| {
            (
                (declared.created.is_none(), declared.created, place),
                (place, declared),
            )
        })
        .collect();
    sorted.into_values().collect()
}

#[cfg(test)]
mod tests;
