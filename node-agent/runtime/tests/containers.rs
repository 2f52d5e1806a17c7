//! Real containers: what a pod's containers see, and how they start and end.

mod support;

use flotilla_runtime::{Resources, StartContainerError, User};
use support::{Node, ended, eventually, find, log};

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
