//! Namespaces and cgroups that a pod shares with its containers or the node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use flotilla_runtime::{
    ExecSpec, Mount, MountKind, PidNamespace, Pod, Propagation, QosClass, Resources, RunSandboxError,
    SandboxSpec, UpdateResourcesError,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use support::{Node, ended, eventually, find, log};

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_share_processes_see_each_other_and_orphans_are_reaped() {
    let node = Node::new();
    let pod = sandbox(&node, |spec| spec.pids = PidNamespace::Pod).await;
    pod.start_container(node.container(&pod, "first", &["helper", "pause"]))
        .await
        .unwrap();
    // Its child stays in the namespace when it ends, but not beyond its container.
    let (exit, _) = node
        .run(&pod, node.container(&pod, "leaves", &["helper", "leave-behind"]))
        .await;
    assert_eq!(exit.code, 0);
    eventually("nothing is left of it", || node.processes("leaves-0").is_empty()).await;
    let (_, text) = node
        .run(&pod, node.container(&pod, "second", &["helper", "processes"]))
        .await;
    assert!(text.contains("F 1 pause"), "{text}");
    assert_eq!(
        text.matches("helper pause").count(),
        1,
        "the first container's alone: {text}"
    );
    let (_, text) = node
        .run(
            &pod,
            node.container(&pod, "third", &["helper", "list", "/proc/1/root"]),
        )
        .await;
    assert!(text.contains("denied") || text.is_empty(), "{text}");
    pod.kill("first-0", libc::SIGKILL).await.unwrap();
    assert_eq!(ended(&pod, "first-0").await.code, 137);

    // The end of the namespace is the end of the sandbox, and the agent learns of it.
    pod.start_container(node.container(&pod, "last", &["helper", "pause"]))
        .await
        .unwrap();
    let pause = node.processes("pause");
    assert_eq!(pause.len(), 1);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pause[0]),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(ended(&pod, "last-0").await.code, 137);
    pod.exits().wait_for(|_| !pod.shim_alive()).await.unwrap();
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

async fn sandbox(node: &Node, change: impl FnOnce(&mut SandboxSpec)) -> Pod {
    let mut spec = node.sandbox("p");
    change(&mut spec);
    node.runtime.run_sandbox(spec).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_processes_and_ipc_are_shared_when_asked_for() {
    let node = Node::new();
    let pod = sandbox(&node, |spec| {
        spec.pids = PidNamespace::Node;
        spec.host_ipc = true;
    })
    .await;
    let started = pod
        .start_container(node.container(&pod, "main", &["helper", "pause"]))
        .await
        .unwrap();
    for kind in ["pid", "ipc"] {
        let of = |pid: String| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(started.pid.to_string()), of("self".to_owned()), "{kind}");
    }
    let (_, text) = node
        .run(&pod, node.container(&pod, "second", &["helper", "processes"]))
        .await;
    assert!(text.contains(&format!(" {} helper", started.pid)), "{text}");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn kernel_parameters_are_the_pods_own() {
    let node = Node::new();
    let parameter = "/proc/sys/net/core/somaxconn";
    let before = fs::read_to_string(parameter).unwrap();
    let pod = sandbox(&node, |spec| {
        spec.sysctls = [
            ("net.core.somaxconn".to_owned(), "77".to_owned()),
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
        ]
        .into();
    })
    .await;
    for (name, file, value) in [
        ("a", parameter, "77"),
        ("b", "/proc/sys/kernel/shm_rmid_forced", "1"),
    ] {
        let (_, text) = node
            .run(&pod, node.container(&pod, name, &["helper", "read", file]))
            .await;
        assert_eq!(text, format!("stdout F {value}\n"));
    }
    assert_eq!(fs::read_to_string(parameter).unwrap(), before);
    let mut forbidden = node.sandbox("q");
    forbidden.sysctls = [("vm.swappiness".to_owned(), "1".to_owned())].into();
    let error = node.runtime.run_sandbox(forbidden).await.unwrap_err();
    assert!(matches!(error, RunSandboxError::Sysctl { .. }), "{error}");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_pass_between_node_and_container_as_far_as_asked() {
    let node = Node::new();
    let shared = node.dir.path().join("shared");
    let none = None::<&str>;
    fs::create_dir(&shared).unwrap();
    mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &shared, none, MsFlags::MS_SHARED, none).unwrap();
    for name in ["later", "theirs"] {
        fs::create_dir(shared.join(name)).unwrap();
    }
    let pod = node.pod("p").await;
    let start = async |name: &str, propagation, args: &[&str]| {
        let mut spec = node.container(&pod, name, args);
        spec.mounts = vec![Mount {
            source: shared.clone(),
            destination: "/shared".into(),
            propagation,
            ..Mount::default()
        }];
        spec.capabilities.add = vec!["SYS_ADMIN".into()];
        let path = spec.log_path.clone();
        pod.start_container(spec).await.unwrap();
        eventually("it is ready", || log(&path).contains("ready")).await;
    };
    let inside = "/shared/later/inside";
    start("none", Propagation::None, &["helper", "wait-for", inside]).await;
    start(
        "follows",
        Propagation::HostToContainer,
        &["helper", "wait-for", inside],
    )
    .await;
    mount(
        Some("t"),
        &shared.join("later"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    fs::write(shared.join("later/inside"), "x").unwrap();
    assert_eq!(ended(&pod, "follows-0").await.code, 0);
    assert!(
        find(&pod, "none-0").unwrap().finished.is_none(),
        "it does not see the mount"
    );

    let theirs = shared.join("theirs/inside");
    start(
        "keeps",
        Propagation::HostToContainer,
        &["helper", "mount", "/shared/theirs"],
    )
    .await;
    assert!(!theirs.exists(), "a follower's mounts stay its own");
    start(
        "passes",
        Propagation::Bidirectional,
        &["helper", "mount", "/shared/theirs"],
    )
    .await;
    eventually("the container's mount is on the node", || theirs.exists()).await;
    pod.destroy().await.unwrap();
    for place in ["later", "theirs", "."] {
        umount2(&shared.join(place), MntFlags::MNT_DETACH).unwrap();
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_mounted_with_its_options() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "c", &["helper", "status"]);
    spec.mounts = vec![Mount {
        destination: "/cache".into(),
        kind: MountKind::Tmpfs,
        options: ["size=1024k", "mode=1777", "noexec"].map(str::to_owned).into(),
        ..Mount::default()
    }];
    let (_, text) = node.run(&pod, spec).await;
    let line = text.lines().find(|line| line.contains(" /cache ")).unwrap();
    assert!(line.contains("noexec") && line.contains("size=1024k"), "{line}");
    assert!(
        text.lines()
            .any(|line| line.contains(" /dev/shm ") && line.contains("size=65536k")),
        "{text}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_a_container_runs_and_its_use_is_told() {
    let node = Node::new();
    let pod = sandbox(&node, |spec| {
        spec.qos = QosClass::Burstable;
        spec.resources.cpu_shares = Some(512);
    })
    .await;
    let mut spec = node.container(&pod, "c", &["helper", "pause"]);
    spec.resources = Resources {
        cpu_quota: Some(20_000),
        memory_limit: Some(64 << 20),
        ..Resources::default()
    };
    pod.start_container(spec).await.unwrap();
    let quota = || node.limit("burstable/podp/c-0", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota(), node.by_version("20000", "20000 100000"));
    let weight = |cgroup: &str| node.limit(cgroup, "cpu.shares", "cpu.weight");
    assert_eq!(weight("burstable"), node.by_version("512", "20"));
    let larger = Resources {
        cpu_quota: Some(50_000),
        memory_limit: Some(128 << 20),
        ..Resources::default()
    };
    pod.update_resources("c-0", larger).await.unwrap();
    assert_eq!(quota(), node.by_version("50000", "50000 100000"));
    assert_eq!(
        node.limit("burstable/podp/c-0", "memory.limit_in_bytes", "memory.max"),
        "134217728"
    );
    pod.update_resources("c-0", Resources::default()).await.unwrap();
    assert_eq!(quota(), node.by_version("-1", "max 100000"));
    let heavier = Resources {
        cpu_shares: Some(2048),
        ..Resources::default()
    };
    pod.update_pod_resources(heavier).await.unwrap();
    assert_eq!(weight("burstable/podp"), node.by_version("2048", "79"));
    assert_eq!(weight("burstable"), node.by_version("2048", "79"));

    let (of_pod, containers) = pod.usage();
    let of_container = containers["c-0"];
    assert_eq!((containers.len(), of_container.processes), (1, 1));
    assert!(
        of_container.cpu_nanos > 0 && of_container.memory_bytes > 0,
        "{of_container:?}"
    );
    assert!(of_pod.cpu_nanos >= of_container.cpu_nanos, "{of_pod:?}");

    pod.kill("c-0", libc::SIGKILL).await.unwrap();
    ended(&pod, "c-0").await;
    let error = pod
        .update_resources("c-0", Resources::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, UpdateResourcesError::NotRunning { .. }),
        "{error}"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_no_more_processes_than_it_may() {
    const LIMIT: i64 = 12;
    let node = Node::new();
    let pod = sandbox(&node, |spec| spec.resources.pids = Some(LIMIT)).await;
    pod.start_container(node.container(&pod, "c", &["helper", "pause"]))
        .await
        .unwrap();
    let mut running = Vec::new();
    let refusal = loop {
        let spec = ExecSpec {
            container: "c-0".to_owned(),
            args: ["helper", "pause"].map(str::to_owned).into(),
            ..ExecSpec::default()
        };
        match pod.exec(spec).await {
            Ok(exec) => running.push(exec),
            Err(error) => break error,
        }
        assert!(running.len() < 50, "nothing holds it");
    };
    let count = node.processes("c-0").len();
    assert!((2..=12).contains(&count), "{count} processes: {refusal}");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
