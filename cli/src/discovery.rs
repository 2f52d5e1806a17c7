//! What kinds a server has, and which of them a word such as `deploy` or `pods.v1` means.

mod parse;

use anyhow::bail;
use flotilla_report::report;

use crate::client::{Cluster, RequestError};
use crate::manifest::suggest::nearest;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource of one version of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether this version is the one its group prefers.
    pub(crate) preferred: bool,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection, of all namespaces where there is none.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let prefix = if self.group.is_empty() { "/api" } else { "/apis" };
        let base = format!("{prefix}/{}", self.api_version());
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!(
                "{base}/namespaces/{}/{}",
                crate::client::escape(namespace),
                self.plural
            ),
            None => format!("{base}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!(
            "{}/{}",
            self.collection(Some(namespace)),
            crate::client::escape(name)
        )
    }

    pub(crate) fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    fn is_called(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short_names.iter().any(|name| name == word)
    }
}

/// All resources of a server, in its order of groups.
#[derive(Debug)]
pub(crate) struct Discovery {
    resources: Vec<Resource>,
}

impl Discovery {
    /// Asks the server, in two requests where it can aggregate, else one per version of a group.
    pub(crate) async fn load(cluster: &Cluster) -> Result<Discovery, RequestError> {
        let (core, groups) = futures::try_join!(
            cluster.get_as("/api", AGGREGATED),
            cluster.get_as("/apis", AGGREGATED)
        )?;
        let mut resources = Vec::new();
        for (answer, is_core) in [(core, true), (groups, false)] {
            if answer["kind"] == "APIGroupDiscoveryList" {
                resources.extend(parse::aggregated(&answer));
                continue;
            }
            let versions = if is_core {
                parse::core_versions(&answer)
            } else {
                parse::group_versions(&answer)
            };
            let lists = versions.iter().map(|version| cluster.get(&version.path));
            for (version, list) in versions.iter().zip(futures::future::join_all(lists).await) {
                match list {
                    Ok(list) => resources.extend(parse::resource_list(version, &list)),
                    // An extension server may be down; the other groups are still usable.
                    Err(error @ RequestError::Server(_)) => {
                        tracing::warn!(
                            path = version.path,
                            error = report(&error),
                            "cannot discover a group"
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Discovery { resources })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Resource] {
        &self.resources
    }

    /// What `pods`, `po`, `Pod`, `deployments.apps` or `deployments.v1.apps` means.
    pub(crate) fn find(&self, word: &str) -> anyhow::Result<&Resource> {
        let lower = word.to_lowercase();
        let (name, rest) = lower
            .split_once('.')
            .map_or((lower.as_str(), None), |(name, rest)| (name, Some(rest)));
        let fits = |resource: &&Resource| match rest {
            None => resource.preferred && resource.is_called(name),
            Some(rest) => {
                let versioned = format!("{}.{}", resource.version, resource.group);
                resource.is_called(name)
                    && (resource.preferred && resource.group == rest
                        || versioned.trim_end_matches('.') == rest)
            }
        };
        match self.resources.iter().find(fits) {
            Some(resource) => Ok(resource),
            None => bail!(
                "the server doesn't have a resource type \"{word}\"{}",
                self.suggestion(name)
            ),
        }
    }

    fn suggestion(&self, word: &str) -> String {
        let words = self.resources.iter().flat_map(|resource| {
            [resource.plural.as_str(), resource.singular.as_str()]
                .into_iter()
                .chain(resource.short_names.iter().map(String::as_str))
                // What the server computes has no name in the singular.
                .filter(|word| !word.is_empty())
        });
        nearest(word, words).map_or_else(
            || "; `flotilla api-resources` lists what it has".to_owned(),
            |near| format!(", did you mean \"{near}\"?"),
        )
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// The members of a category such as `all`.
    pub(crate) fn category<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| {
            resource.preferred
                && resource.allows("list")
                && resource.categories.iter().any(|known| known == name)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    /// A server with a few kinds, as its aggregated discovery tells.
    pub(crate) fn sample() -> Discovery {
        let resource = |name: &str, kind: &str, short: &[&str], scope: &str, categories: &[&str]| {
            json!({"resource": name, "singularResource": kind.to_lowercase(), "responseKind": {"kind": kind}, "scope": scope,
                "shortNames": short, "categories": categories, "verbs": ["get", "list", "watch", "create", "delete"]})
        };
        let core = json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [
            resource("pods", "Pod", &["po"], "Namespaced", &["all"]),
            resource("services", "Service", &["svc"], "Namespaced", &["all"]),
            resource("nodes", "Node", &["no"], "Cluster", &[]),
            resource("events", "Event", &["ev"], "Namespaced", &[]),
        ]}]}]});
        let groups = json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "resources": [resource("deployments", "Deployment", &["deploy"], "Namespaced", &["all"])]},
                {"version": "v1beta1", "resources": [resource("deployments", "Deployment", &["deploy"], "Namespaced", &["all"])]},
            ]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [resource("events", "Event", &["ev"], "Namespaced", &[])]}]},
        ]});
        let resources = parse::aggregated(&core)
            .into_iter()
            .chain(parse::aggregated(&groups))
            .collect();
        Discovery { resources }
    }

    fn check(word: &str, expected: Expect) {
        let shown = match sample().find(word) {
            Ok(resource) => format!("{} {}", resource.api_version(), resource.plural),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn words_are_names_short_names_or_qualified() {
        check("po", expect!["v1 pods"]);
        check("Pod", expect!["v1 pods"]);
        check("deployments.apps", expect!["apps/v1 deployments"]);
        check("deploy.v1beta1.apps", expect!["apps/v1beta1 deployments"]);
        check("pods.v1", expect!["v1 pods"]);
        check("ev", expect!["v1 events"]);
        check("events.events.k8s.io", expect!["events.k8s.io/v1 events"]);
        check(
            "deploymets",
            expect![[r#"the server doesn't have a resource type "deploymets", did you mean "deployments"?"#]],
        );
        check(
            "unicorns",
            expect![[
                r#"the server doesn't have a resource type "unicorns"; `flotilla api-resources` lists what it has"#
            ]],
        );
    }
}
