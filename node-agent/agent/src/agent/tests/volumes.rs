//! Volumes are there before anything of their pod starts, and go last.

use super::*;

fn with_map(map: &str) -> String {
    let container =
        format!(r#"{{"name":"web","image":"{IMAGE}","volumeMounts":[{{"name":"v","mountPath":"/etc"}}]}}"#);
    let volume = format!(r#"{{"name":"v","configMap":{{"name":"{map}"}}}}"#);
    pod(
        "web",
        "",
        &format!(r#"{{"containers":[{container}],"volumes":[{volume}]}}"#),
    )
}

#[tokio::test]
async fn volumes_come_before_the_sandbox_and_go_after_it() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with_map("conf")]).await;
        talk.until(|line| line == RUNNING).await;
        let mounts = bench.machine.spec("web-0").mounts;
        let places: Vec<String> = mounts
            .iter()
            .map(|mount| mount.destination.display().to_string())
            .collect();
        assert_eq!(
            places,
            ["/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
        );
        talk.say(Say::PodRemoved(PodRemoved {
            uid: "uid-web".to_owned(),
            ..PodRemoved::default()
        }))
        .await;
        bench
            .machine
            .until(|log| last(log) == "remove volumes uid-web")
            .await;
        let log = bench.machine.log();
        let order: Vec<&str> = log
            .iter()
            .map(String::as_str)
            .filter(|entry| !entry.starts_with("network"))
            .collect();
        assert_eq!(
            order,
            [
                "volumes web",
                "sandbox web",
                "start web-0",
                "signal web-0 9",
                "remove uid-web",
                "remove volumes uid-web"
            ]
        );
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_goes_on_when_it_appears() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with_map("late")]).await;
        let failed =
            "web event FailedMount MountVolume.SetUp failed for volume \"v\" : configmap \"late\" not found";
        talk.until(|line| line == failed).await;
        assert!(!bench.machine.log().iter().any(|entry| entry == "sandbox web"));
        talk.assign_with(&with_map("late"), "late").await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_takes_over_looks_the_volumes_over_and_leaves_the_containers_alone() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with_map("conf")]).await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
        let agent = bench.agent(&[&server]).await;
        let looked_over = |log: &[String]| log.iter().filter(|entry| *entry == "volumes web").count() == 2;
        bench.machine.until(looked_over).await;
        let starts = bench
            .machine
            .log()
            .into_iter()
            .filter(|entry| entry.starts_with("start"));
        assert_eq!(starts.count(), 1);
        agent.stop().await;
    })
    .await;
}
