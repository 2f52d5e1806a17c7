//! Static pods: run by a file, shown by mirrors, and nobody's but the file's.

use std::fs;

use super::*;

impl Bench {
    fn write_static(&self, file: &str, name: &str, image: &str) {
        let folder = self.folder.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: web, image: '{image}'}}]}}}}"
        );
        // As careful tools write: whole or not at all.
        let new = folder.join(".new");
        fs::write(&new, manifest).unwrap();
        fs::rename(new, folder.join(file)).unwrap();
    }

    fn remove_static(&self, file: &str) {
        fs::remove_file(self.folder.path().join(FOLDER).join(file)).unwrap();
    }

    async fn machine_says(&self, what: &'static str) {
        self.machine
            .until(move |log| log.iter().any(|entry| entry == what))
            .await;
    }
}

impl Talk {
    /// Waits until the agent asks for a mirror, and makes it as a server does.
    async fn make_mirror(&mut self, uid: &str) -> serde_json::Value {
        let said = self.until(|line| line.starts_with("mirror ")).await;
        let json = last(&said).strip_prefix("mirror ").unwrap();
        let mut mirror: serde_json::Value = serde_json::from_str(json).unwrap();
        mirror["metadata"]["uid"] = uid.into();
        mirror["status"] = serde_json::json!({"phase": "Pending"});
        self.assign(&mirror.to_string()).await;
        mirror
    }
}

fn gone(uid: &str) -> Say {
    Say::PodRemoved(PodRemoved {
        namespace: "default".to_owned(),
        name: "web-agent-1".to_owned(),
        uid: uid.to_owned(),
    })
}

const SHOWN: &str = "web-agent-1 Running [web Running 0]";

#[tokio::test]
async fn a_static_pod_runs_before_any_server_answers_and_is_shown_by_a_mirror() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.write_static("web.yaml", "web", IMAGE);
        let agent = bench.agent(&[&server]).await;
        bench.machine_says("start web-0").await;
        let mut talk = server.talk().await;
        talk.lead(&[]).await;
        let mirror = talk.make_mirror("m1").await;
        let annotations = &mirror["metadata"]["annotations"];
        assert_eq!(
            annotations["kubernetes.io/config.mirror"],
            annotations["kubernetes.io/config.hash"]
        );
        assert_eq!(mirror["spec"]["nodeName"], "agent-1");
        talk.until(|line| line == SHOWN).await;
        // Somebody deletes the mirror: it goes, the pod stays, and there is another mirror.
        let mut deleted = mirror.clone();
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        talk.assign(&deleted.to_string()).await;
        talk.until(|line| line == "web-agent-1 gone").await;
        talk.say(gone("m1")).await;
        talk.make_mirror("m2").await;
        talk.until(|line| line == SHOWN).await;
        // A leader that knows nothing of it does not end it either.
        let started = bench.machine.log();
        assert_eq!(
            started.iter().filter(|entry| entry.starts_with("start")).count(),
            1,
            "{started:?}"
        );
        bench.remove_static("web.yaml");
        bench.machine_says("signal web-0 15").await;
        talk.until(|line| line == "web-agent-1 gone").await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_static_pod_outlives_its_agent_and_follows_its_file_without_a_server() {
    limited(async {
        let bench = Bench::new();
        bench.write_static("web.yaml", "web", IMAGE);
        let agent = bench.agent(&[]).await;
        bench.machine_says("start web-0").await;
        agent.stop().await;
        let agent = bench.agent(&[]).await;
        bench.write_static("db.json", "db", IMAGE);
        bench.machine_says("sandbox db-agent-1").await;
        let log = bench.machine.log();
        assert_eq!(
            log.iter().filter(|entry| *entry == "sandbox web-agent-1").count(),
            1,
            "{log:?}"
        );
        agent.stop().await;
        // Changed while nobody looked.
        bench.write_static("web.yaml", "web", NO_SUCH_IMAGE);
        bench.remove_static("db.json");
        let agent = bench.agent(&[]).await;
        bench
            .machine
            .until(|log| log.iter().filter(|entry| *entry == "sandbox web-agent-1").count() == 2)
            .await;
        let log = bench.machine.log();
        assert_eq!(
            log.iter().filter(|entry| *entry == "signal web-0 15").count(),
            2,
            "{log:?}"
        );
        agent.stop().await;
    })
    .await;
}

const NO_SUCH_IMAGE: &str = "missing:v1";

#[tokio::test]
async fn a_bad_file_is_named_and_keeps_what_it_said_before() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.write_static("web.yaml", "web", IMAGE);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[]).await;
        talk.make_mirror("m1").await;
        talk.until(|line| line == SHOWN).await;
        let file = bench.folder.path().join(FOLDER).join("web.yaml");
        fs::write(&file, "kind: [").unwrap();
        let said = talk
            .until(|line| line.starts_with(" event InvalidStaticPod"))
            .await;
        assert!(last(&said).contains("web.yaml is not YAML"), "{said:?}");
        let log = bench.machine.log();
        assert!(!log.iter().any(|entry| entry.starts_with("signal")), "{log:?}");
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_mirror_of_nothing_is_given_up_and_a_pod_of_the_api_is_never_static() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let of_nothing = pod(
            "old",
            r#","annotations":{"kubernetes.io/config.mirror":"x"}"#,
            &format!(r#"{{"containers":[{{"name":"web","image":"{IMAGE}"}}]}}"#),
        );
        let pretender = pod(
            "web",
            r#","annotations":{"kubernetes.io/config.source":"file"}"#,
            &format!(r#"{{"containers":[{{"name":"web","image":"{IMAGE}"}}]}}"#),
        );
        talk.lead(&[&of_nothing, &pretender]).await;
        let said = talk.until(|line| line == RUNNING).await;
        if !said.iter().any(|line| line == "old gone") {
            talk.until(|line| line == "old gone").await;
        }
        // As any pod it ends with its object.
        talk.say(Say::PodRemoved(PodRemoved {
            uid: "uid-web".to_owned(),
            ..PodRemoved::default()
        }))
        .await;
        bench.machine_says("remove uid-web").await;
        agent.stop().await;
    })
    .await;
}
