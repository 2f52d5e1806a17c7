//! The store's table of contents, one JSON file that is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::files::{At, write_atomically};
use crate::reference;

/// What names what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Normal references.
    pub(crate) references: BTreeMap<String, Target>,
    /// Images by id, the digest of their configuration.
    pub(crate) images: BTreeMap<String, ImageRecord>,
}

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Image id.
    pub(crate) id: String,
    /// Digest of the manifest that the reference was imported with; `name@digest` finds it by this.
    pub(crate) manifest: Option<String>,
}

/// What the store knows of an image without opening its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digests of the unpacked layers, bottom first.
    pub(crate) layers: Vec<String>,
    /// Size of all layers unpacked.
    pub(crate) size_bytes: u64,
    /// RFC 3339, as the image says.
    pub(crate) created: Option<String>,
    /// Only what can be had again is removed when the disk is full.
    #[serde(default)]
    pub(crate) origin: Origin,
    /// The operator wants it to stay.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// Its registry gave it without credentials.
    #[serde(default)]
    pub(crate) public: bool,
}

impl ImageRecord {
    /// Other nodes may have it by its name.
    pub(crate) fn is_public(&self) -> bool {
        match self.origin {
            Origin::Imported => true,
            Origin::Pulled => self.public,
            Origin::Builtin => false,
        }
    }

    /// It stays when the disk is full.
    pub(crate) fn is_kept(&self) -> bool {
        self.pinned || self.origin != Origin::Pulled
    }
}

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// An archive, which may be nowhere any more.
    #[default]
    Imported,
    /// A registry, where it can be had again.
    Pulled,
    /// The flotilla executable.
    Builtin,
}

impl Index {
    /// Reads the file; an absent one is an empty index.
    pub(crate) fn read(path: &Path) -> Result<Self, StoreError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Corrupt {
                path: path.to_owned(),
                source: source.into(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).at("read", path),
        }
    }

    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(self).map_err(|source| StoreError::Corrupt {
            path: path.to_owned(),
            source: source.into(),
        })?;
        // Not in the scratch folder, which may be emptied while only the index is locked.
        write_atomically(path.parent().unwrap_or(path), path, &bytes)
    }

    /// Id of the image that a normal reference or an id names.
    pub(crate) fn find(&self, normal: &str) -> Option<&str> {
        if let Some((id, _)) = self.images.get_key_value(normal) {
            return Some(id);
        }
        if let Some(target) = self.references.get(normal) {
            return Some(&target.id);
        }
        let digest = reference::digest(normal)?;
        let repository = reference::repository(normal);
        self.references
            .iter()
            .filter(|(name, _)| reference::repository(name) == repository)
            .find(|(_, target)| target.id == digest || target.manifest.as_deref() == Some(digest))
            .map(|(_, target)| target.id.as_str())
    }

    /// Removes a reference, or all references of an id. False: nothing was removed.
    pub(crate) fn remove(&mut self, normal: &str) -> bool {
        let before = self.references.len();
        self.references
            .retain(|name, target| name != normal && target.id != normal);
        let named: BTreeSet<&String> = self.references.values().map(|target| &target.id).collect();
        for (_, record) in self.images.iter_mut().filter(|(id, _)| !named.contains(id)) {
            record.pinned = false;
        }
        before != self.references.len()
    }

    /// Forgets images that no reference names and nobody pinned.
    pub(crate) fn drop_unreferenced(&mut self) {
        let named: BTreeSet<&String> = self.references.values().map(|target| &target.id).collect();
        self.images
            .retain(|id, record| record.pinned || named.contains(id));
    }

    /// `repository@digest` of an image; `asked` is the normal reference that it was found by.
    pub(crate) fn digest_reference(&self, id: &str, asked: &str) -> Option<String> {
        let named = self.references.iter().filter(|(_, target)| target.id == id);
        let digests = named.filter_map(|(name, target)| {
            let digest = target.manifest.as_deref()?;
            Some((name, format!("{}@{digest}", reference::repository(name))))
        });
        let closeness = |name: &str| {
            let is_same_repository = reference::repository(name) == reference::repository(asked);
            (name == asked, is_same_repository)
        };
        digests
            .max_by_key(|(name, _)| closeness(name))
            .map(|(_, digest)| digest)
    }

    /// Every `repository@digest` of an image, each once.
    pub(crate) fn digests_of(&self, id: &str) -> BTreeSet<String> {
        let named = self.references.iter().filter(|(_, target)| target.id == id);
        named
            .filter_map(|(name, target)| {
                let digest = target.manifest.as_deref()?;
                Some(format!("{}@{digest}", reference::repository(name)))
            })
            .collect()
    }

    /// Normal references of an image.
    pub(crate) fn references_of(&self, id: &str) -> Vec<String> {
        let named = self.references.iter().filter(|(_, target)| target.id == id);
        named.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let target = |id: &str, manifest: &str| Target {
            id: id.into(),
            manifest: Some(manifest.into()),
        };
        let record = ImageRecord {
            layers: vec![],
            size_bytes: 1,
            created: None,
            origin: Origin::Pulled,
            pinned: false,
            public: true,
        };
        Index {
            references: [
                (
                    "docker.io/library/a:1".to_owned(),
                    target("sha256:ida", "sha256:ma"),
                ),
                (
                    "docker.io/library/a:2".to_owned(),
                    target("sha256:ida", "sha256:ma"),
                ),
                (
                    "docker.io/library/b:1".to_owned(),
                    target("sha256:idb", "sha256:mb"),
                ),
            ]
            .into(),
            images: [
                ("sha256:ida".to_owned(), record.clone()),
                ("sha256:idb".to_owned(), record),
            ]
            .into(),
        }
    }

    #[test]
    fn an_image_is_found_by_name_id_and_digest_of_its_own_repository() {
        let index = index();
        assert_eq!(index.find("docker.io/library/a:1"), Some("sha256:ida"));
        assert_eq!(index.find("sha256:idb"), Some("sha256:idb"));
        assert_eq!(index.find("docker.io/library/a@sha256:ma"), Some("sha256:ida"));
        assert_eq!(index.find("docker.io/library/a:9@sha256:ida"), Some("sha256:ida"));
        assert_eq!(index.find("docker.io/library/a@sha256:mb"), None);
        assert_eq!(index.find("docker.io/library/c:1"), None);
    }

    #[test]
    fn an_image_is_told_by_the_digest_of_the_name_that_it_was_asked_by() {
        let mut index = index();
        let again = index.references["docker.io/library/a:1"].clone();
        index.references.insert("r.example/c:1".to_owned(), again);
        let told = |asked: &str| index.digest_reference("sha256:ida", asked).unwrap();
        assert_eq!(told("docker.io/library/a:2"), "docker.io/library/a@sha256:ma");
        assert_eq!(told("r.example/c:1"), "r.example/c@sha256:ma");
        assert_eq!(index.digests_of("sha256:ida").len(), 2);
        assert_eq!(index.digest_reference("sha256:none", "r.example/c:1"), None);
    }

    #[test]
    fn a_pinned_image_outlives_its_tag_but_not_its_removal() {
        let mut index = index();
        index.images.get_mut("sha256:idb").unwrap().pinned = true;
        let moved = index.references["docker.io/library/a:1"].clone();
        index.references.insert("docker.io/library/b:1".to_owned(), moved);
        index.drop_unreferenced();
        assert!(index.images.contains_key("sha256:idb"), "the tag moved on");
        let mut index = super::tests::index();
        index.images.get_mut("sha256:idb").unwrap().pinned = true;
        assert!(index.remove("docker.io/library/b:1"));
        index.drop_unreferenced();
        assert!(!index.images.contains_key("sha256:idb"));
    }

    #[test]
    fn an_image_goes_with_its_last_reference() {
        let mut index = index();
        assert!(index.remove("docker.io/library/a:1"));
        index.drop_unreferenced();
        assert!(index.images.contains_key("sha256:ida"));
        assert!(index.remove("docker.io/library/a:2"));
        assert!(!index.remove("docker.io/library/a:2"));
        index.drop_unreferenced();
        assert!(!index.images.contains_key("sha256:ida"));
        assert!(index.remove("sha256:idb"), "an id removes all its references");
        assert!(index.references.is_empty());
    }
}
