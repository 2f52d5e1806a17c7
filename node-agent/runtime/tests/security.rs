//! How far a container is confined, and known ways out of one, tried.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use flotilla_runtime::{Capabilities, ExecSpec, Mount, Seccomp, StartContainerError, User};
use support::{Node, find, log, run_in};

#[tokio::test(flavor = "multi_thread")]
async fn system_calls_are_filtered_by_the_profile_in_containers_and_execs() {
    let node = Node::new();
    let pod = node.pod("p").await;
    for (name, no_new_privileges, uid) in [("a", false, 0), ("b", true, 0), ("c", false, 33)] {
        let mut spec = node.container(&pod, name, &["helper", "calls"]);
        spec.no_new_privileges = no_new_privileges;
        spec.user.uid = uid;
        let (_, text) = node.run(&pod, spec).await;
        assert!(text.contains("unshare EPERM"), "{name}: {text}");
        assert!(text.contains("Seccomp: 2"), "{name}: {text}");
    }
    let mut spec = node.container(&pod, "open", &["helper", "calls"]);
    spec.seccomp = Seccomp::Unconfined;
    let (_, text) = node.run(&pod, spec).await;
    assert!(
        text.contains("unshare done") && text.contains("Seccomp: 0"),
        "{text}"
    );

    fs::create_dir_all(node.dir.path().join("profiles")).unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    fs::write(node.dir.path().join("profiles/no-mkdir.json"), profile).unwrap();
    let mut spec = node.container(&pod, "own", &["helper", "pause"]);
    spec.seccomp = Seccomp::Localhost("no-mkdir.json".into());
    pod.start_container(spec).await.unwrap();
    let text = run_in(&pod, "own-0", &["helper", "calls"]).await;
    assert!(
        text.contains("mkdir ENOSPC") && text.contains("unshare done"),
        "{text}"
    );

    let mut spec = node.container(&pod, "missing", &["helper", "calls"]);
    spec.seccomp = Seccomp::Localhost("missing.json".into());
    let error = pod.start_container(spec).await.unwrap_err();
    assert!(
        error.to_string().contains("profiles/missing.json cannot be read"),
        "{error}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_has_the_nodes_devices_and_nothing_masked() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "main", &["helper", "pause"]);
    spec.privileged = true;
    spec.capabilities.add = vec!["ALL".into()];
    pod.start_container(spec).await.unwrap();
    let text = run_in(&pod, "main-0", &["helper", "calls"]).await;
    assert!(
        text.contains("Seccomp: 0") && text.contains("unshare done"),
        "{text}"
    );
    let devices = run_in(&pod, "main-0", &["helper", "list", "/dev"]).await;
    let ours: Vec<_> = fs::read_dir("/dev")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    let loops = ours
        .iter()
        .filter(|name| name.to_string_lossy().starts_with("loop"))
        .count();
    assert_eq!(
        devices.lines().filter(|name| name.starts_with("loop")).count(),
        loops,
        "{devices}"
    );
    let mounts = run_in(&pod, "main-0", &["helper", "status"]).await;
    assert!(
        !mounts.contains(" /proc/keys ") && mounts.contains(" /sys rw"),
        "{mounts}"
    );

    let mut plain = node.container(&pod, "plain", &["helper", "status"]);
    plain.apparmor_profile = None;
    let (_, mounts) = node.run(&pod, plain).await;
    assert!(
        mounts.contains(" /proc/keys ") && mounts.contains(" /sys ro"),
        "{mounts}"
    );
    let mut unmasked = node.container(&pod, "unmasked", &["helper", "status"]);
    unmasked.unmasked_proc = true;
    let (_, mounts) = node.run(&pod, unmasked).await;
    assert!(!mounts.contains(" /proc/keys "), "{mounts}");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apparmor_profile_that_cannot_be_applied_is_an_error() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "x", &["helper", "exit", "0"]);
    spec.apparmor_profile = Some("no-such-profile".into());
    let error = pod.start_container(spec).await.unwrap_err().to_string();
    assert!(
        error.contains("no-such-profile") && error.contains("on this node"),
        "{error}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_the_kernel_reads_as_no_change_are_refused() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let refused = async |user: User| {
        let mut spec = node.container(&pod, "x", &["helper", "identity"]);
        spec.user = user;
        let error = pod.start_container(spec).await.unwrap_err();
        assert!(matches!(error, StartContainerError::BadSpec { .. }), "{error}");
        assert!(error.to_string().contains("is not a user or group id"), "{error}");
    };
    for id in [u32::MAX, u32::MAX - 1, 1 << 31] {
        refused(User {
            uid: id,
            ..User::default()
        })
        .await;
        refused(User {
            gid: id,
            ..User::default()
        })
        .await;
        refused(User {
            additional_gids: vec![id],
            ..User::default()
        })
        .await;
    }
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// CVE-2024-21626: a working directory below a descriptor of the runtime's leads onto the node.
#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_of_the_runtime_leads_out() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let (_, text) = node
        .run(&pod, node.container(&pod, "list", &["helper", "descriptors"]))
        .await;
    let numbers: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(numbers, ["0", "1", "2", "3"], "3 is the listing itself: {text}");
    for number in 3..40 {
        let mut spec = node.container(&pod, &format!("cwd-{number}"), &["helper", "list", "../../../.."]);
        spec.cwd = format!("/proc/self/fd/{number}");
        let id = spec.id.clone();
        let path = spec.log_path.clone();
        if pod.start_container(spec).await.is_ok() {
            support::ended(&pod, &id).await;
            let seen = log(&path);
            assert!(
                !seen.contains(" F boot\n") && !seen.contains(" F work\n"),
                "{number}: {seen}"
            );
        }
    }
    // The same for programs executed later: the container makes a link, the exec follows it.
    let mut spec = node.container(&pod, "main", &["helper", "pause"]);
    spec.cwd = "/proc/self/fd/7".to_owned();
    if pod.start_container(spec).await.is_ok() {
        let refused = ExecSpec {
            container: "main-0".to_owned(),
            args: vec!["helper".to_owned(), "list".to_owned(), "../..".to_owned()],
            ..ExecSpec::default()
        };
        pod.exec(refused).await.unwrap_err();
    }
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_image_lead_no_mount_onto_the_node() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let layer = node.dir.path().join("evil");
    let outside = node.dir.path().join("outside");
    fs::create_dir_all(&layer).unwrap();
    fs::create_dir_all(&outside).unwrap();
    let up = "../".repeat(30);
    symlink(format!("/{up}{}", outside.display()), layer.join("data")).unwrap();
    symlink(&outside, layer.join("tmp")).unwrap();
    let shared = node.dir.path().join("shared");
    fs::write(&shared, "from the node").unwrap();
    for (name, target) in [("a", "/data/new"), ("b", "/tmp/new"), ("c", "/data")] {
        let mut spec = node.container(&pod, name, &["helper", "status"]);
        spec.lower_dirs.insert(0, layer.clone());
        spec.mounts = vec![Mount {
            source: shared.clone(),
            destination: target.into(),
            ..Mount::default()
        }];
        // Mounted below the container's own root or refused; never made on the node.
        let id = spec.id.clone();
        if pod.start_container(spec).await.is_ok() {
            support::ended(&pod, &id).await;
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
    }
    for name in ["dev", "proc", "sys"] {
        let layer = node.dir.path().join(format!("link-{name}"));
        fs::create_dir(&layer).unwrap();
        symlink(&outside, layer.join(name)).unwrap();
        let mut spec = node.container(&pod, &format!("link-{name}"), &["helper", "exit", "0"]);
        spec.lower_dirs.insert(0, layer);
        let error = pod.start_container(spec).await.unwrap_err().to_string();
        assert_eq!(error, format!("the image is refused: /{name} is not a directory"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// A container that changes what lies below masked paths while another starts from the same volume.
#[tokio::test(flavor = "multi_thread")]
async fn masked_paths_stay_masked() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "main", &["helper", "pause"]);
    spec.capabilities = Capabilities {
        add: vec!["ALL".into()],
        drop: Vec::new(),
    };
    pod.start_container(spec).await.unwrap();
    for (path, expected) in [("/proc/keys", ""), ("/proc/timer_list", "")] {
        assert_eq!(
            run_in(&pod, "main-0", &["helper", "read", path]).await,
            expected,
            "{path}"
        );
    }
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/sys/kernel/uevent_helper",
    ] {
        let text = run_in(&pod, "main-0", &["helper", "write", path]).await;
        assert!(
            text.contains("Read-only") || text.contains("Permission") || text.contains("No such"),
            "{path}: {text}"
        );
    }
    assert!(find(&pod, "main-0").unwrap().finished.is_none());
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
