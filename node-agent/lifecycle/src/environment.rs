//! The environment of a container: its own variables, and those taken from fields, config maps and secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flotilla_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVar, EnvVarSource, PersistentVolume, PersistentVolumeClaim, Pod,
    ResourceFieldSelector, Secret,
};

use crate::expansion::expand;
use crate::resources::Quantities;

/// The objects that a pod names and that exist, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct References {
    /// Config maps.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets.
    pub secrets: BTreeMap<String, Secret>,
    /// Claims of persistent volumes.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// The persistent volumes that these claims are bound to.
    pub volumes: BTreeMap<String, PersistentVolume>,
}

/// What a container's environment may tell about its surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What the pod refers to.
    pub references: &'a References,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// The node's addresses.
    pub host_addresses: &'a [IpAddr],
    /// What stands in for a limit that is not set.
    pub allocatable: &'a Quantities,
    /// What variables tell of services; the container's own go before them.
    pub services: &'a [(String, String)],
}

/// Why a container's environment cannot be made. The messages are kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// No such config map or secret.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The field cannot be read.
    #[error("unsupported fieldPath: {path}")]
    Field {
        /// Its path.
        path: String,
    },
    /// The resource cannot be read.
    #[error("unsupported container resource: {resource}")]
    Resource {
        /// Its name.
        resource: String,
    },
    /// The other container does not exist.
    #[error("container {name} not found")]
    NoContainer {
        /// Its name.
        name: String,
    },
}

/// Adds the container's variables to `base` (the image's), in Kubernetes' order of precedence.
pub(crate) fn environment(
    facts: &Facts<'_>,
    container: &Container,
    base: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut variables = Variables::default();
    for (name, value) in facts.services {
        variables.set(name.clone(), value.clone());
    }
    for source in container.env_from.iter().flatten() {
        for (name, value) in from_source(facts, source)? {
            variables.set(name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(facts, container, variable, &variables)? {
            variables.set(variable.name.clone(), value);
        }
    }
    let mut all = Variables::default();
    for (name, value) in base.into_iter().chain(variables.0) {
        all.set(name, value);
    }
    Ok(all.0)
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.0.push((name, value)),
        }
    }
}

fn namespace(facts: &Facts<'_>) -> String {
    facts.pod.metadata.namespace.clone().unwrap_or_default()
}

fn config_map<'a>(facts: &Facts<'a>, name: &str) -> Result<&'a ConfigMap, EnvironmentError> {
    let missing = || EnvironmentError::NoObject {
        kind: "configmap",
        name: name.to_owned(),
    };
    facts.references.config_maps.get(name).ok_or_else(missing)
}

fn secret<'a>(facts: &Facts<'a>, name: &str) -> Result<&'a Secret, EnvironmentError> {
    let missing = || EnvironmentError::NoObject {
        kind: "secret",
        name: name.to_owned(),
    };
    facts.references.secrets.get(name).ok_or_else(missing)
}

fn from_source(facts: &Facts<'_>, source: &EnvFromSource) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut pairs = Vec::new();
    if let Some(wanted) = &source.config_map_ref {
        match config_map(facts, &wanted.name) {
            Ok(found) => pairs.extend(found.data.clone().unwrap_or_default()),
            Err(_) if wanted.optional == Some(true) => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(wanted) = &source.secret_ref {
        match secret(facts, &wanted.name) {
            Ok(found) => pairs.extend(secret_texts(found)),
            Err(_) if wanted.optional == Some(true) => {}
            Err(error) => return Err(error),
        }
    }
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (format!("{prefix}{name}"), value));
    Ok(pairs.filter(|(name, _)| is_variable_name(name)).collect())
}

/// Kubernetes takes any printable ASCII but `=` and leaves out keys that have something else.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

fn secret_texts(secret: &Secret) -> Vec<(String, String)> {
    let data = secret.data.iter().flatten();
    let texts = data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()));
    texts
        .chain(secret.string_data.clone().unwrap_or_default())
        .collect()
}

fn value(
    facts: &Facts<'_>,
    container: &Container,
    variable: &EnvVar,
    known: &Variables,
) -> Result<Option<String>, EnvironmentError> {
    match &variable.value_from {
        Some(source) if variable.value.as_deref().unwrap_or_default().is_empty() => {
            value_from(facts, container, source)
        }
        _ => Ok(Some(expand(
            variable.value.as_deref().unwrap_or_default(),
            |name| known.get(name),
        ))),
    }
}

fn value_from(
    facts: &Facts<'_>,
    container: &Container,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvironmentError> {
    if let Some(field) = &source.field_ref {
        return field_value(facts, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(facts, container, resource).map(Some);
    }
    let (found, optional, kind, name, key) = if let Some(wanted) = &source.config_map_key_ref {
        let map = config_map(facts, &wanted.name);
        let found = map.map(|map| map.data.as_ref().and_then(|data| data.get(&wanted.key)).cloned());
        (found, wanted.optional, "ConfigMap", &wanted.name, &wanted.key)
    } else if let Some(wanted) = &source.secret_key_ref {
        let secret = secret(facts, &wanted.name);
        let find = |secret: &Secret| {
            secret_texts(secret)
                .into_iter()
                .find(|(key, _)| *key == wanted.key)
        };
        let found = secret.map(|secret| find(secret).map(|(_, value)| value));
        (found, wanted.optional, "Secret", &wanted.name, &wanted.key)
    } else {
        return Ok(Some(String::new()));
    };
    match found {
        Ok(Some(value)) => Ok(Some(value)),
        Ok(None) | Err(_) if optional == Some(true) => Ok(None),
        Ok(None) => Err(EnvironmentError::NoKey {
            kind,
            namespace: namespace(facts),
            name: name.clone(),
            key: key.clone(),
        }),
        Err(error) => Err(error),
    }
}

/// The text of a field of the pod, by its path.
///
/// # Errors
///
/// When no such field can be shown.
pub fn field_value(facts: &Facts<'_>, path: &str) -> Result<String, EnvironmentError> {
    let meta = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => Ok(first(facts.host_addresses)),
        "status.hostIPs" => Ok(join(facts.host_addresses)),
        "status.podIP" => Ok(first(facts.addresses)),
        "status.podIPs" => Ok(join(facts.addresses)),
        _ => {
            let entry = |list: &Option<BTreeMap<String, String>>, key: &str| {
                list.as_ref()
                    .and_then(|list| list.get(key))
                    .cloned()
                    .unwrap_or_default()
            };
            if let Some(key) = subscript(path, "metadata.labels") {
                Ok(entry(&meta.labels, key))
            } else if let Some(key) = subscript(path, "metadata.annotations") {
                Ok(entry(&meta.annotations, key))
            } else {
                Err(EnvironmentError::Field {
                    path: path.to_owned(),
                })
            }
        }
    }
}

/// The key of `metadata.labels['key']`.
fn subscript<'a>(path: &'a str, of: &str) -> Option<&'a str> {
    path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']")
}

/// A resource of a container, or of another one that `wanted` names, in the wanted unit.
///
/// # Errors
///
/// When there is no such resource or container.
pub fn resource_value(
    facts: &Facts<'_>,
    container: &Container,
    wanted: &ResourceFieldSelector,
) -> Result<String, EnvironmentError> {
    let spec = facts.pod.spec.as_ref();
    let container = match wanted.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => {
            let all = spec.iter().flat_map(|spec| {
                spec.containers
                    .iter()
                    .chain(spec.init_containers.iter().flatten())
            });
            let missing = || EnvironmentError::NoContainer {
                name: name.to_owned(),
            };
            all.into_iter()
                .find(|container| container.name == name)
                .ok_or_else(missing)?
        }
    };
    let unsupported = || EnvironmentError::Resource {
        resource: wanted.resource.clone(),
    };
    let (list, name) = wanted.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let is_limit = list == "limits";
    let amounts = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let fallback = if is_limit {
        facts.allocatable.get(name)
    } else {
        None
    };
    let amount = amounts.and_then(|amounts| amounts.get(name)).or(fallback);
    let amount = match amount {
        Some(amount) => Quantity::of(amount).ok_or_else(unsupported)?,
        None => Quantity::ZERO,
    };
    let divisor = wanted.divisor.as_ref().and_then(Quantity::of);
    let in_units = divisor.and_then(|divisor| amount.in_units_of(divisor));
    Ok(in_units.unwrap_or_else(|| amount.value()).to_string())
}

#[cfg(test)]
mod tests;
