//! The JSON documents of OCI layouts and docker archives, and the choice of a platform. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::ImageConfig;
use crate::reference::is_digest;

/// An index may point at an index; no tool nests deeper.
pub(crate) const INDEX_DEPTH_MAX: usize = 4;

/// Points at a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: Option<u64>,
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a manifest of an index runs on.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

/// An index or a manifest: which one is told by what it has.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// One image of a docker archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Vec<String>,
}

/// An image's configuration as it is stored.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) created: Option<String>,
    #[serde(default)]
    config: Option<ProcessConfig>,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ProcessConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl ConfigFile {
    /// The part that says what to run.
    pub(crate) fn into_image_config(self) -> ImageConfig {
        let config = self.config.unwrap_or_default();
        let env = config.env.unwrap_or_default().into_iter();
        ImageConfig {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: env
                .filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.into(), v.into())))
                .collect(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            labels: config.labels.unwrap_or_default(),
        }
    }
}

/// Why an image does not fit this machine, or itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is for other machines.
    Platform { has: String },
    /// Layers and configuration do not match, or are too many.
    Layers {
        layers: usize,
        diff_ids: usize,
        max: usize,
    },
    /// The configuration names a layer by what is no digest.
    DiffId(String),
}

/// Checks a configuration against this machine and the number of layers in its manifest.
pub(crate) fn check(config: &ConfigFile, layers: usize, max: usize) -> Result<(), Unfit> {
    let fits = |has: &str, wanted: &str| has.is_empty() || has == wanted;
    if !fits(&config.os, "linux") || !fits(&config.architecture, architecture()) {
        return Err(Unfit::Platform {
            has: format!("{}/{}", config.os, config.architecture),
        });
    }
    let diff_ids = config.rootfs.diff_ids.len();
    if layers != diff_ids || layers > max || layers == 0 {
        return Err(Unfit::Layers {
            layers,
            diff_ids,
            max,
        });
    }
    match config.rootfs.diff_ids.iter().find(|diff_id| !is_digest(diff_id)) {
        Some(wrong) => Err(Unfit::DiffId(wrong.clone())),
        None => Ok(()),
    }
}

/// The machine architecture in the words of OCI.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index that fits this machine. A manifest without a platform fits when it is the only one.
pub(crate) fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture();
    let chosen = manifests
        .iter()
        .find(|manifest| manifest.platform.as_ref().is_some_and(fits));
    chosen.or_else(|| match manifests {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}

/// True for what an index holds beside images: signatures, provenance.
pub(crate) fn is_attachment(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digest: &str, platform: Option<(&str, &str)>) -> Descriptor {
        Descriptor {
            digest: digest.into(),
            size: None,
            media_type: None,
            platform: platform.map(|(os, architecture)| Platform {
                architecture: architecture.into(),
                os: os.into(),
            }),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn an_index_gives_the_manifest_of_this_machine() {
        let other = if architecture() == "amd64" {
            "arm64"
        } else {
            "amd64"
        };
        let manifests = [
            descriptor("a", Some(("linux", other))),
            descriptor("b", Some(("windows", architecture()))),
            descriptor("c", Some(("linux", architecture()))),
        ];
        assert_eq!(choose(&manifests).map(|found| found.digest.as_str()), Some("c"));
        assert!(choose(&manifests[..2]).is_none());
        assert!(choose(&[descriptor("only", None)]).is_some());
        assert!(choose(&[descriptor("x", None), descriptor("y", None)]).is_none());
    }

    #[test]
    fn a_configuration_may_leave_everything_out() {
        let file: ConfigFile = serde_json::from_str(r#"{"config":null}"#).unwrap();
        assert_eq!(file.into_image_config(), ImageConfig::default());
        let file: ConfigFile = serde_json::from_str(
            r#"{"config":{"Cmd":null,"Env":["A=b=c","odd"],"ExposedPorts":{"80/tcp":{}}}}"#,
        )
        .unwrap();
        let config = file.into_image_config();
        assert_eq!(config.env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(config.exposed_ports, ["80/tcp"]);
    }
}
