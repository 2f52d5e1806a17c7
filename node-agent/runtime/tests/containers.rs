//! Real containers: what a pod's containers see, and how they start and end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use flotilla_runtime::{Capabilities, Mount, Resources, SandboxSpec, StartContainerError, User, logs};
use support::{Node, ended, eventually, find, log};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends_with_its_code() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let (exit, log) = node
        .run(
            &pod,
            node.container(&pod, "say", &["helper", "say", "hello", "world"]),
        )
        .await;
    assert_eq!(
        (exit.code, exit.signal, exit.oom_killed, exit.unknown),
        (0, None, false, false)
    );
    assert!(
        log.contains("stdout F hello\n") && log.contains("stderr F world\n"),
        "{log}"
    );
    let (exit, _) = node
        .run(&pod, node.container(&pod, "fail", &["/bin/helper", "exit", "42"]))
        .await;
    assert_eq!(exit.code, 42);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_folder_that_is_a_mount_covers_what_is_below_it() {
    let node = Node::new();
    let run_dir = node.dir.path().join("mounted");
    std::fs::create_dir(&run_dir).unwrap();
    let below = std::fs::File::open(&run_dir).unwrap();
    nix::mount::mount(
        Some("run"),
        &run_dir,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let runtime = node.runtime_at(run_dir.clone());
    let pod = runtime.run_sandbox(node.sandbox("p")).await.unwrap();
    let (exit, _) = node
        .run(&pod, node.container(&pod, "say", &["helper", "say", "a", "b"]))
        .await;
    assert_eq!(exit.code, 0);
    let uncovered = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&below));
    assert_eq!(std::fs::read_dir(uncovered).unwrap().count(), 0);
    pod.destroy().await.unwrap();
    runtime.close().unwrap();
    nix::mount::umount2(&run_dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_localhost_and_host_name() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let server = node.container(&pod, "server", &["helper", "listen", "8080"]);
    let path = server.log_path.clone();
    pod.start_container(server).await.unwrap();
    eventually("the server listens", || log(&path).contains("ready")).await;
    let (exit, text) = node
        .run(
            &pod,
            node.container(&pod, "client", &["helper", "connect", "8080"]),
        )
        .await;
    assert_eq!((exit.code, text.as_str()), (0, "stdout F host-p host-p\n"));
    let (exit, text) = node
        .run(
            &pod,
            node.container(&pod, "second", &["helper", "listen", "8080"]),
        )
        .await;
    assert_eq!(exit.code, 1);
    assert!(text.contains("AddrInUse"), "{text}");
    let other = node.pod("q").await;
    let (exit, _) = node
        .run(
            &other,
            node.container(&other, "client", &["helper", "connect", "8080"]),
        )
        .await;
    assert_eq!(exit.code, 1, "another pod must not reach it");
    other.destroy().await.unwrap();
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_delivered_and_sigkill_ends_what_ignores_it() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let polite = node.container(&pod, "polite", &["helper", "until-term"]);
    let path = polite.log_path.clone();
    pod.start_container(polite).await.unwrap();
    eventually("the container waits for its signal", || {
        log(&path).contains("ready")
    })
    .await;
    pod.kill("polite-0", libc::SIGTERM).await.unwrap();
    assert_eq!(ended(&pod, "polite-0").await.code, 7);

    pod.start_container(node.container(&pod, "stubborn", &["helper", "pause"]))
        .await
        .unwrap();
    pod.kill("stubborn-0", libc::SIGTERM).await.unwrap();
    pod.remove_container("stubborn-0")
        .await
        .expect_err("a running container is not removed");
    assert!(find(&pod, "stubborn-0").unwrap().finished.is_none());
    pod.kill("stubborn-0", libc::SIGKILL).await.unwrap();
    let exit = ended(&pod, "stubborn-0").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
    pod.kill("stubborn-0", libc::SIGKILL)
        .await
        .expect("a finished container needs no kill");
    pod.remove_container("stubborn-0").await.unwrap();
    assert!(find(&pod, "stubborn-0").is_none());
    pod.kill("stubborn-0", libc::SIGKILL)
        .await
        .expect_err("it is unknown now");
    pod.remove_container("stubborn-0")
        .await
        .expect("nothing to remove is fine");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed_is_told_apart() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let start = async |args: &[&str]| {
        let error = pod
            .start_container(node.container(&pod, "x", args))
            .await
            .unwrap_err();
        assert!(find(&pod, "x-0").is_none());
        format!("{} {error}", error.exit_code())
    };
    assert_eq!(
        start(&["nothing"]).await,
        "127 exec: \"nothing\": executable file not found in $PATH"
    );
    assert_eq!(
        start(&["/no/thing"]).await,
        "127 exec: \"/no/thing\": stat /no/thing: no such file or directory"
    );
    assert_eq!(
        start(&["not-executable"]).await,
        "126 exec: \"not-executable\": permission denied"
    );
    assert_eq!(start(&["/etc"]).await, "126 exec: \"/etc\": permission denied");
    assert_eq!(
        start(&["not-a-program"]).await,
        "126 exec: \"not-a-program\": exec format error"
    );
    assert_eq!(start(&[]).await, "128 no command specified");
    let (exit, _) = node
        .run(&pod, node.container(&pod, "x", &["helper", "exit", "0"]))
        .await;
    assert_eq!(exit.code, 0, "the id is free again");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_lead_out_of_their_root_are_refused() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let layer = node.dir.path().join("evil");
    std::fs::create_dir(&layer).unwrap();
    std::os::unix::fs::symlink("/etc", layer.join("dev")).unwrap();
    let mut spec = node.container(&pod, "x", &["helper", "exit", "0"]);
    spec.lower_dirs.insert(0, layer.clone());
    let error = pod.start_container(spec).await.unwrap_err();
    assert!(matches!(error, StartContainerError::BadImage { .. }), "{error}");

    std::fs::remove_file(layer.join("dev")).unwrap();
    std::os::unix::fs::symlink("/../../../../../../../../../tmp", layer.join("out")).unwrap();
    let mut spec = node.container(&pod, "y", &["helper", "identity"]);
    spec.lower_dirs.insert(0, layer);
    spec.cwd = format!("/out/{}", node.cgroup.trim_start_matches('/'));
    let (_, text) = node.run(&pod, spec.clone()).await;
    assert!(text.contains(&format!("cwd /tmp{}", node.cgroup)), "{text}");
    assert!(
        !PathBuf::from("/tmp")
            .join(node.cgroup.trim_start_matches('/'))
            .exists()
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn user_folder_and_environment_are_as_asked() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "web", &["helper", "identity"]);
    spec.user = User {
        uid: 33,
        gid: 44,
        additional_gids: vec![7, 8],
    };
    spec.cwd = "/made/for/it".to_owned();
    spec.env = vec![("GREETING".to_owned(), "hi there".to_owned())];
    let (_, text) = node.run(&pod, spec).await;
    for line in [
        "cwd /made/for/it",
        "user 33 44 [7, 8]",
        "pid 1",
        "env GREETING=hi there",
        "env HOME=/srv/web",
    ] {
        assert!(
            text.contains(&format!("F {line}\n")),
            "{line} is missing in {text}"
        );
    }
    assert_eq!(
        text.matches(" env ").count(),
        3,
        "nothing of the agent's environment: {text}"
    );

    let mut spec = node.container(&pod, "denied", &["helper", "identity"]);
    spec.user = User {
        uid: 33,
        gid: 33,
        additional_gids: vec![],
    };
    spec.cwd = "/etc/passwd".to_owned();
    let error = pod.start_container(spec).await.unwrap_err();
    assert!(
        matches!(error, StartContainerError::BadWorkingDirectory { .. }),
        "{error}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_mounts_and_privileges_are_as_asked() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let shared = node.dir.path().join("shared");
    std::fs::write(&shared, "from the node").unwrap();
    let write = async |name: &str, target: &str, read_only_rootfs: bool, read_only: bool| {
        let mut spec = node.container(&pod, name, &["helper", "write", target]);
        spec.read_only_rootfs = read_only_rootfs;
        spec.mounts = vec![Mount {
            source: shared.clone(),
            destination: "/etc/shared".into(),
            read_only,
            ..Mount::default()
        }];
        node.run(&pod, spec).await.1
    };
    assert!(write("a", "/tmp/x", false, true).await.contains("written"));
    assert!(
        write("b", "/tmp/x", true, true)
            .await
            .contains("Read-only file system")
    );
    assert!(
        write("c", "/etc/shared", false, true)
            .await
            .contains("Read-only file system")
    );
    assert_eq!(std::fs::read_to_string(&shared).unwrap(), "from the node");
    assert!(write("d", "/etc/shared", true, false).await.contains("written"));
    assert!(
        write("e", "/proc/sys/kernel/hostname", false, true)
            .await
            .contains("Read-only file system")
    );
    assert!(
        !node.dir.path().join("layer/tmp/x").exists(),
        "the image is never written to"
    );

    let mut spec = node.container(&pod, "f", &["helper", "status"]);
    spec.capabilities = Capabilities {
        add: vec!["NET_BIND_SERVICE".into()],
        drop: vec!["ALL".into()],
    };
    spec.no_new_privileges = true;
    let (_, text) = node.run(&pod, spec).await;
    assert!(text.contains("CapBnd:\t0000000000000400"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(
        text.contains("SigIgn:\t0000000000001000"),
        "SIGPIPE alone, by the program itself: {text}"
    );
    assert!(
        !text.contains("- cgroup "),
        "v1 hierarchies are not mounted: {text}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_an_oom_kill() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "hungry", &["helper", "eat", "200"]);
    spec.resources = Resources {
        memory_limit: Some(32 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(100_000),
        pids: Some(50),
        ..Resources::default()
    };
    let (exit, _) = node.run(&pod, spec).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_layers_are_stacked_in_order() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "deep", &["helper", "identity"]);
    for number in 0..100 {
        let layer = node.dir.path().join(format!("{number:-^100}"));
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        std::fs::write(
            layer.join("etc/passwd"),
            format!("root:x:0:0::/home-{number}:/bin/sh\n"),
        )
        .unwrap();
        spec.lower_dirs.insert(0, layer);
    }
    let (exit, text) = node.run(&pod, spec).await;
    assert_eq!(exit.code, 0);
    assert!(text.contains("env HOME=/home-99\n"), "{text}");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shims_executable_cannot_be_written_to() {
    use std::os::unix::fs::MetadataExt;
    let node = Node::new();
    let pod = node.pod("p").await;
    // The program that runs is the shim's own, reached as an attacker would; the whole capabilities help not.
    let mut spec = node.container(&pod, "attack", &["/proc/self/exe", "write", "/proc/self/exe"]);
    spec.capabilities.add = vec!["ALL".into()];
    let (_, text) = node.run(&pod, spec).await;
    assert!(
        text.contains("Text file busy") || text.contains("Read-only file system"),
        "{text}"
    );
    // Through the shim's own view of its executable: the mount refuses, not only the running program.
    let exe = format!("/proc/{}/exe", pod.shim_pid().unwrap());
    let same = std::fs::metadata(&exe).unwrap().ino() == std::fs::metadata(support::HELPER).unwrap().ino();
    assert!(same, "no copy is made");
    assert_ne!(
        nix::sys::statvfs::statvfs(exe.as_str()).unwrap().flags() & nix::sys::statvfs::FsFlags::ST_RDONLY,
        nix::sys::statvfs::FsFlags::empty()
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_starts_in_a_row_and_sixteen_at_once_succeed() {
    let node = Node::new();
    let pod = node.pod("p").await;
    for number in 0..50 {
        let name = format!("row-{number}");
        let spec = node.container(&pod, &name, &["helper", "exit", "3"]);
        pod.start_container(spec).await.unwrap();
        assert_eq!(ended(&pod, &format!("{name}-0")).await.code, 3);
        pod.remove_container(&format!("{name}-0")).await.unwrap();
    }
    let starts = (0..16).map(|number| {
        let (node, pod) = (&node, &pod);
        async move {
            let other = if number % 2 == 0 {
                pod.clone()
            } else {
                node.pod(&format!("o{number}")).await
            };
            let name = format!("once-{number}");
            let (exit, text) = node
                .run(
                    &other,
                    node.container(&other, &name, &["helper", "say", &name, ""]),
                )
                .await;
            assert_eq!(exit.code, 0);
            assert!(text.contains(&format!("stdout F {name}\n")), "{text}");
            other
        }
    });
    for pod in futures::future::join_all(starts).await {
        pod.destroy().await.unwrap();
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_the_hosts_network_keep_its_name() {
    let node = Node::new();
    let sandbox = SandboxSpec {
        host_network: true,
        ..node.sandbox("p")
    };
    let pod = node.runtime.run_sandbox(sandbox).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let (exit, text) = node
        .run(
            &pod,
            node.container(&pod, "client", &["helper", "connect", &port]),
        )
        .await;
    let name = nix::unistd::gethostname().unwrap();
    assert_eq!(
        (exit.code, text),
        (0, format!("stdout F  {}\n", name.to_string_lossy()))
    );
    server.join().unwrap();
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_is_rotated_and_read_whole() {
    const LINES: usize = 55_000;
    let node = Node::new();
    let pod = node.pod("p").await;
    let spec = node.container(&pod, "c", &["helper", "flood", &LINES.to_string(), "400"]);
    let path = spec.log_path.clone();
    pod.start_container(spec).await.unwrap();
    // The follower starts with the container and must see every line once, across two rotations.
    let finished = CancellationToken::new();
    let options = logs::ReadOptions {
        follow: true,
        ..logs::ReadOptions::default()
    };
    let mut reader = logs::LogReader::open(path.clone(), options, finished.clone())
        .await
        .unwrap();
    let read = async {
        let mut text = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    };
    let end = async {
        ended(&pod, "c-0").await;
        finished.cancel();
    };
    let (text, ()) = tokio::join!(read, end);
    let numbers: Vec<usize> = text.lines().map(|line| line[..8].parse().unwrap()).collect();
    assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 3);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_volume_is_mounted_and_its_content_outlives_the_container() {
    let node = Node::new();
    let volume = node.dir.path().join("volumes/p/data");
    std::fs::create_dir_all(volume.join("db")).unwrap();
    let other = node.dir.path().join("volumes/other");
    std::fs::create_dir_all(&other).unwrap();
    let volumes = node.dir.path().join("volumes");
    nix::mount::mount(
        Some(&volumes),
        &volumes,
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let pod = node.pod("p").await;
    let part = |part: &str, name: &str| {
        let mut spec = node.container(&pod, name, &["helper", "write", "/data/file"]);
        spec.mounts = vec![Mount {
            source: volume.clone(),
            destination: "/data".into(),
            sub_path: Some(part.into()),
            ..Mount::default()
        }];
        spec
    };
    let (exit, text) = node.run(&pod, part("db", "a")).await;
    assert_eq!((exit.code, text.as_str()), (0, "stdout F written\n"));
    node.run(&pod, part("new/one", "b")).await;
    std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
    let refused = pod.start_container(part("out", "c")).await.unwrap_err();
    let told = flotilla_report::report(&refused);
    assert!(told.contains("it leads out of the volume"), "{told}");
    for id in ["a-0", "b-0"] {
        pod.remove_container(id).await.unwrap();
    }
    for file in ["db/file", "new/one/file"] {
        assert_eq!(std::fs::read_to_string(volume.join(file)).unwrap(), "x");
    }
    pod.destroy().await.unwrap();
    // The fork that cleaned up after the refusal may be on its way out still.
    eventually("nothing is left", || node.leftovers().is_empty()).await;
    // No other sandbox held on to the mount.
    nix::mount::umount2(&volumes, nix::mount::MntFlags::empty()).unwrap();
}
