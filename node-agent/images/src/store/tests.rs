//! What the store finds, keeps and collects.

use super::*;
use crate::{SpacePolicy, Usage};

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn put(store: &Store, name: &str) {
    let layer = sha256(b"layer");
    store.add_layer(&layer, |_| Ok::<_, StoreError>(7)).unwrap();
    let config = br#"{"config":{"Cmd":["x"]}}"#;
    let references = &[name.to_owned()];
    store
        .record(NewImage {
            references,
            manifest: None,
            config,
            layers: vec![layer],
            created: None,
            origin: Origin::Imported,
            public: false,
        })
        .unwrap();
}

#[test]
fn an_image_is_found_by_every_spelling_of_its_name() {
    let (_folder, store) = store();
    put(&store, "docker.io/library/app:latest");
    let image = store.resolve("app").unwrap().unwrap();
    for name in [
        "app:latest",
        "docker.io/app",
        "docker.io/library/app:latest",
        &image.id,
        &format!("app@{}", image.id),
    ] {
        assert_eq!(store.resolve(name).unwrap().unwrap().id, image.id, "{name}");
    }
    assert!(store.resolve("app:1").unwrap().is_none());
    assert!(matches!(store.resolve("App"), Err(StoreError::Reference(_))));
    assert_eq!(image.size_bytes, 7);
}

#[test]
fn damaged_files_are_reported_not_trusted() {
    let (folder, store) = store();
    put(&store, "docker.io/library/app:latest");
    let id = store.resolve("app").unwrap().unwrap().id;
    fs::write(store.blob(&id), r#"{"config":{"Cmd":["evil"]}}"#).unwrap();
    assert!(matches!(store.resolve("app"), Err(StoreError::Corrupt { .. })));
    fs::write(folder.path().join("index.json"), "{").unwrap();
    assert!(matches!(store.list(), Err(StoreError::Corrupt { .. })));
}

#[test]
fn what_a_crash_left_in_scratch_is_collected() {
    let (_folder, store) = store();
    fs::create_dir_all(store.scratch_dir().join("x/layer/deep")).unwrap();
    fs::write(store.scratch_dir().join("file"), "").unwrap();
    fs::create_dir_all(store.layer("sha256:orphan")).unwrap();
    let shared = store.lock_shared().unwrap();
    store.collect_garbage().unwrap();
    assert!(store.has_layer("sha256:orphan"), "not while an import runs");
    drop(shared);
    store.collect_garbage().unwrap();
    assert!(!store.has_layer("sha256:orphan"));
    assert_eq!(fs::read_dir(store.scratch_dir()).unwrap().count(), 0);
}

#[test]
fn holders_are_file_names() {
    let (_folder, store) = store();
    for name in ["", "../x", ".hidden", "a/b", &"x".repeat(256)] {
        assert!(
            matches!(store.hold("app", name), Err(StoreError::Holder(_))),
            "{name}"
        );
    }
    assert!(store.hold("app", "uid.web-0").unwrap().is_none());
    assert!(
        store.holders().unwrap().is_empty(),
        "an image that is not there is not held"
    );
}

#[test]
fn a_full_disk_costs_pulled_images_that_nobody_uses() {
    let (_folder, store) = store();
    let image = |name: &str, origin| {
        let layer = sha256(name.as_bytes());
        store.add_layer(&layer, |_| Ok::<_, StoreError>(7)).unwrap();
        let config = format!(r#"{{"config":{{"Cmd":["{name}"]}}}}"#);
        let reference = format!("docker.io/library/{name}:1");
        store
            .record(NewImage {
                references: &[reference],
                manifest: None,
                config: config.as_bytes(),
                layers: vec![layer],
                created: None,
                origin,
                public: false,
            })
            .unwrap();
    };
    for name in ["used", "pinned", "unused"] {
        image(name, Origin::Pulled);
    }
    image("imported", Origin::Imported);
    store.hold("used:1", "uid.main").unwrap();
    assert!(store.pin("pinned:1", true).unwrap());
    assert!(!store.pin("none:1", true).unwrap());
    let full = Usage {
        capacity: 1000,
        available: 0,
    };
    let policy = SpacePolicy {
        age_min: std::time::Duration::ZERO,
        ..SpacePolicy::default()
    };
    assert_eq!(
        store.free_space_of(full, &SpacePolicy::default()).unwrap().images,
        Vec::<String>::new(),
        "all are young"
    );
    let freed = store.free_space_of(full, &policy).unwrap();
    assert_eq!(freed.images, ["docker.io/library/unused:1"]);
    assert_eq!((freed.bytes, freed.bytes_wanted), (7, 200));
    let empty = Usage {
        available: 1000,
        ..full
    };
    store.release("uid.main").unwrap();
    assert!(store.free_space_of(empty, &policy).unwrap().images.is_empty());
    store.pin("pinned:1", false).unwrap();
    assert_eq!(store.free_space_of(full, &policy).unwrap().images.len(), 2);
    assert_eq!(store.list().unwrap().len(), 1, "what was imported stays");
    assert_eq!(fs::read_dir(store.root.join("used")).unwrap().count(), 1);
}
