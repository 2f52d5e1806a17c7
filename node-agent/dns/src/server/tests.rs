//! Real sockets on loopback, with an upstream of our own.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record, RecordType};
use serde_json::json;

use super::*;
use crate::answer::name;

/// A name server that knows `example.com` and `big.example.com`, and counts its questions.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn known(query: &Message, is_datagram: bool) -> Message {
    let mut response = crate::answer::response(query);
    let owner = query.queries[0].name().clone();
    let text = crate::answer::plain(&owner);
    let addresses = match text.as_str() {
        "example.com" => 1,
        "big.example.com" => 200,
        _ => 0,
    };
    if addresses == 0 {
        response.metadata.response_code = ResponseCode::NXDomain;
        let zone = name("example.com").unwrap();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 60);
        response.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
    }
    for last in 0..addresses {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
        response.add_answer(Record::from_rdata(owner.clone(), 60, data));
    }
    if is_datagram && addresses > 100 {
        return response.truncate();
    }
    response
}

impl Upstream {
    async fn start(tracker: &TaskTracker) -> Self {
        let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = streams.local_addr().unwrap();
        let datagrams = UdpSocket::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tracker.spawn(async move {
            let mut buffer = vec![0; 2000];
            loop {
                let (length, client) = datagrams.recv_from(&mut buffer).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let answer = known(&query, true).to_vec().unwrap();
                datagrams.send_to(&answer, client).await.unwrap();
            }
        });
        tracker.spawn(async move {
            loop {
                let (mut stream, _) = streams.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = known(&Message::from_vec(&bytes).unwrap(), false)
                    .to_vec()
                    .unwrap();
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).await.unwrap();
            }
        });
        Self { address, asked }
    }
}

struct Fixture {
    address: SocketAddr,
    upstream: Upstream,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    _folder: Folder,
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn records() -> Records {
    let mut records = Records::new("cluster.local");
    records.set_namespace("default", true);
    let alias = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let alias = serde_json::from_value(alias).unwrap();
    records.set_service("default", "away", Some(&alias));
    let round = |to: &str| {
        let spec = json!({"spec": {"type": "ExternalName", "externalName": format!("{to}.default.svc.cluster.local")}});
        serde_json::from_value(spec).unwrap()
    };
    records.set_service("default", "here", Some(&round("there")));
    records.set_service("default", "there", Some(&round("here")));
    let kubernetes = json!({"spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]}});
    let kubernetes = serde_json::from_value(kubernetes).unwrap();
    records.set_service("default", "kubernetes", Some(&kubernetes));
    let many = json!({"spec": {"clusterIP": "None"}});
    records.set_service("default", "many", Some(&serde_json::from_value(many).unwrap()));
    let endpoints: Vec<_> = (1..=200)
        .map(|last| json!({"addresses": [format!("10.42.1.{last}")]}))
        .collect();
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
    });
    records.set_slice("default", "many-a", Some(&serde_json::from_value(slice).unwrap()));
    records.set_complete();
    records
}

impl Fixture {
    async fn new() -> Self {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let upstream = Upstream::start(&tracker).await;
        let folder = std::env::temp_dir().join(format!(
            "flotilla-dns-{}-{}",
            std::process::id(),
            upstream.address.port()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let resolver_file = folder.join("resolv.conf");
        std::fs::write(&resolver_file, format!("nameserver {}\n", upstream.address)).unwrap();
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            resolver_file,
        };
        let records = Arc::new(RwLock::new(records()));
        let server = Server::bind(options, records).await.unwrap();
        let address = server.address().unwrap();
        tracker.spawn(server.run(shutdown.clone()));
        Self {
            address,
            upstream,
            shutdown,
            tracker,
            _folder: Folder(folder),
        }
    }

    async fn ask(&self, query: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&query.to_vec().unwrap()).await.unwrap();
        let mut buffer = vec![0; 70_000];
        let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn ask_by_stream(&self, query: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = query.to_vec().unwrap();
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &bytes].concat()).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }
}

fn query(text: &str, record_type: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name(text).unwrap(), record_type));
    query
}

fn with_payload(mut query: Message, bytes: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(bytes).set_version(0);
    query.set_edns(edns);
    query
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_in_the_case_of_the_question() {
    let fixture = Fixture::new().await;
    let asked = query("KuberNetes.default.SVC.cluster.local", RecordType::A);
    for answer in [fixture.ask(&asked).await, fixture.ask_by_stream(&asked).await] {
        assert_eq!(answer.metadata.id, 7);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(
            answer.answers[0].name.to_ascii(),
            "KuberNetes.default.SVC.cluster.local."
        );
        assert_eq!(answer.answers[0].data, RData::A(A::new(10, 43, 0, 1)));
        assert_eq!(answer.answers[0].ttl, 5);
    }
}

#[tokio::test]
async fn nothing_and_nobody_are_told_apart_and_come_with_the_zone() {
    let fixture = Fixture::new().await;
    for (text, code) in [
        ("kubernetes.default.svc.cluster.local", ResponseCode::NoError),
        ("nobody.default.svc.cluster.local", ResponseCode::NXDomain),
    ] {
        let answer = fixture.ask(&query(text, RecordType::AAAA)).await;
        assert_eq!(answer.metadata.response_code, code, "{text}");
        assert!(answer.answers.is_empty());
        assert!(matches!(&answer.authorities[0].data, RData::SOA(soa) if soa.minimum == 5));
    }
}

#[tokio::test]
async fn ports_come_with_their_addresses() {
    let fixture = Fixture::new().await;
    let asked = query(
        "_https._tcp.kubernetes.default.svc.cluster.local",
        RecordType::SRV,
    );
    let answer = fixture.ask(&asked).await;
    assert!(matches!(&answer.answers[0].data, RData::SRV(srv) if srv.port == 443));
    assert_eq!(answer.additionals[0].data, RData::A(A::new(10, 43, 0, 1)));
}

#[tokio::test]
async fn other_names_are_asked_upstream_once() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        let answer = fixture.ask(&query("Example.com", RecordType::A)).await;
        assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 0)));
        let answer = fixture.ask(&query("nobody.example.com", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(fixture.upstream.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_service_that_stands_for_another_name_is_followed() {
    let fixture = Fixture::new().await;
    let answer = fixture
        .ask(&query("away.default.svc.cluster.local", RecordType::A))
        .await;
    let text: Vec<String> = answer.answers.iter().map(|one| one.data.to_string()).collect();
    assert_eq!(text, ["example.com.", "192.0.2.0"]);
    let answer = fixture
        .ask(&query("away.default.svc.cluster.local", RecordType::CNAME))
        .await;
    assert_eq!(answer.answers.len(), 1);
    let answer = fixture
        .ask(&query("here.default.svc.cluster.local", RecordType::A))
        .await;
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::ServFail,
        "round and round"
    );
}

#[tokio::test]
async fn large_answers_are_cut_for_datagrams_only() {
    let fixture = Fixture::new().await;
    for text in ["many.default.svc.cluster.local", "big.example.com"] {
        let asked = query(text, RecordType::A);
        let answer = fixture.ask(&asked).await;
        assert!(answer.metadata.truncation, "{text}");
        assert!(answer.to_vec().unwrap().len() <= 512);
        let answer = fixture.ask(&with_payload(asked.clone(), 4096)).await;
        assert!(answer.metadata.truncation && answer.edns.is_some(), "{text}");
        let answer = fixture.ask_by_stream(&asked).await;
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 200);
    }
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let fixture = Fixture::new().await;
    let mut asked = query("example.com", RecordType::A);
    asked.metadata.op_code = OpCode::Status;
    let answer = fixture.ask(&asked).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    let mut asked = with_payload(query("example.com", RecordType::A), 1232);
    asked.edns.as_mut().unwrap().set_version(1);
    let answer = fixture.ask(&asked).await;
    assert_eq!(answer.edns.unwrap().rcode_high(), 1, "BADVERS");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"noise", fixture.address).await.unwrap();
    let answer = fixture
        .ask(&query("kubernetes.default.svc.cluster.local", RecordType::A))
        .await;
    assert_eq!(answer.answers.len(), 1, "it goes on answering");
}

#[tokio::test]
async fn shutdown_ends_it() {
    let fixture = Fixture::new().await;
    fixture.shutdown.cancel();
    let again = async {
        while TcpListener::bind(fixture.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), again).await.unwrap();
    assert!(!fixture.tracker.is_closed());
}
