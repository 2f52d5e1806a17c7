//! Images that are imported from files.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use flotilla_cluster_tests::{Cluster, eventually, flotilla_binary, succeed, text};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
const IMAGE: &str = "images.test/app:1";

fn run(folder: &Path, program: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.current_dir(folder).args(words);
    succeed(command)
}

/// A docker archive as `docker save` writes it: one layer with one static program.
fn docker_archive(folder: &Path) -> PathBuf {
    fs::copy(flotilla_binary(), folder.join("app")).unwrap();
    run(folder, "tar", &["-cf", "layer.tar", "app"]);
    let digest = run(folder, "sha256sum", &["layer.tar"]);
    let digest = format!("sha256:{}", digest.split_whitespace().next().unwrap());
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/app", "demo"],
            "Cmd": ["--port", "9000"],
            "Env": ["DEMO_VERSION=imported"],
            "User": "1000:1000",
            "WorkingDir": "/work",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    run(
        folder,
        "tar",
        &["-cf", "image.tar", "manifest.json", "config.json", "layer.tar"],
    );
    folder.join("image.tar")
}

#[test]
fn an_imported_image_runs_and_can_be_removed() {
    let cluster = Cluster::up(1, 0);
    let data = cluster.folder().join(cluster.name()).join("server-1/agent");
    let data = data.to_str().unwrap();
    let image = |words: &[&str]| {
        let mut all = vec!["image", "--data-dir", data];
        all.extend(words);
        cluster.try_flotilla(&all)
    };
    let folder = tempfile::tempdir().unwrap();
    let archive = docker_archive(folder.path());
    let imported = image(&["import", archive.to_str().unwrap()]);
    assert_eq!(
        text(&imported.stdout),
        format!("imported {IMAGE}\n"),
        "{}",
        text(&imported.stderr)
    );
    assert!(text(&image(&["list"]).stdout).contains(IMAGE));

    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: app}}\nspec: {{containers: [{{name: app, image: '{IMAGE}'}}]}}\n"
    ));
    let running = || cluster.get(&["pod", "app"])["status"]["phase"] == "Running";
    eventually("the pod runs", LIMIT, || running().then_some(()));
    assert_eq!(cluster.fetch("app", 9000, "/version").trim(), "imported");

    assert!(image(&["rm", IMAGE]).status.success());
    assert!(!text(&image(&["list"]).stdout).contains(IMAGE));
    let again = image(&["rm", IMAGE]);
    assert!(
        text(&again.stderr).contains("there is no image"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        cluster.fetch("app", 9000, "/version").trim(),
        "imported",
        "a running container keeps its layers"
    );

    let broken = folder.path().join("broken.tar");
    fs::write(&broken, "this is no archive").unwrap();
    let refused = image(&["import", broken.to_str().unwrap()]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("broken.tar"),
        "{}",
        text(&refused.stderr)
    );
}
