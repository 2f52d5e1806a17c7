//! Brings the images of an archive into the store.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::archive::Archive;
use crate::files::sha256;
use crate::index::Origin;
use crate::layer::LayerError;
use crate::manifest::{
    ConfigFile, Descriptor, DockerImage, INDEX_DEPTH_MAX, Manifest, Unfit, architecture, check, choose,
    is_attachment,
};
use crate::reference::{is_digest, normalize};
use crate::store::{NewImage, Store, StoreError};
use crate::{Limits, ParseReferenceError};

/// An archive as a whole may be as large as this once decompressed.
const ARCHIVE_BYTES_MAX: u64 = 64 << 30;

/// Why an image could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}")]
    Open {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither an OCI layout nor a docker archive.
    #[error(
        "{path} is neither an OCI image layout nor a docker archive: it has no index.json and no manifest.json"
    )]
    NotAnImage {
        /// The archive.
        path: PathBuf,
    },
    /// A document of the archive cannot be read or understood.
    #[error("cannot read {member} of the archive")]
    Document {
        /// Name of the member.
        member: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The archive lacks a blob that it names.
    #[error("the archive has no {member}")]
    Missing {
        /// Name of the member.
        member: String,
    },
    /// A blob is not what its name says.
    #[error("{member} of the archive has digest {found}")]
    Digest {
        /// Name of the member.
        member: String,
        /// What the bytes have.
        found: String,
    },
    /// The image is for other machines.
    #[error("the archive has no image for linux/{}", architecture())]
    Platform,
    /// Layers and the configuration do not match, or are too many.
    #[error(
        "the image has {layers} layers and its configuration lists {diff_ids}; at most {max} are allowed"
    )]
    Layers {
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
        /// The limit.
        max: usize,
    },
    /// A layer was refused.
    #[error("cannot unpack layer {member}")]
    Layer {
        /// Name of the member.
        member: String,
        /// Why.
        source: LayerError,
    },
    /// The archive names the image in a way that is no reference.
    #[error("the archive has a malformed image name")]
    Reference(#[from] ParseReferenceError),
    /// The store failed.
    #[error("cannot change the image store")]
    Store(#[from] StoreError),
}

impl Store {
    /// Imports every image of an OCI layout (folder or tar) or docker archive, and returns their references.
    ///
    /// An image without a name is named after the file.
    pub fn import(&self, path: &Path) -> Result<Vec<String>, ImportError> {
        let shared = self.lock_shared()?;
        let imported = self.import_all(path);
        drop(shared);
        // Also after a failure: some layers may have been unpacked before it.
        self.collect_garbage()?;
        imported
    }

    fn import_all(&self, path: &Path) -> Result<Vec<String>, ImportError> {
        let archive = Archive::open(path, &self.scratch_dir(), ARCHIVE_BYTES_MAX).map_err(|source| {
            ImportError::Open {
                path: path.to_owned(),
                source,
            }
        })?;
        let source = Source {
            archive,
            stem: stem(path),
            limits: self.limits(),
        };
        let mut references = Vec::new();
        for image in source.images(path)? {
            references.extend(image.references.clone());
            self.add(&source, &image)?;
        }
        Ok(references)
    }

    fn add(&self, source: &Source, image: &Found) -> Result<(), ImportError> {
        let config: ConfigFile = parse(&image.config_member, &image.config)?;
        check(&config, image.layers.len(), self.limits().layers_max)
            .map_err(|unfit| unfit_for_import(unfit, &image.config_member))?;
        let diff_ids = config.rootfs.diff_ids;
        for (layer, diff_id) in image.layers.iter().zip(&diff_ids) {
            source.unpack_into(self, layer, diff_id)?;
        }
        self.record(NewImage {
            references: &image.references,
            manifest: image.manifest.as_deref(),
            config: &image.config,
            layers: diff_ids,
            created: config.created,
            origin: Origin::Imported,
            public: false,
        })?;
        Ok(())
    }
}

/// An image as the archive describes it.
struct Found {
    references: Vec<String>,
    manifest: Option<String>,
    config_member: String,
    config: Vec<u8>,
    layers: Vec<LayerMember>,
}

struct LayerMember {
    member: String,
    digest: Option<String>,
}

struct Source {
    archive: Archive,
    stem: String,
    limits: Limits,
}

impl Source {
    fn images(&self, path: &Path) -> Result<Vec<Found>, ImportError> {
        let docker: Vec<DockerImage> = match self.document("manifest.json")? {
            Some(bytes) => parse("manifest.json", &bytes)?,
            None => Vec::new(),
        };
        if let Some(bytes) = self.document("index.json")? {
            let index: Manifest = parse("index.json", &bytes)?;
            return self.oci_images(&index, &docker);
        }
        if docker.is_empty() {
            return Err(ImportError::NotAnImage {
                path: path.to_owned(),
            });
        }
        docker.iter().map(|image| self.docker_image(image)).collect()
    }

    fn oci_images(&self, index: &Manifest, docker: &[DockerImage]) -> Result<Vec<Found>, ImportError> {
        let images = index
            .manifests
            .iter()
            .filter(|descriptor| !is_attachment(descriptor));
        // Several entries without names of their own are one image for several platforms.
        let named = |descriptor: &&Descriptor| !annotated_names(descriptor).is_empty();
        let chosen: Vec<&Descriptor> = if index.manifests.iter().any(|descriptor| named(&descriptor)) {
            images.collect()
        } else {
            choose(&index.manifests).into_iter().collect()
        };
        let mut found: Vec<Found> = Vec::new();
        for descriptor in chosen {
            // One name may stand at several platforms' manifests.
            if descriptor.platform.is_some() && choose(std::slice::from_ref(descriptor)).is_none() {
                continue;
            }
            let image = self.oci_image(descriptor, docker)?;
            match found.iter_mut().find(|other| other.config == image.config) {
                Some(other) => other.references.extend(image.references),
                None => found.push(image),
            }
        }
        if found.is_empty() {
            Err(ImportError::Platform)
        } else {
            Ok(found)
        }
    }

    fn oci_image(&self, descriptor: &Descriptor, docker: &[DockerImage]) -> Result<Found, ImportError> {
        let mut digest = descriptor.digest.clone();
        let mut manifest: Manifest = parse(&digest, &self.blob(&digest)?)?;
        for _ in 0..INDEX_DEPTH_MAX {
            if manifest.manifests.is_empty() {
                break;
            }
            digest = choose(&manifest.manifests)
                .ok_or(ImportError::Platform)?
                .digest
                .clone();
            manifest = parse(&digest, &self.blob(&digest)?)?;
        }
        let config = manifest.config.ok_or(ImportError::Platform)?.digest;
        let names = self.names(descriptor, &config, docker);
        let layers = manifest.layers.into_iter();
        Ok(Found {
            references: names
                .iter()
                .map(|name| normalize(name))
                .collect::<Result<_, _>>()?,
            manifest: Some(descriptor.digest.clone()),
            config: self.blob(&config)?,
            config_member: config,
            layers: layers
                .map(|layer| {
                    let member = blob_member(&layer.digest)?;
                    Ok(LayerMember {
                        member,
                        digest: Some(layer.digest),
                    })
                })
                .collect::<Result<_, ImportError>>()?,
        })
    }

    /// Names by annotation, else by the docker manifest beside the index, else after the file.
    fn names(&self, descriptor: &Descriptor, config: &str, docker: &[DockerImage]) -> Vec<String> {
        let mut names = annotated_names(descriptor);
        for name in &mut names {
            if !name.contains(['/', ':']) {
                *name = format!("{}:{name}", self.stem);
            }
        }
        if names.is_empty() {
            let same = docker
                .iter()
                .filter(|image| config.ends_with(hex_name(&image.config)));
            names = same
                .flat_map(|image| image.repo_tags.clone().unwrap_or_default())
                .collect();
        }
        if names.is_empty() {
            names.push(self.stem.clone());
        }
        names
    }

    fn docker_image(&self, image: &DockerImage) -> Result<Found, ImportError> {
        let missing = || ImportError::Missing {
            member: image.config.clone(),
        };
        let config = self.document(&image.config)?.ok_or_else(missing)?;
        let (named, found) = (hex_name(&image.config), sha256(&config));
        if is_digest(&format!("sha256:{named}")) && !found.ends_with(named) {
            return Err(ImportError::Digest {
                member: image.config.clone(),
                found,
            });
        }
        let mut names = image.repo_tags.clone().unwrap_or_default();
        if names.is_empty() {
            names.push(self.stem.clone());
        }
        let layers = image.layers.iter();
        Ok(Found {
            references: names
                .iter()
                .map(|name| normalize(name))
                .collect::<Result<_, _>>()?,
            manifest: None,
            config_member: image.config.clone(),
            config,
            layers: layers
                .map(|member| LayerMember {
                    member: member.clone(),
                    digest: None,
                })
                .collect(),
        })
    }

    fn unpack_into(&self, store: &Store, layer: &LayerMember, diff_id: &str) -> Result<(), ImportError> {
        if store.has_layer(diff_id) {
            return Ok(());
        }
        let blob = self
            .archive
            .member(&layer.member)
            .map_err(|source| document_error(&layer.member, source))?;
        let blob = blob.ok_or_else(|| ImportError::Missing {
            member: layer.member.clone(),
        })?;
        let refused = |source| ImportError::Layer {
            member: layer.member.clone(),
            source,
        };
        store.add_layer(diff_id, |folder| {
            crate::layer::unpack_layer(blob, layer.digest.as_deref(), diff_id, folder, &self.limits)
                .map_err(refused)
        })?;
        // Read once more, now that it is known to be good.
        let again = self.archive.member(&layer.member);
        let again = again.map_err(|source| document_error(&layer.member, source))?;
        Ok(again.map_or(Ok(()), |blob| store.keep_for_peers(diff_id, blob))?)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImportError> {
        let member = blob_member(digest)?;
        let bytes = self.document(&member)?.ok_or_else(|| ImportError::Missing {
            member: member.clone(),
        })?;
        let found = sha256(&bytes);
        if found == digest {
            Ok(bytes)
        } else {
            Err(ImportError::Digest { member, found })
        }
    }

    fn document(&self, member: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let max = self.limits.document_bytes_max;
        let read = || {
            let Some(stream) = self.archive.member(member)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            stream.take(max + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > max {
                return Err(io::Error::other(format!("it has more than {max} bytes")));
            }
            Ok(Some(bytes))
        };
        read().map_err(|source| document_error(member, source))
    }
}

fn unfit_for_import(unfit: Unfit, config_member: &str) -> ImportError {
    match unfit {
        Unfit::Platform { .. } => ImportError::Platform,
        Unfit::Layers {
            layers,
            diff_ids,
            max,
        } => ImportError::Layers {
            layers,
            diff_ids,
            max,
        },
        Unfit::DiffId(wrong) => document_error(
            config_member,
            io::Error::other(format!("{wrong:?} is not a sha256 digest")),
        ),
    }
}

fn annotated_names(descriptor: &Descriptor) -> Vec<String> {
    let annotation = |key: &str| descriptor.annotations.get(key).cloned();
    let name =
        annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
    name.into_iter().collect()
}

fn blob_member(digest: &str) -> Result<String, ImportError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_digest(digest) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(document_error(
            digest,
            io::Error::other("only sha256 digests are supported"),
        )),
    }
}

fn document_error(member: &str, source: io::Error) -> ImportError {
    ImportError::Document {
        member: member.to_owned(),
        source,
    }
}

fn parse<T: DeserializeOwned>(member: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|error| document_error(member, error.into()))
}

/// `blobs/sha256/<hex>` or `<hex>.json` → `<hex>`.
fn hex_name(member: &str) -> &str {
    let name = member.rsplit('/').next().unwrap_or(member);
    name.strip_suffix(".json").unwrap_or(name)
}

/// The file's name without its endings, in letters that a reference may have.
fn stem(path: &Path) -> String {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = name
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let end = name
        .find(".tar")
        .or_else(|| name.find(".tgz"))
        .or_else(|| name.find(".oci"))
        .unwrap_or(name.len());
    let word = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    };
    let stem: String = name[..end].chars().map(word).collect();
    let stem = stem.trim_matches('-');
    if stem.is_empty() {
        "imported".to_owned()
    } else {
        stem.to_owned()
    }
}

#[cfg(test)]
mod tests;
