//! What the files of config maps, secrets, downward API and projected volumes hold. Pure.
//!
//! The words of what is wrong are kubelet's.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_lifecycle::{Facts, field_value, resource_value};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath, Pod,
    ProjectedVolumeSource, Secret, SecretVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

/// Kubernetes' mode of files without another.
const READABLE: i32 = 0o644;
/// Kubernetes' lifetime of tokens without another.
const TOKEN_SECONDS: i64 = 3600;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// Whose it is, where that is not root.
    pub(crate) owner: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Files = BTreeMap<String, Entry>;

/// A service account token that a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenWanted {
    /// Whom it is meant for; empty: the API server.
    pub audience: String,
    /// How long it is to live.
    pub seconds: i64,
}

/// The tokens, or why there is none.
pub type Tokens = BTreeMap<TokenWanted, Result<String, String>>;

/// Every token that the pod's volumes show.
pub fn tokens_wanted(pod: &Pod) -> BTreeSet<TokenWanted> {
    token_places(pod)
        .into_iter()
        .map(|(_, _, wanted)| wanted)
        .collect()
}

/// Where the pod's volumes show tokens: the volume's name, and the path in it.
pub(crate) fn token_places(pod: &Pod) -> Vec<(String, String, TokenWanted)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut places = Vec::new();
    for volume in volumes {
        let sources = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        for source in sources.filter_map(|source| source.service_account_token.as_ref()) {
            places.push((volume.name.clone(), source.path.clone(), wanted(source)));
        }
    }
    places
}

fn wanted(source: &ServiceAccountTokenProjection) -> TokenWanted {
    TokenWanted {
        audience: source.audience.clone().unwrap_or_default(),
        seconds: source.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    }
}

/// Where contents come from.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) tokens: &'a Tokens,
}

impl Sources<'_> {
    pub(crate) fn config_map(&self, wanted: &ConfigMapVolumeSource) -> Result<Files, String> {
        let map = self.facts.references.config_maps.get(&wanted.name);
        config_map_files(
            map,
            &wanted.name,
            wanted.items.as_deref(),
            wanted.default_mode,
            wanted.optional,
        )
    }

    pub(crate) fn secret(&self, wanted: &SecretVolumeSource) -> Result<Files, String> {
        let name = wanted.secret_name.clone().unwrap_or_default();
        let secret = self.facts.references.secrets.get(&name);
        secret_files(
            secret,
            &name,
            wanted.items.as_deref(),
            wanted.default_mode,
            wanted.optional,
        )
    }

    pub(crate) fn downward(&self, wanted: &DownwardAPIVolumeSource) -> Result<Files, String> {
        self.downward_files(wanted.items.as_deref(), wanted.default_mode)
    }

    /// Everything that is wrong is told at once, as kubelet does it.
    pub(crate) fn projected(&self, wanted: &ProjectedVolumeSource) -> Result<Files, String> {
        let mut files = Files::new();
        let mut problems = Vec::new();
        for source in wanted.sources.iter().flatten() {
            match self.projection(source, wanted.default_mode) {
                Ok(found) => files.extend(found),
                Err(problem) => problems.push(problem),
            }
        }
        match problems.as_slice() {
            [] => Ok(files),
            [only] => Err(only.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    fn projection(&self, source: &VolumeProjection, mode: Option<i32>) -> Result<Files, String> {
        if let Some(wanted) = &source.config_map {
            let map = self.facts.references.config_maps.get(&wanted.name);
            return config_map_files(map, &wanted.name, wanted.items.as_deref(), mode, wanted.optional);
        }
        if let Some(wanted) = &source.secret {
            let secret = self.facts.references.secrets.get(&wanted.name);
            return secret_files(
                secret,
                &wanted.name,
                wanted.items.as_deref(),
                mode,
                wanted.optional,
            );
        }
        if let Some(downward) = &source.downward_api {
            return self.downward_files(downward.items.as_deref(), mode);
        }
        if let Some(token) = &source.service_account_token {
            return self.token(token, mode);
        }
        if source.cluster_trust_bundle.is_some() {
            return Err("ClusterTrustBundle projection is not supported on this node".to_owned());
        }
        Err("this kind of projection is not supported on this node".to_owned())
    }

    fn token(&self, source: &ServiceAccountTokenProjection, mode: Option<i32>) -> Result<Files, String> {
        let wanted = wanted(source);
        let token = match self.tokens.get(&wanted) {
            Some(Ok(token)) => token,
            Some(Err(problem)) => return Err(format!("failed to fetch token: {problem}")),
            None => return Err("failed to fetch token: nobody has asked for it".to_owned()),
        };
        let owner = only_user(self.facts.pod);
        let has_group = security(self.facts.pod).is_some_and(|context| context.fs_group.is_some());
        let entry = Entry {
            data: token.clone().into_bytes(),
            // Whoever it belongs to may read it, and its group by fsGroup; others have no business with it.
            mode: match owner.is_some() || has_group {
                true => 0o600,
                false => bits(mode),
            },
            owner,
        };
        Ok([(source.path.clone(), entry)].into())
    }

    fn downward_files(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: Option<i32>,
    ) -> Result<Files, String> {
        let mut files = Files::new();
        for item in items.unwrap_or_default() {
            let text = self.downward_text(item)?;
            files.insert(item.path.clone(), entry(text.into_bytes(), item.mode.or(mode)));
        }
        Ok(files)
    }

    fn downward_text(&self, item: &DownwardAPIVolumeFile) -> Result<String, String> {
        let meta = &self.facts.pod.metadata;
        if let Some(field) = &item.field_ref {
            return match field.field_path.as_str() {
                "metadata.labels" => Ok(format_map(meta.labels.as_ref())),
                "metadata.annotations" => Ok(format_map(meta.annotations.as_ref())),
                path => field_value(self.facts, path).map_err(|error| error.to_string()),
            };
        }
        let wanted = item
            .resource_field_ref
            .as_ref()
            .ok_or_else(|| format!("{}: neither fieldRef nor resourceFieldRef is given", item.path))?;
        let name = wanted.container_name.as_deref().unwrap_or_default();
        let spec = self.facts.pod.spec.as_ref();
        let mut containers = spec.into_iter().flat_map(|spec| {
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
        });
        let container = containers
            .find(|container| container.name == name)
            .ok_or_else(|| format!("container {name} not found"))?;
        resource_value(self.facts, container, wanted).map_err(|error| error.to_string())
    }
}

fn security(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodSecurityContext> {
    pod.spec.as_ref()?.security_context.as_ref()
}

/// The user that all containers of the pod run as, if the pod says so.
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = security(pod).and_then(|context| context.run_as_user);
    let all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let users: BTreeSet<Option<i64>> = all
        .map(|container| {
            let own = container.security_context.as_ref();
            own.and_then(|context| context.run_as_user).or(of_pod)
        })
        .collect();
    match users.into_iter().collect::<Vec<_>>().as_slice() {
        [Some(user)] => u32::try_from(*user).ok(),
        _ => None,
    }
}

fn bits(mode: Option<i32>) -> u32 {
    u32::try_from(mode.unwrap_or(READABLE)).unwrap_or(0o644) & 0o777
}

fn entry(data: Vec<u8>, mode: Option<i32>) -> Entry {
    Entry {
        data,
        mode: bits(mode),
        owner: None,
    }
}

fn config_map_files(
    map: Option<&ConfigMap>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Files, String> {
    let optional = optional == Some(true);
    let Some(map) = map else {
        return absent(optional, || format!("configmap \"{name}\" not found"));
    };
    let texts = map
        .data
        .iter()
        .flatten()
        .map(|(key, text)| (key.as_str(), text.as_bytes()));
    let bytes = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
    let missing = |key: &str| format!("configmap references non-existent config key: {key}");
    selected(texts.chain(bytes).collect(), items, mode, optional, missing)
}

fn secret_files(
    secret: Option<&Secret>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Files, String> {
    let optional = optional == Some(true);
    let Some(secret) = secret else {
        return absent(optional, || format!("secret \"{name}\" not found"));
    };
    let data = secret.data.iter().flatten();
    let data = data.map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
    let missing = |key: &str| format!("references non-existent secret key: {key}");
    selected(data.collect(), items, mode, optional, missing)
}

fn absent(optional: bool, problem: impl FnOnce() -> String) -> Result<Files, String> {
    match optional {
        true => Ok(Files::new()),
        false => Err(problem()),
    }
}

/// All keys under their own names, or the wanted ones under the wanted paths.
fn selected(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
    missing: impl Fn(&str) -> String,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = data.into_iter();
        return Ok(all
            .map(|(key, bytes)| (key.to_owned(), entry(bytes.to_vec(), mode)))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                files.insert(item.path.clone(), entry(bytes.to_vec(), item.mode.or(mode)));
            }
            None if optional => {}
            None => return Err(missing(&item.key)),
        }
    }
    Ok(files)
}

/// Labels or annotations, one a line, values quoted as Go quotes them.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            letter if letter.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
