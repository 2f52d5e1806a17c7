//! The agent against a server that speaks real gRPC and a machine without containers.

mod policies;
mod statics;
mod tending;
mod volumes;

use std::collections::BTreeMap;

use flotilla_proto::node::nodes_server::{Nodes, NodesServer};
use flotilla_proto::node::{
    Ack, AgentMessage, DiskReport, DiskReported, FollowEvent, FollowRequest, JoinRequest, JoinResponse,
    Leader, LogRequest, NodeConfig, NodeRoutes, OpenStream, PodAssignment, PodRemoved, Reference,
    RenewRequest, RenewResponse, ServerMessage, StreamFrame, SyncBegin, SyncEnd, TokenRequest, TokenResponse,
    Welcome, agent_message::Kind as Said, server_message::Kind as Say,
};
use flotilla_tunnel::request;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, PodStatus};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::machine::fake::{FakeMachine, IMAGE, NO_COMMAND, SLOW_IMAGE};

/// Longer than any of these tests may take, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

type Down = mpsc::Sender<Result<ServerMessage, Status>>;

/// One end of a conversation, as the test plays the server.
struct Talk {
    down: Down,
    up: Streaming<AgentMessage>,
}

impl Talk {
    async fn say(&self, kind: Say) {
        self.down
            .send(Ok(ServerMessage { kind: Some(kind) }))
            .await
            .unwrap();
    }

    /// The next message but heartbeats.
    async fn hear(&mut self) -> Said {
        loop {
            let message = tokio::time::timeout(LIMIT, self.up.message())
                .await
                .expect("the agent is silent");
            match message.unwrap().expect("the agent hung up").kind.unwrap() {
                Said::Heartbeat(_) | Said::Stats(_) => {}
                other => return other,
            }
        }
    }

    /// Lets the agent in as the leader does, with these pods.
    async fn lead(&mut self, pods: &[&str]) {
        assert!(matches!(self.hear().await, Said::Hello(_)));
        self.say(Say::Welcome(Welcome {
            is_leader: true,
            ..Welcome::default()
        }))
        .await;
        self.sync(pods).await;
    }

    async fn sync(&mut self, pods: &[&str]) {
        self.sync_in_term(0, pods).await;
    }

    async fn sync_in_term(&mut self, term: u64, pods: &[&str]) {
        while !matches!(self.hear().await, Said::Subscribe(_)) {}
        let config = NodeConfig {
            pod_cidr: "10.42.1.0/24".to_owned(),
            cluster_cidr: "10.42.0.0/16".to_owned(),
            cluster_dns: String::new(),
            cluster_domain: "cluster.local".to_owned(),
            service_cidr: "10.43.0.0/16".to_owned(),
        };
        self.say(Say::Config(config)).await;
        self.say(Say::SyncBegin(SyncBegin { term })).await;
        for pod in pods {
            self.assign(pod).await;
        }
        self.say(Say::SyncEnd(SyncEnd {})).await;
    }

    async fn assign(&self, pod: &str) {
        self.assign_with(pod, "conf").await;
    }

    /// The pod, with the one config map of this name.
    async fn assign_with(&self, pod: &str, map: &str) {
        let map = Reference {
            kind: "ConfigMap".to_owned(),
            name: map.to_owned(),
            object_json: r#"{"data":{"COLOR":"blue"}}"#.into(),
        };
        self.say(Say::Pod(PodAssignment {
            pod_json: pod.to_owned().into(),
            references: vec![map],
        }))
        .await;
    }

    /// Acknowledges reports until one fits; returns what was said meanwhile: statuses, ends and events.
    async fn until(&mut self, done: impl Fn(&str) -> bool) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let line = match self.hear().await {
                Said::Pod(report) => {
                    self.say(Say::Ack(Ack {
                        sequence: report.sequence,
                    }))
                    .await;
                    format!(
                        "{} {}",
                        report.name,
                        summary(&serde_json::from_slice(&report.status_json).unwrap())
                    )
                }
                Said::PodGone(gone) => {
                    self.say(Say::Ack(Ack {
                        sequence: gone.sequence,
                    }))
                    .await;
                    format!("{} gone", gone.name)
                }
                Said::Event(event) => format!("{} event {} {}", event.pod_name, event.reason, event.message),
                Said::Mirror(mirror) => {
                    self.say(Say::Ack(Ack {
                        sequence: mirror.sequence,
                    }))
                    .await;
                    format!("mirror {}", String::from_utf8_lossy(&mirror.pod_json))
                }
                Said::Node(_) => "node".to_owned(),
                Said::Log(chunk) => {
                    format!(
                        "log {} {:?} {}",
                        String::from_utf8_lossy(&chunk.data),
                        chunk.end,
                        chunk.error
                    )
                }
                Said::Hello(_) | Said::Subscribe(_) | Said::Heartbeat(_) | Said::Stats(_) => continue,
            };
            said.push(line.clone());
            if done(&line) {
                return said;
            }
        }
    }
}

/// `Running [web Running 0]`: phase, and per container state and restarts.
fn summary(status: &PodStatus) -> String {
    let state = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
        let state = status.state.clone().unwrap_or_default();
        let word = match (state.waiting, state.terminated) {
            (Some(waiting), _) => waiting.reason.unwrap_or_default(),
            (_, Some(ended)) => format!("{}({})", ended.reason.unwrap_or_default(), ended.exit_code),
            _ => "Running".to_owned(),
        };
        format!("{} {word} {}", status.name, status.restart_count)
    };
    let all: Vec<String> = status.container_statuses.iter().flatten().map(state).collect();
    format!(
        "{} [{}]",
        status.phase.clone().unwrap_or_default(),
        all.join(", ")
    )
}

/// One end of a stream that an agent has opened.
struct Tunnel {
    down: mpsc::Sender<Result<StreamFrame, Status>>,
    up: Streaming<StreamFrame>,
}

/// Hands each conversation and each stream to the test.
struct FakeServer {
    talks: mpsc::Sender<Talk>,
    streams: mpsc::Sender<Tunnel>,
}

#[tonic::async_trait]
impl Nodes for FakeServer {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type BlobStream = futures::stream::BoxStream<'static, Result<flotilla_proto::node::BlobChunk, Status>>;

    async fn blob(
        &self,
        _: Request<flotilla_proto::node::BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        Err(Status::not_found("there is no other node"))
    }

    async fn disk(&self, _: Request<DiskReport>) -> Result<Response<DiskReported>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn token(&self, _: Request<TokenRequest>) -> Result<Response<TokenResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, answers) = mpsc::channel(16);
        let talk = Talk {
            down,
            up: request.into_inner(),
        };
        self.talks
            .send(talk)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type StreamStream = ReceiverStream<Result<StreamFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (down, answers) = mpsc::channel(16);
        let up = request.into_inner();
        self.streams
            .send(Tunnel { down, up })
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type FollowStream = ReceiverStream<Result<FollowEvent, Status>>;

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

/// A server on its own port, and the conversations that agents begin with it.
struct TestServer {
    address: String,
    talks: mpsc::Receiver<Talk>,
    streams: mpsc::Receiver<Tunnel>,
    tracker: TaskTracker,
}

impl TestServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (talks, talks_rx) = mpsc::channel(4);
        let (streams, streams_rx) = mpsc::channel(4);
        let tracker = TaskTracker::new();
        let service = NodesServer::new(FakeServer { talks, streams });
        tracker.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            address,
            talks: talks_rx,
            streams: streams_rx,
            tracker,
        }
    }

    async fn talk(&mut self) -> Talk {
        let _ = &self.tracker;
        tokio::time::timeout(LIMIT, self.talks.recv())
            .await
            .expect("no agent dials")
            .unwrap()
    }
}

/// A data folder and a machine that outlive agents.
struct Bench {
    folder: tempfile::TempDir,
    machine: Arc<FakeMachine>,
    tracker: TaskTracker,
}

/// A running agent.
struct Running {
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.done.await.unwrap();
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            machine: FakeMachine::new(),
            tracker: TaskTracker::new(),
        }
    }

    fn options(&self, servers: &[&TestServer]) -> Options {
        Options {
            name: "agent-1".to_owned(),
            servers: servers.iter().map(|server| server.address.clone()).collect(),
            token: None,
            data_dir: self.folder.path().to_owned(),
            run_dir: self.folder.path().join("run"),
            node_address: "127.0.0.1".parse().unwrap(),
            cgroup_parent: "/flotilla-test".to_owned(),
            bridge: "none".to_owned(),
            network: crate::NetworkOptions::default(),
            ingress: crate::IngressOptions {
                http_port: None,
                https_port: None,
            },
            labels: BTreeMap::new(),
            reserve: Reserve {
                eviction_hard: "".parse().unwrap(),
                ..Reserve::default()
            },
            permits: flotilla_lifecycle::Permits::default(),
            pressure_transition: Duration::from_secs(300),
            static_pods: None,
            executable: PathBuf::from("/proc/self/exe"),
        }
    }

    async fn agent(&self, servers: &[&TestServer]) -> Running {
        let tracker = TaskTracker::new();
        let mut assembly = Assembly::new(&self.options(servers), self.machine.clone(), tracker).unwrap();
        assembly.restore().await;
        let plain: Connector = Arc::new(|address: &str| {
            Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .connect_lazy()
        });
        let (connectors, connector) = watch::channel(plain);
        let shutdown = CancellationToken::new();
        assembly.follow_files(&self.options(servers), &shutdown);
        let stop = shutdown.clone();
        let done = self.tracker.spawn(async move {
            let _connectors = connectors;
            assembly.serve(connector, stop).await;
        });
        Running { shutdown, done }
    }
}

fn pod(name: &str, extra_meta: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"default","uid":"uid-{name}"{extra_meta}}},"spec":{spec}}}"#
    )
}

fn web() -> String {
    pod(
        "web",
        "",
        &format!(r#"{{"containers":[{{"name":"web","image":"{IMAGE}"}}]}}"#),
    )
}

fn deleted(grace: i64) -> String {
    deleted_with(grace, IMAGE)
}

fn deleted_with(grace: i64, image: &str) -> String {
    let meta = format!(r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":{grace}"#);
    pod(
        "web",
        &meta,
        &format!(r#"{{"containers":[{{"name":"web","image":"{image}"}}]}}"#),
    )
}

fn limited<T: Send>(work: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    Box::pin(async move {
        tokio::time::timeout(LIMIT, work)
            .await
            .expect("the test took too long")
    })
}

fn last(said: &[String]) -> &str {
    said.last().map(String::as_str).unwrap_or_default()
}

const RUNNING: &str = "web Running [web Running 0]";

#[tokio::test]
async fn a_pod_is_run_and_reported_and_removed() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        assert_eq!(
            bench.machine.log(),
            ["network 10.42.1.0/24", "sandbox web", "start web-0"]
        );
        let events = talk.until(|line| line.contains("Started")).await;
        assert_eq!(last(&events), "web event Started Started container web");
        talk.assign(&deleted(30)).await;
        let told = "web event Killing Stopping container web";
        let said = talk.until(|line| line == "web gone").await;
        if !said.iter().any(|line| line == told) {
            talk.until(|line| line == told).await;
        }
        bench
            .machine
            .until(|log| log.ends_with(&["signal web-0 15".to_owned(), "remove uid-web".to_owned()]))
            .await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_container_that_does_not_listen_is_killed_after_its_grace() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        bench.machine.deafen("web-0");
        talk.assign(&deleted(1)).await;
        talk.until(|line| line == "web gone").await;
        let log = bench.machine.log();
        assert_eq!(log[3..], ["signal web-0 15", "signal web-0 9", "remove uid-web"]);
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_crash_is_seen_at_once_and_restarted() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        bench.machine.exit("uid-web", "web-0", 3);
        talk.until(|line| line == "web Running [web Running 1]").await;
        bench.machine.exit("uid-web", "web-1", 3);
        let told = "web event BackOff Back-off restarting failed container web in pod web_default(uid-web)";
        let shown = "web Running [web CrashLoopBackOff 1]";
        let said = talk.until(|line| line == told || line == shown).await;
        let rest = if last(&said) == told { shown } else { told };
        talk.until(|line| line == rest).await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn errors_are_told_in_kubelets_words() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let image = pod(
            "image",
            "",
            r#"{"containers":[{"name":"c","image":"nowhere:v1"}]}"#,
        );
        let command =
            format!(r#"{{"containers":[{{"name":"c","image":"{IMAGE}","command":["{NO_COMMAND}"]}}]}}"#);
        let command = pod("command", "", &command);
        let env = r#"[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"none","key":"k"}}}]"#;
        let config = pod(
            "config",
            "",
            &format!(r#"{{"containers":[{{"name":"c","image":"{IMAGE}","env":{env}}}]}}"#),
        );
        talk.lead(&[&image]).await;
        let said = talk
            .until(|line| line == "image event Failed Error: ErrImagePull")
            .await;
        let pull = "image event Failed Failed to pull image \"nowhere:v1\": nowhere:v1: not found";
        assert!(said.iter().any(|line| line.starts_with(pull)), "{said:?}");
        talk.assign(&command).await;
        let said = talk.until(|line| line.starts_with("command event Failed")).await;
        let expected = "command event Failed Error: failed to start container \"c\": exec: \"/missing\": \
                        stat /missing: no such file or directory";
        assert_eq!(last(&said), expected);
        talk.assign(&config).await;
        let said = talk.until(|line| line.starts_with("config event Failed")).await;
        assert_eq!(
            last(&said),
            "config event Failed Error: configmap \"none\" not found"
        );
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_waits_for_its_image_can_be_deleted() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let spec = format!(r#"{{"containers":[{{"name":"web","image":"{SLOW_IMAGE}"}}]}}"#);
        talk.lead(&[&pod("web", "", &spec)]).await;
        talk.until(|line| line == "web event Pulling Pulling image \"slow:v1\"")
            .await;
        bench
            .machine
            .until(|log| log.contains(&"pull slow:v1".to_owned()))
            .await;
        talk.assign(&deleted_with(30, SLOW_IMAGE)).await;
        talk.until(|line| line == "web gone").await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn references_reach_the_container() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let env = r#"[{"configMapRef":{"name":"conf"}}]"#;
        let spec = format!(
            r#"{{"containers":[{{"name":"web","image":"{IMAGE}","envFrom":{env},"args":["$(COLOR)"]}}]}}"#
        );
        talk.lead(&[&pod("web", "", &spec)]).await;
        talk.until(|line| line == RUNNING).await;
        let started = bench.machine.spec("web-0");
        assert_eq!(started.args, ["/demo", "blue"]);
        assert!(started.env.contains(&("COLOR".to_owned(), "blue".to_owned())));
        let hosts = std::fs::read_to_string(&started.mounts[0].source).unwrap();
        assert!(hosts.ends_with("10.42.1.2\tweb\n"), "{hosts}");
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_without_servers_goes_on_with_its_pods() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
        drop((talk, server));
        bench.machine.exit("uid-web", "web-0", 1);
        let agent = bench.agent(&[]).await;
        bench
            .machine
            .until(|log| log.last().is_some_and(|last| last == "start web-1"))
            .await;
        let sandboxes = bench
            .machine
            .log()
            .iter()
            .filter(|line| line.starts_with("sandbox"))
            .count();
        assert_eq!(sandboxes, 1);
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_reboot_starts_the_pods_again_and_counts_it() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
        drop(talk);
        bench.machine.reboot();
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == "web Running [web Running 1]").await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_control_plane_no_longer_knows_is_ended_without_a_report() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.machine.stray("stray");
        let agent = bench.agent(&[&server]).await;
        assert_eq!(bench.machine.log(), ["remove stray", "remove volumes stray"]);
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
        drop(talk);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[]).await;
        bench
            .machine
            .until(|log| log.last().is_some_and(|last| last == "remove uid-web"))
            .await;
        talk.assign(&pod(
            "next",
            "",
            &format!(r#"{{"containers":[{{"name":"n","image":"{IMAGE}"}}]}}"#),
        ))
        .await;
        let said = talk.until(|line| line == "next Running [n Running 0]").await;
        assert!(
            !said
                .iter()
                .any(|line| line.starts_with("web ") && !line.contains("event")),
            "{said:?}"
        );
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_removed_pod_stops_at_once() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        let removed = PodRemoved {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: "uid-web".to_owned(),
        };
        talk.say(Say::PodRemoved(removed)).await;
        bench
            .machine
            .until(|log| log.ends_with(&["signal web-0 9".to_owned(), "remove uid-web".to_owned()]))
            .await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reports_that_were_not_acknowledged_go_to_the_next_leader() {
    limited(async {
        let (bench, mut first, mut second) =
            (Bench::new(), TestServer::start().await, TestServer::start().await);
        let agent = bench.agent(&[&first, &second]).await;
        let (mut old, mut new) = (first.talk().await, second.talk().await);
        assert!(matches!(new.hear().await, Said::Hello(_)));
        new.say(Say::Welcome(Welcome::default())).await;
        old.lead(&[&web()]).await;
        let (Said::Node(_) | Said::Pod(_)) = old.hear().await else {
            panic!("the agent reports nothing")
        };
        bench
            .machine
            .until(|log| log.last().is_some_and(|last| last == "start web-0"))
            .await;
        drop((old, first));
        new.say(Say::Leader(Leader {
            is_leader: true,
            ..Leader::default()
        }))
        .await;
        new.sync(&[&web()]).await;
        new.until(|line| line == RUNNING).await;
        assert_eq!(
            bench
                .machine
                .log()
                .iter()
                .filter(|line| line.starts_with("start"))
                .count(),
            1
        );
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_deposed_leader_that_syncs_late_is_not_listened_to() {
    limited(async {
        let (bench, mut first, mut second) =
            (Bench::new(), TestServer::start().await, TestServer::start().await);
        let agent = bench.agent(&[&first, &second]).await;
        let (mut old, mut new) = (first.talk().await, second.talk().await);
        for talk in [&mut old, &mut new] {
            assert!(matches!(talk.hear().await, Said::Hello(_)));
            talk.say(Say::Welcome(Welcome {
                is_leader: true,
                ..Welcome::default()
            }))
            .await;
        }
        new.sync_in_term(2, &[]).await;
        new.until(|line| line == "node").await;
        old.sync_in_term(1, &[]).await;
        // Its answer to this shows that the agent has heard all of it.
        old.say(Say::Leader(Leader {
            is_leader: true,
            ..Leader::default()
        }))
        .await;
        while !matches!(old.hear().await, Said::Subscribe(_)) {}
        new.assign(&web()).await;
        new.until(|line| line == RUNNING).await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_broken_session_is_begun_anew_and_only_differences_are_reported() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        let mut status = Vec::new();
        while !String::from_utf8_lossy(&status).contains(r#""phase":"Running""#) {
            if let Said::Pod(report) = talk.hear().await {
                talk.say(Say::Ack(Ack {
                    sequence: report.sequence,
                }))
                .await;
                status = report.status_json.to_vec();
            }
        }
        drop(talk);
        let mut talk = server.talk().await;
        let known = String::from_utf8(status).unwrap();
        let same = web().replacen(r#","spec""#, &format!(r#","status":{known},"spec""#), 1);
        talk.lead(&[&same]).await;
        bench.machine.exit("uid-web", "web-0", 1);
        let said = talk.until(|line| line == "web Running [web Running 1]").await;
        assert!(!said.contains(&RUNNING.to_owned()), "{said:?}");
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn logs_of_containers_that_never_ran_are_refused_in_words() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        let ask = |uid: &str, previous: bool| {
            Say::Log(LogRequest {
                request: 7,
                pod_name: "web".to_owned(),
                pod_uid: uid.to_owned(),
                container: "web".to_owned(),
                previous,
                ..LogRequest::default()
            })
        };
        talk.say(ask("uid-web", true)).await;
        let said = talk.until(|line| line.starts_with("log")).await;
        assert_eq!(
            last(&said),
            "log  true previous terminated container \"web\" in pod \"web\" not found"
        );
        talk.say(ask("other", false)).await;
        let said = talk.until(|line| line.starts_with("log")).await;
        assert_eq!(last(&said), "log  true pod \"web\" is not on this node");
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_node_is_ready_once_it_has_a_network() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        let Said::Hello(hello) = talk.hear().await else {
            panic!("no hello")
        };
        assert_eq!(ready(&hello.node_json), "False KubeletNotReady");
        talk.say(Say::Welcome(Welcome {
            is_leader: true,
            ..Welcome::default()
        }))
        .await;
        talk.sync(&[]).await;
        let Said::Node(report) = talk.hear().await else {
            panic!("no report")
        };
        assert_eq!(ready(&report.node_json), "True KubeletReady");
        agent.stop().await;
    })
    .await;
}

/// The leader tells what the network is to be only once.
#[tokio::test]
async fn a_network_that_is_refused_is_tried_again() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.machine.refuses_networks(3);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[]).await;
        loop {
            let Said::Node(report) = talk.hear().await else {
                panic!("no report")
            };
            if ready(&report.node_json) == "True KubeletReady" {
                break;
            }
        }
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn routes_that_are_refused_are_tried_again() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[]).await;
        assert!(matches!(talk.hear().await, Said::Node(_)));
        bench.machine.refuses_networks(2);
        talk.say(Say::Routes(NodeRoutes::default())).await;
        let tries = |log: &[String]| log.iter().filter(|line| *line == "routes 0").count();
        bench.machine.until(|log| tries(log) == 3).await;
        agent.stop().await;
    })
    .await;
}

/// Or the node would not be ready for a moment when that server comes to lead.
#[tokio::test]
async fn a_server_that_does_not_lead_knows_the_node_as_it_is_now() {
    limited(async {
        let (bench, mut first, mut second) =
            (Bench::new(), TestServer::start().await, TestServer::start().await);
        let agent = bench.agent(&[&first, &second]).await;
        let (mut leader, mut other) = (first.talk().await, second.talk().await);
        let Said::Hello(hello) = other.hear().await else {
            panic!("no hello")
        };
        assert_eq!(ready(&hello.node_json), "False KubeletNotReady");
        other.say(Say::Welcome(Welcome::default())).await;
        leader.lead(&[]).await;
        let Said::Node(report) = other.hear().await else {
            panic!("no report")
        };
        assert_eq!(ready(&report.node_json), "True KubeletReady");
        agent.stop().await;
    })
    .await;
}

fn ready(node_json: &[u8]) -> String {
    let node: Node = serde_json::from_slice(node_json).unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap();
    format!("{} {}", ready.status, ready.reason.unwrap())
}

impl TestServer {
    /// Asks the agent for a stream; what it dials back with, after its first frame.
    async fn open(
        &mut self,
        talk: &Talk,
        kind: &str,
        request: &(impl serde::Serialize + Sync),
    ) -> (Tunnel, StreamFrame) {
        talk.say(Say::OpenStream(OpenStream {
            stream_id: "id".to_owned(),
            kind: kind.to_owned(),
            request_json: serde_json::to_vec(request).unwrap().into(),
        }))
        .await;
        let mut tunnel = self.streams.recv().await.unwrap();
        let first = tunnel.up.message().await.unwrap().unwrap();
        assert_eq!(first.stream_id, "id");
        (tunnel, first)
    }

    async fn forward(&mut self, talk: &Talk, uid: &str, port: u16) -> (Tunnel, StreamFrame) {
        let request = request::PortForwardRequest {
            target: web_target(uid),
            port,
        };
        self.open(talk, request::PORT_FORWARD, &request).await
    }
}

fn web_target(uid: &str) -> request::Target {
    request::Target {
        pod: "web".to_owned(),
        uid: uid.to_owned(),
        ..request::Target::default()
    }
}

#[tokio::test]
async fn commands_that_cannot_run_are_told_in_kubelets_words() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        let mut exec = request::ExecRequest {
            target: web_target("uid-web"),
            container: "other".to_owned(),
            command: vec!["ls".to_owned()],
            ..request::ExecRequest::default()
        };
        let (_, first) = server.open(&talk, request::EXEC, &exec).await;
        assert_eq!(first.refusal.unwrap().message, "container not found (\"other\")");
        exec.container = "web".to_owned();
        let (mut tunnel, first) = server.open(&talk, request::EXEC, &exec).await;
        assert_eq!(first.refusal, None, "what the command does is told by the stream");
        let outcome = tunnel.up.message().await.unwrap().unwrap();
        let outcome = serde_json::from_slice(&outcome.data).unwrap();
        let request::Outcome::Failed(message) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            message.starts_with("error executing command in container: "),
            "{message}"
        );
        drop(tunnel.down);
        let attach = request::AttachRequest {
            target: web_target("uid-web"),
            container: "web".to_owned(),
            ..request::AttachRequest::default()
        };
        let (_, first) = server.open(&talk, request::ATTACH, &attach).await;
        assert_eq!(first.refusal.unwrap().message, "container not found (\"web\")");
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_port_is_forwarded_and_each_direction_ends_by_itself() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut tunnel, first) = server.forward(&talk, "uid-web", port).await;
        assert_eq!(first.refusal, None);
        let (mut connection, _) = listener.accept().await.unwrap();
        let ask = StreamFrame {
            data: "ask".into(),
            close: true,
            ..StreamFrame::default()
        };
        tunnel.down.send(Ok(ask)).await.unwrap();
        let mut asked = String::new();
        connection.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "ask");
        connection.write_all(b"answer").await.unwrap();
        drop(connection);
        let answer = tunnel.up.message().await.unwrap().unwrap();
        assert_eq!(answer.data, "answer");
        assert!(tunnel.up.message().await.unwrap().unwrap().close);
        drop(tunnel.down);
        assert_eq!(tunnel.up.message().await.unwrap(), None);
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_refused_with_the_reason() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        let (_, first) = server.forward(&talk, "uid-other", 1).await;
        let refusal = first.refusal.unwrap();
        assert_eq!(
            (refusal.reason.as_str(), refusal.message.as_str()),
            ("NotFound", "pod \"web\" is not on this node")
        );
        let (_, first) = server.forward(&talk, "uid-web", 1).await;
        let message = first.refusal.unwrap().message;
        let expected =
            "error forwarding port 1 to pod web: nothing accepts connections on 127.0.0.1:1 or [::1]:1";
        assert!(message.starts_with(expected), "{message}");
        agent.stop().await;
    })
    .await;
}
