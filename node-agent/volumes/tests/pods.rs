//! Volumes of pods on this machine: real files, mounts and limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use flotilla_lifecycle::{Facts, Quantities, References};
use flotilla_volumes::{Options, Order, SetUpError, Tokens, Volumes};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// A node's volumes in a folder of their own.
struct Node {
    folder: tempfile::TempDir,
    volumes: Volumes,
}

impl Node {
    fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(Options {
            state_dir: folder.path().join("data"),
            run_dir: folder.path().join("run"),
        })
        .unwrap();
        Node { folder, volumes }
    }

    /// What an agent after this one has.
    fn next_agent(&self) -> Volumes {
        Volumes::open(Options {
            state_dir: self.folder.path().join("data"),
            run_dir: self.folder.path().join("run"),
        })
        .unwrap()
    }

    fn set_up(&self, pod: &Pod, references: &References, tokens: &Tokens) -> Result<(), Vec<SetUpError>> {
        let facts = Facts {
            pod,
            references,
            addresses: &[],
            host_addresses: &[],
            allocatable: &Quantities::default(),
            services: &[],
        };
        self.volumes.set_up(Order {
            facts: &facts,
            tokens,
            images: &BTreeMap::new(),
        })
    }

    /// Where the pod's only container sees each of its mounts, by mount path.
    fn places(&self, pod: &Pod) -> BTreeMap<String, PathBuf> {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = self
            .volumes
            .mounts(pod, &References::default(), container, &[])
            .unwrap();
        let place = |mount: flotilla_runtime::Mount| (mount.destination.display().to_string(), mount.source);
        mounts.into_iter().map(place).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for uid in self.volumes.pods().unwrap() {
            self.volumes.tear_down(&uid).unwrap();
        }
        self.volumes.close().unwrap();
    }
}

/// A pod with these volumes, each mounted at `/<its name>`.
fn pod(volumes: &Value, security: &Value) -> Pod {
    let names = volumes.as_array().unwrap().iter().map(|volume| &volume["name"]);
    let mounts: Vec<Value> = names
        .map(|name| json!({"name": name, "mountPath": format!("/{}", name.as_str().unwrap())}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "uid-1"},
        "spec": {"securityContext": security, "volumes": volumes,
            "containers": [{"name": "main", "volumeMounts": mounts}]},
    }))
    .unwrap()
}

fn settings(text: &str) -> References {
    let map = json!({"metadata": {"name": "settings"}, "data": {"color": text}});
    References {
        config_maps: [("settings".to_owned(), serde_json::from_value(map).unwrap())].into(),
        ..References::default()
    }
}

fn filled(path: &std::path::Path, bytes: usize) -> std::io::Result<()> {
    fs::write(path, vec![1; bytes])
}

#[test]
fn memory_holds_what_its_limit_says_and_no_more() {
    let node = Node::new();
    let volumes = json!([{"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let pod = pod(&volumes, &json!({}));
    node.set_up(&pod, &References::default(), &Tokens::default())
        .unwrap();
    let cache = &node.places(&pod)["/cache"];
    filled(&cache.join("fits"), 900 << 10).unwrap();
    let refused = filled(&cache.join("more"), 200 << 10).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fs::metadata(cache).unwrap().mode() & 0o7777, 0o777);

    // Another look, by a later agent, changes nothing.
    node.next_agent();
    node.set_up(&pod, &References::default(), &Tokens::default())
        .unwrap();
    assert!(cache.join("fits").exists());
    node.volumes.tear_down("uid-1").unwrap();
    node.volumes.tear_down("uid-1").unwrap();
    assert!(!cache.exists());
    assert_eq!(node.volumes.pods().unwrap(), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&cache.display().to_string()));
}

#[test]
fn files_follow_their_objects() {
    let node = Node::new();
    let volumes = json!([
        {"name": "config", "configMap": {"name": "settings", "defaultMode": 0o440}},
        {"name": "scratch", "emptyDir": {}},
    ]);
    let pod = pod(&volumes, &json!({}));
    let tokens = Tokens::default();
    let failures = node.set_up(&pod, &References::default(), &tokens).unwrap_err();
    let told: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["MountVolume.SetUp failed for volume \"config\" : configmap \"settings\" not found"]
    );
    node.set_up(&pod, &settings("blue"), &tokens).unwrap();
    let places = node.places(&pod);
    let color = places["/config"].join("color");
    assert_eq!(fs::read_to_string(&color).unwrap(), "blue");
    assert_eq!(fs::metadata(&color).unwrap().mode() & 0o777, 0o440);
    fs::write(places["/scratch"].join("kept"), "").unwrap();
    node.set_up(&pod, &settings("green"), &tokens).unwrap();
    assert_eq!(fs::read_to_string(&color).unwrap(), "green");
    assert!(places["/scratch"].join("kept").exists());
    // An object that goes away takes nothing from a pod that runs.
    node.set_up(&pod, &References::default(), &tokens).unwrap_err();
    assert_eq!(fs::read_to_string(&color).unwrap(), "green");
}

#[test]
fn the_group_of_the_pod_may_use_its_volumes() {
    let node = Node::new();
    let volumes = json!([
        {"name": "config", "configMap": {"name": "settings", "defaultMode": 0o400}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]);
    let pod = pod(&volumes, &json!({"fsGroup": 2000}));
    node.set_up(&pod, &settings("blue"), &Tokens::default()).unwrap();
    let places = node.places(&pod);
    let state = |path: PathBuf| {
        let found = fs::metadata(path).unwrap();
        (found.gid(), found.permissions().mode() & 0o7777)
    };
    assert_eq!(state(places["/config"].join("color")), (2000, 0o440));
    assert_eq!(state(places["/scratch"].clone()), (2000, 0o2777));
    assert_eq!(state(places["/memory"].clone()), (2000, 0o2777));
}

#[test]
fn tokens_that_are_shown_are_found_again() {
    let node = Node::new();
    let volumes = json!([{"name": "access", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}]);
    let pod = pod(&volumes, &json!({}));
    let wanted = flotilla_volumes::tokens_wanted(&pod);
    let tokens: Tokens = wanted
        .iter()
        .map(|wanted| (wanted.clone(), Ok("secret".to_owned())))
        .collect();
    node.set_up(&pod, &References::default(), &tokens).unwrap();
    let shown = node.next_agent().shown_tokens(&pod);
    assert_eq!(shown.into_values().collect::<Vec<_>>(), ["secret"]);
    let mounts = node
        .volumes
        .mounts(
            &pod,
            &References::default(),
            &pod.spec.as_ref().unwrap().containers[0],
            &[],
        )
        .unwrap();
    assert!(mounts[0].read_only);
}
