//! Reads a file that describes a static pod, and makes of it the pod that this node runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use flotilla_api::static_pods::{self, FILE, FROM_FILE, HASH, SEEN, SOURCE, object_reference};
use flotilla_api::{FieldValidation, Kind, Status, registry};
use flotilla_report::report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};

use super::plan::Found;

/// Kubelet reads no more of a file.
const BYTES_MAX: u64 = 10 << 20;
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Hexadecimal digits of a hash; kubelet's has as many.
const HASH_DIGITS: usize = 32;

/// Why a file is not followed.
#[derive(Debug, thiserror::Error)]
enum ReadManifestError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error("is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("is not YAML with one document")]
    Yaml(#[from] serde_yaml::Error),
    #[error("holds {found}, not a Pod of v1")]
    NotAPod { found: String },
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    #[error("metadata.name: Required value: a static pod needs a name")]
    NoName,
    #[error("static pod \"{name}\" can not reference {resource}: {field}")]
    Reference {
        name: String,
        resource: &'static str,
        field: String,
    },
}

impl From<Status> for ReadManifestError {
    fn from(status: Status) -> Self {
        ReadManifestError::Refused(Box::new(status))
    }
}

/// All files of the folder that describe pods; hidden ones do not, and neither do folders. No folder is an empty one.
pub(super) fn read_folder(folder: &Path, node_name: &str, now: Timestamp) -> io::Result<Found> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::new()),
        entries => entries?,
    };
    let mut found = Found::new();
    for entry in entries {
        let path = entry?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !is_manifest(file) || !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let pod = read(&path).and_then(|bytes| static_pod(&bytes, file, node_name, now));
        let told = pod
            .map(Box::new)
            .map_err(|error| format!("{} {}", path.display(), report(&error)));
        found.insert(file.to_owned(), told);
    }
    Ok(found)
}

fn is_manifest(file: &str) -> bool {
    let ending = file.rsplit_once('.').map(|(_, ending)| ending);
    !file.starts_with('.') && ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

fn read(path: &Path) -> Result<Vec<u8>, ReadManifestError> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(ReadManifestError::TooLarge);
    }
    Ok(bytes)
}

/// The pod of a file, as this node runs it.
fn static_pod(bytes: &[u8], file: &str, node_name: &str, now: Timestamp) -> Result<Pod, ReadManifestError> {
    let kind = registry().of::<Pod>();
    let mut pod = decode(kind, bytes, file)?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty());
    let name = name.ok_or(ReadManifestError::NoName)?;
    if let Some(found) = object_reference(&pod) {
        return Err(ReadManifestError::Reference {
            name,
            resource: found.resource,
            field: found.field,
        });
    }
    let mut identity = Sha256::new();
    for part in [node_name.as_bytes(), file.as_bytes(), &canonical(&pod)] {
        identity.update(part.len().to_le_bytes());
        identity.update(part);
    }
    let mut hash = format!("{:x}", identity.finalize());
    hash.truncate(HASH_DIGITS);
    settle(kind, &mut pod, format!("{name}-{node_name}"));
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    // Taints of the node say what others may do here, not what its own administrator may.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    kind.validate_create(&pod)?;
    mark(&mut pod, hash, file, now);
    Ok(pod)
}

fn decode(kind: &'static Kind, bytes: &[u8], file: &str) -> Result<Pod, ReadManifestError> {
    let value: serde_json::Value = serde_yaml::from_slice(bytes)?;
    let text = |field: &str| value[field].as_str().unwrap_or("nothing").to_owned();
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        let found = format!("a {} of {}", text("kind"), text("apiVersion"));
        return Err(ReadManifestError::NotAPod { found });
    }
    let decoded = kind.decode_value(value, FieldValidation::Warn)?;
    for warning in decoded.warnings {
        tracing::warn!(
            file,
            warning,
            "a static pod's file says something that is not followed"
        );
    }
    let pod = decoded.object.as_any().downcast_ref::<Pod>();
    Ok(pod.expect("the kind of pods decodes pods").clone())
}

/// What the file says, in one form for everything that means the same.
fn canonical(pod: &Pod) -> Vec<u8> {
    serde_json::to_vec(pod).expect("a pod is plain data")
}

/// Gives the pod its name and what Kubernetes fills in, and takes away what only the control plane may say.
fn settle(kind: &'static Kind, pod: &mut Pod, name: String) {
    let given = std::mem::take(&mut pod.metadata);
    pod.metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(
            given
                .namespace
                .filter(|namespace| !namespace.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
        ),
        labels: given.labels,
        annotations: given.annotations,
        ..ObjectMeta::default()
    };
    kind.set_defaults(pod);
    let spec = pod.spec.get_or_insert_default();
    (spec.service_account_name, spec.service_account) = (None, None);
}

fn mark(pod: &mut Pod, hash: String, file: &str, now: Timestamp) {
    pod.status = None;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.remove(static_pods::MIRROR);
    annotations.extend(BTreeMap::from([
        (SOURCE.to_owned(), FROM_FILE.to_owned()),
        (HASH.to_owned(), hash.clone()),
        (SEEN.to_owned(), now.to_string()),
        (FILE.to_owned(), file.to_owned()),
    ]));
    pod.metadata.uid = Some(hash);
}

#[cfg(test)]
mod tests;
