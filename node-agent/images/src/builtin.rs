//! The built-in demo images, whose only layer is the flotilla executable itself.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::ioctl_ficlone;
use serde_json::json;

use crate::StoreError;
use crate::files::{At, sha256};
use crate::index::Origin;
use crate::manifest::architecture;
use crate::store::{NewImage, Store};

const VERSIONS: [&str; 2] = ["v1", "v2"];

impl Store {
    /// Makes `flotilla.dev/demo:v1` and `:v2` out of the flotilla executable, or brings them up to date.
    ///
    /// Both share one layer, which holds the executable as a hard link where the file system allows it.
    pub fn ensure_builtin(&self, executable: &Path) -> Result<(), StoreError> {
        let metadata = fs::metadata(executable).at("read", executable)?;
        let layer = layer_id(&metadata);
        let configs = VERSIONS.map(|version| config(version, &layer));
        let index = self.index()?;
        let current = VERSIONS.iter().zip(&configs).all(|(version, config)| {
            let target = index.references.get(&reference(version));
            target.is_some_and(|target| target.id == sha256(config.as_bytes()))
        });
        if current && self.has_layer(&layer) {
            return Ok(());
        }
        let shared = self.lock_shared()?;
        if !self.has_layer(&layer) {
            self.add_layer(&layer, |folder| {
                link_or_copy(executable, &folder.join("flotilla")).at("copy", executable)?;
                Ok::<_, StoreError>(metadata.len())
            })?;
        }
        for (version, config) in VERSIONS.iter().zip(&configs) {
            self.record(NewImage {
                references: &[reference(version)],
                manifest: None,
                config: config.as_bytes(),
                layers: vec![layer.clone()],
                created: None,
                origin: Origin::Builtin,
                public: false,
            })?;
        }
        drop(shared);
        self.collect_garbage()
    }
}

fn reference(version: &str) -> String {
    format!("flotilla.dev/demo:{version}")
}

/// Identifies the layer by what changes when the executable does. Hashing tens of megabytes at every start of a node
/// would cost more than the rest of the start.
fn layer_id(executable: &Metadata) -> String {
    let parts = [executable.dev(), executable.ino(), executable.size()]
        .map(|part| part.to_string())
        .join(" ");
    sha256(
        format!(
            "flotilla demo layer {parts} {} {}",
            executable.mtime(),
            executable.mtime_nsec()
        )
        .as_bytes(),
    )
}

fn config(version: &str, layer: &str) -> String {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/flotilla", "demo"],
            "Env": ["PATH=/", format!("DEMO_VERSION={version}")],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {"org.opencontainers.image.title": "flotilla demo", "org.opencontainers.image.version": version},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    })
    .to_string()
}

fn link_or_copy(executable: &Path, place: &Path) -> io::Result<()> {
    // A hard link shares the page cache with the running program. It must not be tried through /proc/self/exe,
    // which is another file system.
    let linked = executable
        .canonicalize()
        .and_then(|path| fs::hard_link(path, place));
    if linked.is_ok() && fs::metadata(place)?.permissions().mode() & 0o555 == 0o555 {
        return Ok(());
    }
    let _ = fs::remove_file(place);
    let (mut from, mut to) = (File::open(executable)?, File::create_new(place)?);
    if ioctl_ficlone(&to, &from).is_err() {
        io::copy(&mut from, &mut to)?;
    }
    to.set_permissions(fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn executable(folder: &Path, content: &str) -> std::path::PathBuf {
        let (path, fresh) = (folder.join("program"), folder.join("fresh"));
        fs::write(&fresh, content).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, &path).unwrap();
        path
    }

    #[test]
    fn both_versions_share_one_layer_that_is_the_executable() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        let executable = executable(folder.path(), "one");
        store.ensure_builtin(&executable).unwrap();
        let [v1, v2] = ["v1", "v2"].map(|tag| {
            store
                .resolve(&format!("flotilla.dev/demo:{tag}"))
                .unwrap()
                .unwrap()
        });
        assert_eq!(v1.layers, v2.layers);
        assert_ne!(v1.id, v2.id);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(
            inode(&v1.layers[0].join("flotilla")),
            inode(&executable),
            "a hard link, not a copy"
        );
        assert_eq!(v2.config.entrypoint, ["/flotilla", "demo"]);
        assert!(v2.config.env.contains(&("DEMO_VERSION".into(), "v2".into())));
        assert_eq!(v2.config.exposed_ports, ["8080/tcp"]);
        assert_eq!(v1.size_bytes, 3);
    }

    #[test]
    fn a_new_executable_replaces_the_layer_and_the_same_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        let path = executable(folder.path(), "one");
        store.ensure_builtin(&path).unwrap();
        let before = store.index().unwrap();
        store.ensure_builtin(&path).unwrap();
        assert_eq!(store.index().unwrap(), before);
        let old = store
            .hold("flotilla.dev/demo:v1", "pod.container")
            .unwrap()
            .unwrap();
        store.ensure_builtin(&executable(folder.path(), "two!")).unwrap();
        let new = store.resolve("flotilla.dev/demo:v1").unwrap().unwrap();
        assert_eq!(
            fs::read_to_string(new.layers[0].join("flotilla")).unwrap(),
            "two!"
        );
        assert!(old.layers[0].exists(), "a running container keeps its layer");
        store.release("pod.container").unwrap();
        store.collect_garbage().unwrap();
        assert!(!old.layers[0].exists());
        assert_eq!(store.list().unwrap().len(), 2);
    }
}
