//! Archives as tools write them, and archives as attackers do.

use std::fs::{self, File};
use std::io::Write;

use serde_json::{Value, json};

use super::*;
use crate::files::hex_of;

/// An archive under construction, in memory.
#[derive(Clone, Default)]
struct Members(Vec<(String, Vec<u8>)>);

impl Members {
    fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((name.to_owned(), bytes.into()));
    }

    fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        self.add(&format!("blobs/sha256/{}", hex_of(&digest)), bytes);
        digest
    }

    fn set(&mut self, name: &str, bytes: &[u8]) {
        let member = self.0.iter_mut().find(|(member, _)| member == name).unwrap();
        member.1 = bytes.to_vec();
    }

    fn write_tar(&self, path: &Path) {
        fs::write(path, self.tar()).unwrap();
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn write_folder(&self, path: &Path) {
        for (name, bytes) in &self.0 {
            let member = path.join(name);
            fs::create_dir_all(member.parent().unwrap()).unwrap();
            fs::write(member, bytes).unwrap();
        }
    }
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut members = Members::default();
    members.add(name, content);
    members.tar()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[&[u8]]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    json!({
        "architecture": architecture(), "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["run"], "Env": ["A=1"], "User": "web", "StopSignal": "SIGQUIT"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// An OCI layout with three layers: plain, gzip, zstd.
fn oci(annotations: &Value) -> Members {
    let layers = [layer("one", b"1"), layer("two", b"22"), layer("three", b"333")];
    let mut members = Members::default();
    let config = members.blob(
        config(&layers.each_ref().map(|layer| &layer[..]))
            .to_string()
            .as_bytes(),
    );
    let blobs = [
        layers[0].clone(),
        gzip(&layers[1]),
        zstd::encode_all(&layers[2][..], 3).unwrap(),
    ];
    let layers: Vec<Value> = blobs
        .iter()
        .map(|blob| json!({"digest": members.blob(blob), "size": blob.len()}))
        .collect();
    let manifest = members.blob(
        json!({"config": {"digest": config}, "layers": layers})
            .to_string()
            .as_bytes(),
    );
    let entry = json!({"digest": manifest, "annotations": annotations});
    members.add("index.json", json!({"manifests": [entry]}).to_string());
    members.add("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    members
}

struct Fixture {
    folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_limits(folder.path().join("images"), limits).unwrap();
        Self { folder, store }
    }

    fn import(&self, members: &Members) -> Result<Vec<String>, ImportError> {
        let path = self.folder.path().join("My_App-1.tar");
        members.write_tar(&path);
        self.store.import(&path)
    }

    fn refused(&self, members: &Members) -> String {
        let error = self.import(members).unwrap_err();
        assert!(self.store.list().unwrap().is_empty());
        let scratch = fs::read_dir(self.store.scratch_dir()).unwrap().count();
        assert_eq!(scratch, 0, "a refused image leaves nothing in scratch");
        format!("{error:?}")
            .replace("Layer { member", "")
            .split(" {")
            .next()
            .unwrap()
            .to_owned()
    }
}

#[test]
fn an_oci_tar_is_imported_with_every_compression() {
    let fixture = Fixture::new();
    let named = oci(&json!({"org.opencontainers.image.ref.name": "registry.example/app:v3"}));
    assert_eq!(fixture.import(&named).unwrap(), ["registry.example/app:v3"]);
    let image = fixture.store.resolve("registry.example/app:v3").unwrap().unwrap();
    let files: Vec<_> = image
        .layers
        .iter()
        .map(|layer| fs::read_dir(layer).unwrap().next().unwrap().unwrap())
        .collect();
    assert_eq!(
        files
            .iter()
            .map(|file| file.file_name().into_string().unwrap())
            .collect::<Vec<_>>(),
        ["three", "two", "one"]
    );
    assert_eq!(image.size_bytes, 6);
    assert_eq!(
        (image.config.user.as_str(), image.config.stop_signal.as_deref()),
        ("web", Some("SIGQUIT"))
    );
    let summary = fixture.store.list().unwrap().remove(0);
    assert_eq!(summary.created.as_deref(), Some("2024-01-02T03:04:05Z"));
}

#[test]
fn folders_and_compressed_archives_are_imported_alike() {
    let fixture = Fixture::new();
    let members = oci(&json!({}));
    let folder = fixture.folder.path().join("layout");
    members.write_folder(&folder);
    assert_eq!(
        fixture.store.import(&folder).unwrap(),
        ["docker.io/library/layout:latest"]
    );
    let path = fixture.folder.path().join("packed.tar.gz");
    fs::write(&path, gzip(&members.tar())).unwrap();
    assert_eq!(
        fixture.store.import(&path).unwrap(),
        ["docker.io/library/packed:latest"]
    );
    assert_eq!(
        fixture.store.list().unwrap()[0].references.len(),
        2,
        "one image with two names"
    );
}

#[test]
fn images_are_named_by_annotation_or_after_the_file() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.import(&oci(&json!({}))).unwrap(),
        ["docker.io/library/my-app-1:latest"]
    );
    let tag_only = oci(&json!({"org.opencontainers.image.ref.name": "v7"}));
    assert_eq!(
        fixture.import(&tag_only).unwrap(),
        ["docker.io/library/my-app-1:v7"]
    );
    let full = oci(
        &json!({"io.containerd.image.name": "docker.io/a/b:c", "org.opencontainers.image.ref.name": "c"}),
    );
    assert_eq!(fixture.import(&full).unwrap(), ["docker.io/a/b:c"]);
}

#[test]
fn docker_archives_are_imported_and_links_between_layers_followed() {
    let fixture = Fixture::new();
    let plain = layer("one", b"1");
    let config = config(&[&plain, &plain]).to_string();
    let name = format!("{}.json", hex_of(&sha256(config.as_bytes())));
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match link {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, name, target).unwrap();
            }
            None => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes).unwrap();
            }
        }
    };
    let manifest =
        json!([{"Config": name, "RepoTags": ["app:1", "app:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    add(&name, config.as_bytes(), None);
    add("a/layer.tar", &plain, None);
    add("b/layer.tar", &[], Some("../a/layer.tar"));
    add("manifest.json", manifest.to_string().as_bytes(), None);
    let path = fixture.folder.path().join("docker.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    assert_eq!(
        fixture.store.import(&path).unwrap(),
        ["docker.io/library/app:1", "docker.io/library/app:2"]
    );
    assert_eq!(fixture.store.resolve("app:2").unwrap().unwrap().layers.len(), 2);
}

#[test]
fn an_index_within_the_index_gives_this_machines_image() {
    let fixture = Fixture::new();
    let mut members = oci(&json!({}));
    let (_, index) = members
        .0
        .iter()
        .find(|(name, _)| name == "index.json")
        .unwrap()
        .clone();
    let mut inner: Value = serde_json::from_slice(&index).unwrap();
    inner["manifests"][0]["platform"] = json!({"os": "linux", "architecture": architecture()});
    let other = json!({"digest": format!("sha256:{}", "0".repeat(64)), "platform": {"os": "plan9", "architecture": "mips"}});
    inner["manifests"].as_array_mut().unwrap().insert(0, other);
    let digest = members.blob(inner.to_string().as_bytes());
    let entry = json!({"digest": digest, "annotations": {"org.opencontainers.image.ref.name": "many:1"}});
    members.set("index.json", json!({"manifests": [entry]}).to_string().as_bytes());
    assert_eq!(fixture.import(&members).unwrap(), ["docker.io/library/many:1"]);
    let image = fixture.store.resolve(&format!("many@{digest}")).unwrap().unwrap();
    assert_eq!(image.layers.len(), 3);
}

#[test]
fn wrong_digests_are_refused() {
    let fixture = Fixture::new();
    let good = oci(&json!({}));
    for at in 0..good.0.len() {
        let (name, bytes) = good.0[at].clone();
        if !name.starts_with("blobs/") {
            continue;
        }
        let mut bad = good.clone();
        let mut changed = bytes;
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        bad.set(&name, &changed);
        fixture.refused(&bad);
    }
    let mut other_diff = oci(&json!({}));
    let wrong = gzip(&layer("evil", b"!"));
    let (name, _) = other_diff.0[1].clone();
    other_diff.set(&name, &wrong);
    assert!(fixture.refused(&other_diff).contains("Digest"));
}

#[test]
fn archives_that_are_no_images_or_lack_blobs_are_refused() {
    let fixture = Fixture::new();
    assert_eq!(fixture.refused(&Members::default()), "NotAnImage");
    let mut missing = oci(&json!({}));
    missing.0.remove(2);
    assert_eq!(fixture.refused(&missing), "Missing");
    let mut broken = oci(&json!({}));
    broken.set("index.json", b"{");
    assert_eq!(fixture.refused(&broken), "Document");
    let mut outside = oci(&json!({}));
    outside.set(
        "index.json",
        br#"{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}"#,
    );
    assert_eq!(fixture.refused(&outside), "Document");
    let path = fixture.folder.path().join("text");
    fs::write(&path, "no archive at all").unwrap();
    assert!(fixture.store.import(&path).is_err());
    assert!(fixture.store.import(Path::new("/nowhere")).is_err());
}

#[test]
fn images_for_other_machines_are_refused() {
    let fixture = Fixture::new();
    let plain = layer("one", b"1");
    let mut config = config(&[&plain]);
    config["architecture"] = json!("s390x");
    let mut members = Members::default();
    members.add("c.json", config.to_string());
    members.add("l.tar", plain);
    members.add(
        "manifest.json",
        r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#,
    );
    assert_eq!(fixture.refused(&members), "Platform");
}

#[test]
fn sizes_and_ratios_are_capped() {
    let zeros = oci_with_layer(&layer("zeros", &vec![0; 1 << 20]));
    let small = Limits {
        layer_bytes_max: 1 << 19,
        ..Limits::default()
    };
    assert!(Fixture::with(small).import(&zeros).is_err());
    let ratio = Limits {
        ratio_max: 20,
        ratio_from_bytes: 1 << 18,
        ..Limits::default()
    };
    assert!(Fixture::with(ratio).import(&zeros).is_err());
    assert!(
        Fixture::with(Limits {
            layer_entries_max: 0,
            ..Limits::default()
        })
        .import(&zeros)
        .is_err()
    );
    assert!(
        Fixture::with(Limits {
            layers_max: 0,
            ..Limits::default()
        })
        .import(&zeros)
        .is_err()
    );
    assert!(
        Fixture::with(Limits {
            document_bytes_max: 10,
            ..Limits::default()
        })
        .import(&zeros)
        .is_err()
    );
    assert!(Fixture::new().import(&zeros).is_ok());
}

fn oci_with_layer(plain: &[u8]) -> Members {
    let mut members = Members::default();
    let config = members.blob(config(&[plain]).to_string().as_bytes());
    let layer = members.blob(&gzip(plain));
    let manifest = json!({"config": {"digest": config}, "layers": [{"digest": layer}]});
    let manifest = members.blob(manifest.to_string().as_bytes());
    members.add(
        "index.json",
        json!({"manifests": [{"digest": manifest}]}).to_string(),
    );
    members
}

#[test]
fn removal_takes_layers_that_nothing_needs() {
    let fixture = Fixture::new();
    let (a, b) = (layer("a", b"a"), layer("b", b"b"));
    for (name, layers) in [("one:1", vec![&a[..]]), ("two:1", vec![&a[..], &b[..]])] {
        let mut members = Members::default();
        members.add("c.json", config(&layers).to_string());
        members.add("a", a.clone());
        members.add("b", b.clone());
        let files: Vec<&str> = ["a", "b"].into_iter().take(layers.len()).collect();
        members.add(
            "manifest.json",
            json!([{"Config": "c.json", "RepoTags": [name], "Layers": files}]).to_string(),
        );
        fixture.import(&members).unwrap();
    }
    let held = fixture.store.hold("two:1", "uid.web-0").unwrap().unwrap();
    assert!(fixture.store.remove("two:1").unwrap());
    assert!(!fixture.store.remove("two:1").unwrap());
    assert!(fixture.store.resolve("two:1").unwrap().is_none());
    assert!(
        held.layers.iter().all(|layer| layer.exists()),
        "a running container keeps its layers"
    );
    assert_eq!(fixture.store.holders().unwrap(), ["uid.web-0"]);
    fixture.store.release("uid.web-0").unwrap();
    fixture.store.release("uid.web-0").unwrap();
    fixture.store.collect_garbage().unwrap();
    assert!(
        !held.layers[0].exists() && held.layers[1].exists(),
        "the shared layer stays"
    );
    let id = fixture.store.list().unwrap()[0].id.clone();
    assert!(fixture.store.remove(&id).unwrap());
    for folder in ["layers", "sizes", "blobs/sha256", "scratch", "holds"] {
        let left = fs::read_dir(fixture.folder.path().join("images").join(folder))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{folder}");
    }
}

#[test]
fn importers_and_collectors_work_side_by_side() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("app.tar");
    oci(&json!({})).write_tar(&path);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Its own Store, as another process would have.
                let store = Store::open(fixture.folder.path().join("images")).unwrap();
                for _ in 0..5 {
                    store.import(&path).unwrap();
                    store.remove("app").unwrap();
                }
            });
        }
    });
    fixture.store.import(&path).unwrap();
    let image = fixture.store.resolve("app").unwrap().unwrap();
    assert!(image.layers.iter().all(|layer| layer.is_dir()));
    File::open(image.layers[0].join("three")).unwrap();
}
