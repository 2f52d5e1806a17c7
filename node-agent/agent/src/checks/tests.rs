//! Probes against servers on loopback.

use flotilla_lifecycle::HttpCheck;
use flotilla_proto::health::health_check_response::ServingStatus;
use flotilla_proto::health::health_server::{Health, HealthServer};
use flotilla_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;

use super::*;
use crate::machine::fake::FakeMachine;

const SUBJECT: Subject<'_> = Subject {
    uid: "uid",
    id: "web-0",
};
const LIMIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

/// Answers each connection with the reply that `respond` makes of the request's text.
async fn serve(respond: impl Fn(&str) -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let reply = respond(&String::from_utf8_lossy(&request[..read]));
            // A client that has hung up is not this server's business.
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    port
}

fn http(port: u16, path: &str) -> HttpCheck {
    HttpCheck {
        is_https: false,
        host: "127.0.0.1".to_owned(),
        port,
        path: path.to_owned(),
        headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
    }
}

async fn ask(check: Check, limit: Duration) -> String {
    let machine = FakeMachine::new();
    match probe(&*machine, SUBJECT, &check, limit).await {
        ProbeOutcome::Success => "well".to_owned(),
        ProbeOutcome::Warning(told) => format!("warning {told}"),
        ProbeOutcome::Failure(why) => why,
        ProbeOutcome::Unknown(why) => format!("unknown {why}"),
    }
}

#[tokio::test]
async fn http_answers_are_judged_by_their_status() {
    let port = serve(|request| {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let status = match line.as_str() {
            "GET /well HTTP/1.1" if request.contains("x-probe: yes") => "204 No Content\r\n",
            "GET /here HTTP/1.1" => "302 Found\r\nLocation: /well\r\n",
            "GET /away HTTP/1.1" => "302 Found\r\nLocation: http://example.test/\r\n",
            "GET /round HTTP/1.1" => "302 Found\r\nLocation: /round\r\n",
            _ => "500 Oh\r\n",
        };
        format!("HTTP/1.1 {status}Content-Length: 0\r\n\r\n")
    })
    .await;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for (path, expected) in [
        ("/well", "well".to_owned()),
        ("/here", "well".to_owned()),
        (
            "/away",
            "warning Probe terminated redirects, Response body: ".to_owned(),
        ),
        ("/bad", "HTTP probe failed with statuscode: 500".to_owned()),
        (
            "/round",
            format!("Get \"{}\": stopped after 10 redirects", url("/round")),
        ),
    ] {
        assert_eq!(
            ask(Check::Http(http(port, path)), LIMIT).await,
            expected,
            "{path}"
        );
    }
}

#[tokio::test]
async fn nobody_there_and_silence_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (host, url) = ("127.0.0.1".to_owned(), format!("http://127.0.0.1:{port}/"));
    assert_eq!(
        ask(
            Check::Tcp {
                host: host.clone(),
                port
            },
            LIMIT
        )
        .await,
        "well"
    );
    assert_eq!(
        ask(Check::Http(http(port, "/")), SHORT).await,
        format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
    );
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(ask(Check::Tcp { host, port }, LIMIT).await, refused);
    assert_eq!(
        ask(Check::Http(http(port, "/")), LIMIT).await,
        format!("Get \"{url}\": {refused}")
    );
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_an_end_of_file() {
    let port = serve(|_| String::new()).await;
    let told = ask(Check::Http(http(port, "/")), LIMIT).await;
    assert_eq!(told, format!("Get \"http://127.0.0.1:{port}/\": EOF"));
}

struct Halves;

#[tonic::async_trait]
impl Health for Halves {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let status = match request.get_ref().service.as_str() {
            "good" => ServingStatus::Serving,
            "bad" => ServingStatus::NotServing,
            _ => return Err(tonic::Status::not_found("no such service")),
        };
        Ok(tonic::Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }
}

#[tokio::test]
async fn grpc_services_say_themselves_how_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    TaskTracker::new().spawn(
        tonic::transport::Server::builder()
            .add_service(HealthServer::new(Halves))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    for (service, expected) in [
        ("good", "well"),
        ("bad", "service unhealthy (responded with \"NOT_SERVING\")"),
        (
            "none",
            "error: health rpc probe failed: rpc error: code = NotFound desc = no such service",
        ),
    ] {
        let check = Check::Grpc {
            host: "127.0.0.1".to_owned(),
            port,
            service: service.to_owned(),
        };
        assert_eq!(ask(check, LIMIT).await, expected, "{service}");
    }
}

#[tokio::test]
async fn commands_are_judged_by_their_exit_code() {
    let run = |word: &str| {
        ask(
            Check::Exec {
                command: vec![word.to_owned()],
            },
            LIMIT,
        )
    };
    assert_eq!(run("true").await, "well");
    assert_eq!(run("false").await, "it said false");
    assert_eq!(
        run("slow").await,
        "command timed out: \"slow\" timed out after 5s"
    );
}
