//! How much of the disk a pod fills: its writable layers, its logs and the files that the agent keeps for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// The names of the folders that are a pod's: its uid, and `namespace_name_uid` for logs.
pub(super) fn names(pod: &Pod) -> [String; 2] {
    let meta = &pod.metadata;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let uid = part(&meta.uid);
    let log = format!("{}_{}_{uid}", part(&meta.namespace), part(&meta.name));
    [uid, log]
}

/// Bytes and files below the folders of these names.
pub(super) fn use_of(places: &[PathBuf], names: &[String]) -> (i64, i64) {
    let folders = places
        .iter()
        .flat_map(|place| names.iter().map(|name| place.join(name)));
    folders.fold((0, 0), |(bytes, files), folder| {
        let (more, other) = below(&folder);
        (bytes + more, files + other)
    })
}

/// Stays on the file system of the folder: what is mounted there is not the pod's to fill.
fn below(folder: &Path) -> (i64, i64) {
    let Ok(top) = fs::symlink_metadata(folder) else {
        return (0, 0);
    };
    let (mut bytes, mut files) = (0, 0);
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            // Of the link itself where it is one: what it leads to is counted where it is.
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != top.dev() {
                continue;
            }
            files += 1;
            bytes += i64::try_from(found.blocks().saturating_mul(512)).unwrap_or(0);
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_a_pods_folders_counts() {
        let folder = tempfile::tempdir().unwrap();
        let pod: Pod =
            serde_json::from_str(r#"{"metadata":{"name":"web","namespace":"d","uid":"u"}}"#).unwrap();
        let names = names(&pod);
        assert_eq!(names, ["u", "d_web_u"]);
        let deep = folder.path().join("u/upper/var");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("data"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", deep.join("link")).unwrap();
        let (bytes, files) = use_of(&[folder.path().to_owned(), "/nowhere".into()], &names);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(files, 4);
    }
}
