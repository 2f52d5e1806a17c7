//! Probes and hooks against a machine without containers, whose commands end as the test says.

use super::*;

/// Hears statuses and events, and acknowledges them, until both were heard.
async fn until(talk: &mut Talk, state: &str, event: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        match talk.hear().await {
            Said::Pod(report) => {
                let sequence = report.sequence;
                talk.say(Say::Ack(Ack { sequence })).await;
                heard.push(state_of(&serde_json::from_slice(&report.status_json).unwrap()));
            }
            Said::Event(event) => heard.push(format!("{}: {}", event.reason, event.message)),
            _ => {}
        }
        let has = |wanted: &str| wanted.is_empty() || heard.iter().any(|line| line == wanted);
        if has(state) && has(event) {
            return heard;
        }
    }
}

/// `Running 0 ready`: state and restarts of the first container.
fn state_of(status: &PodStatus) -> String {
    let first = &status.container_statuses.as_ref().unwrap()[0];
    let state = first.state.clone().unwrap_or_default();
    let word = match (state.waiting, state.terminated) {
        (Some(waiting), _) => waiting.reason.unwrap_or_default(),
        (_, Some(ended)) => ended.reason.unwrap_or_default(),
        _ => "Running".to_owned(),
    };
    let ready = if first.ready { " ready" } else { "" };
    format!("{word} {}{ready}", first.restart_count)
}

fn with(fields: &str) -> String {
    let spec = format!(r#"{{"containers":[{{"name":"web","image":"{IMAGE}",{fields}}}]}}"#);
    pod("web", "", &spec)
}

const EXEC: &str = r#""exec":{"command":["check"]},"periodSeconds":1,"failureThreshold":1"#;

#[tokio::test]
async fn readiness_follows_its_probe_and_outlives_the_agent() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with(&format!(r#""readinessProbe":{{{EXEC}}}"#))])
            .await;
        until(&mut talk, "Running 0 ready", "").await;
        agent.stop().await;
        // The next agent's first word is what the last one knew, before any probe has run.
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with(&format!(r#""readinessProbe":{{{EXEC}}}"#))])
            .await;
        let heard = until(&mut talk, "Running 0 ready", "").await;
        assert_eq!(heard, ["Running 0 ready"]);
        bench.machine.command_ends_with("check", 1);
        until(
            &mut talk,
            "Running 0",
            "Unhealthy: Readiness probe failed: it said check",
        )
        .await;
        bench.machine.command_ends_with("check", 0);
        until(&mut talk, "Running 0 ready", "").await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_container_that_fails_its_liveness_probe_is_restarted() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.machine.command_ends_with("check", 1);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&with(&format!(r#""livenessProbe":{{{EXEC}}}"#))])
            .await;
        let told = "Killing: Container web failed liveness probe, will be restarted";
        until(&mut talk, "Running 1 ready", told).await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_post_start_hook_that_fails_ends_its_container() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let hook = r#""lifecycle":{"postStart":{"exec":{"command":["false"]}}}"#;
        talk.lead(&[&with(hook)]).await;
        let told = "FailedPostStartHook: PostStartHook failed";
        until(&mut talk, "CrashLoopBackOff 1", told).await;
        let log = bench.machine.log();
        let begin = ["start web-0", "command web-0 false", "signal web-0 15"];
        assert_eq!(log[2..5], begin);
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_pre_stop_hook_runs_before_the_signal_and_no_longer_than_the_grace() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let hook = |command: &str| {
            format!(
                r#"{{"containers":[{{"name":"web","image":"{IMAGE}","lifecycle":{{"preStop":{{"exec":{{"command":["{command}"]}}}}}}}}]}}"#
            )
        };
        let gone = r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":1"#;
        let all = [("quick", "true"), ("endless", "hang"), ("failing", "false")];
        talk.lead(&[]).await;
        for (name, command) in all {
            talk.assign(&pod(name, "", &hook(command))).await;
            talk.until(|line| line.starts_with(&format!("{name} Running"))).await;
            talk.assign(&pod(name, gone, &hook(command))).await;
            talk.until(|line| line == format!("{name} gone")).await;
            let log = bench.machine.log();
            let end = [format!("command web-0 {command}"), "signal web-0 15".to_owned()];
            assert_eq!(log[log.len() - 3..log.len() - 1], end, "{name}");
        }
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_running_pod_is_resized_if_there_is_room() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let sized = |cpu: &str| with(&format!(r#""resources":{{"limits":{{"cpu":"{cpu}"}}}}"#));
        talk.lead(&[&sized("200m")]).await;
        until(&mut talk, "Running 0 ready", "").await;
        talk.assign(&sized("300m")).await;
        until(&mut talk, "", "ResizeCompleted: Pod resize completed").await;
        let log = bench.machine.log();
        assert_eq!(log.last().unwrap(), "resize web-0 Some(30000) Some(30000)");
        talk.assign(&sized("9999")).await;
        let heard = until(&mut talk, "Running 0 ready", "").await;
        assert!(
            !heard.iter().any(|line| line.contains("ResizeCompleted")),
            "{heard:?}"
        );
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn memory_that_is_in_use_is_not_taken_away() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let sized = |memory: &str| with(&format!(r#""resources":{{"limits":{{"memory":"{memory}"}}}}"#));
        talk.lead(&[&sized("64Mi")]).await;
        until(&mut talk, "Running 0 ready", "").await;
        bench.machine.fill_memory("uid-web", 50 << 20);
        talk.assign(&sized("32Mi")).await;
        let told =
            "attempting to set container \"web\" memory limit (33554432) below current usage (52428800)";
        until(&mut talk, "", &format!("ResizeError: {told}")).await;
        let log = bench.machine.log();
        assert!(!log.iter().any(|entry| entry.starts_with("resize")), "{log:?}");
        bench.machine.fill_memory("uid-web", 1 << 20);
        until(&mut talk, "", "ResizeCompleted: Pod resize completed").await;
        agent.stop().await;
    })
    .await;
}
