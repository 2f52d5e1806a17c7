//! The proxy over real sockets: an endpoint, a proxy and a client, each on loopback.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use flotilla_ingress::Limits;
use support::{World, endpoint, ingress, raw_endpoint, secret, send, within};

#[tokio::test]
async fn a_request_reaches_its_service_and_says_where_it_comes_from() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let request = Request::get("/some/path?q=1")
        .header("host", "a.test:8080")
        .header("x-forwarded-for", "10.9.8.7")
        .header("connection", "keep-alive, x-mine")
        .header("x-mine", "private");
    let (head, body) = send(port, request.body(Full::default()).unwrap()).await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.headers["x-endpoint"], "web");
    assert!(
        !head.headers.contains_key("x-hop"),
        "named by the endpoint's Connection"
    );
    for line in [
        "GET /some/path?q=1",
        "host: a.test:8080",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: a.test:8080",
        "x-real-ip: 127.0.0.1",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is not in\n{body}"
        );
    }
    assert!(!body.contains("private"), "{body}");
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_explained() {
    let world = World::new();
    world.serve("empty", &[]);
    world.serve("dead", &[support::unused_address().await]);
    let paths = [("/empty", "empty"), ("/dead", "dead"), ("/gone", "gone")];
    world.rules.ingress(&ingress("a.test", &paths, &json!({})));
    let port = world.http().await;
    let ask = |host: &'static str, path: &'static str| async move {
        let request = Request::get(path).header("host", host);
        let (head, body) = send(port, request.body(Full::default()).unwrap()).await;
        (head.status.as_u16(), body)
    };
    for (host, path, status, said) in [
        (
            "a.test",
            "/empty",
            503,
            "ingress shop/front: service shop/empty:80 has no ready endpoints",
        ),
        (
            "a.test",
            "/gone",
            503,
            "ingress shop/front: service shop/gone does not exist",
        ),
        ("a.test", "/dead", 502, "connection refused"),
        (
            "a.test",
            "/other",
            404,
            "no Ingress has a rule for host \"a.test\" and path \"/other\"",
        ),
        ("b.test", "/empty", 404, "host \"b.test\""),
        ("a b", "/", 400, "malformed"),
    ] {
        let (found, body) = ask(host, path).await;
        assert_eq!(found, status, "{host}{path}: {body}");
        assert!(body.contains(said), "{host}{path}: {body}");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_and_the_body_is_sent_whole_to_the_next() {
    let world = World::new();
    let alive = endpoint(&world, "alive").await;
    let dead = [support::unused_address().await, support::unused_address().await];
    world.serve("web", &[dead[0], dead[1], alive]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    for number in 0..6 {
        let text = format!("order {number}");
        let request = Request::post("/echo").header("host", "a.test");
        let (head, body) = send(port, request.body(Full::from(text.clone())).unwrap()).await;
        assert_eq!((head.status.as_u16(), body), (200, text));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_get_survives_an_endpoint_that_closes_a_kept_connection_and_a_post_is_not_sent_twice() {
    let world = World::new();
    // Keeps the connection open after its first answer, and closes it when a second request comes.
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst";
    let (address, requests) = raw_endpoint(&world, answer).await;
    world.serve("web", &[address]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let ask = |method: Method| async move {
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "a.test");
        send(port, request.body(Full::default()).unwrap())
            .await
            .0
            .status
            .as_u16()
    };
    assert_eq!(ask(Method::GET).await, 200);
    assert_eq!(ask(Method::GET).await, 200);
    let before = requests.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(before, 3, "the second request came twice");
    assert_eq!(ask(Method::POST).await, 502);
    let after = requests.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(after, 4, "the last one once");
    world.stop().await;
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let (tx, rx) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    let request = Request::post("/echo").header("host", "a.test");
    let request = request.body(StreamBody::new(rx)).unwrap();
    let mut sender = support::connect(&world, port).await;
    let response = within(sender.send_request(request)).await.unwrap();
    assert!(!response.headers().contains_key("content-length"));
    let mut body = response.into_body();
    for piece in ["one", "two", "three"] {
        tx.unbounded_send(Ok(Frame::data(Bytes::from(piece)))).unwrap();
        // It is back before the next one is sent.
        let frame = within(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(tx);
    assert!(within(body.frame()).await.is_none());
    world.stop().await;
}

#[tokio::test]
async fn websockets_go_through() {
    let world = World::new();
    let endpoint = support::websocket_endpoint(&world).await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut socket, response) = within(tokio_tungstenite::client_async("ws://a.test/chat", stream))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    for text in ["hello", "again"] {
        socket.send(Message::text(text)).await.unwrap();
        let answer = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(answer, Message::text(format!("/chat: {text}")));
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within(socket.next()).await {}
    drop(socket);
    world.stop().await;
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_follow_their_secrets() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    let tls = json!({"tls": [
        {"hosts": ["a.test"], "secretName": "one"}, {"hosts": ["*.b.test"], "secretName": "two"},
        {"hosts": ["broken.test"], "secretName": "broken"},
    ]});
    let (one, one_der) = secret("one");
    let (two, two_der) = secret("two");
    let (mut broken, _) = secret("broken");
    broken.data.as_mut().unwrap().get_mut("tls.key").unwrap().0 = b"nonsense".to_vec();
    for secret in [&one, &two, &broken] {
        world.rules.secret(secret);
    }
    world.rules.ingress(&ingress("a.test", &[("/", "web")], &tls));
    let port = world.https().await;
    let shown = |name: &'static str| {
        let world = &world;
        async move { support::certificate(world, port, name).await }
    };
    assert_eq!(shown("a.test").await, one_der);
    assert_eq!(shown("x.b.test").await, two_der);
    let own = shown("unknown.test").await;
    assert!(own != one_der && own != two_der);
    assert_eq!(
        shown("broken.test").await,
        own,
        "what cannot be used is not shown"
    );
    // The secret is rotated.
    let (again, again_der) = secret("one");
    world.rules.secret(&again);
    support::eventually(async || shown("a.test").await == again_der).await;
    world.rules.secret_gone("shop", "two");
    support::eventually(async || shown("x.b.test").await == own).await;
    world.stop().await;
}

#[tokio::test]
async fn clients_speak_http_2_over_tls_and_endpoints_http_1() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.https().await;
    let mut sender = support::connect_h2(&world, port, "a.test").await;
    let requests = (0..20).map(|number| {
        let request = Request::post("https://a.test/echo").body(Full::from(format!("stream {number}")));
        let answer = sender.send_request(request.unwrap());
        async move {
            let body = within(answer).await.unwrap().into_body();
            assert_eq!(
                body.collect().await.unwrap().to_bytes(),
                format!("stream {number}")
            );
        }
    });
    futures::future::join_all(requests).await;
    let request = Request::get("https://a.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let request = request.body(Full::default()).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    for line in ["host: a.test", "x-forwarded-proto: https", "cookie: a=1; b=2"] {
        assert!(
            body.lines().any(|found| found == line),
            "{line} is not in\n{body}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn plain_requests_are_sent_to_https_where_an_ingress_asks_for_it() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    let mut redirecting = ingress("a.test", &[("/", "web")], &json!({}));
    let annotation = (
        flotilla_api::ingresses::REDIRECT_ANNOTATION.to_owned(),
        "true".to_owned(),
    );
    redirecting.metadata.annotations = Some([annotation].into());
    world.rules.ingress(&redirecting);
    let (http, https) = (world.http().await, world.https().await);
    let request = Request::get("/a?b=c").header("host", format!("a.test:{http}"));
    let (head, _) = send(http, request.body(Full::default()).unwrap()).await;
    assert_eq!(head.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(head.headers["location"], format!("https://a.test:{https}/a?b=c"));
    world.stop().await;
}

#[tokio::test]
async fn ports_are_open_only_while_there_is_something_to_serve() {
    let world = World::new();
    let mut listening = world.listening();
    let front = ingress("a.test", &[("/", "web")], &json!({}));
    let mut foreign = front.clone();
    foreign.spec.as_mut().unwrap().ingress_class_name = Some("other".to_owned());
    world.rules.ingress(&foreign);
    // Handled in order: when the ports are open at last, they were not opened before.
    assert_eq!(listening.borrow_and_update().http, None);
    world.rules.ingress(&front);
    let port = world.http().await;
    world.rules.ingress_gone("shop", "front");
    within(listening.wait_for(|now| now.http.is_none() && now.https.is_none()))
        .await
        .unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    world.rules.ingress(&front);
    assert_ne!(world.http().await, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_taken_once_it_is_free_and_the_other_one_is_served_meanwhile() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let world = World::on(Some(port), Some(0));
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    world.https().await;
    assert_eq!(world.listening().borrow().http, None);
    drop(taken);
    assert_eq!(world.http().await, port);
    world.stop().await;
}

#[tokio::test]
async fn requests_under_way_are_finished_when_the_proxy_stops() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let (tx, rx) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    let request = Request::post("/echo").header("host", "a.test");
    let mut sender = support::connect(&world, port).await;
    let response = within(sender.send_request(request.body(StreamBody::new(rx)).unwrap()))
        .await
        .unwrap();
    world.shutdown.cancel();
    within(world.listening().wait_for(|now| now.http.is_none()))
        .await
        .unwrap();
    assert!(
        TcpStream::connect(("127.0.0.1", port)).await.is_err(),
        "no new ones"
    );
    tx.unbounded_send(Ok(Frame::data(Bytes::from("the rest"))))
        .unwrap();
    drop(tx);
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "the rest");
    world.stop().await;
}

#[tokio::test]
async fn two_requests_cannot_be_made_of_one() {
    let world = World::new();
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // By its length the body is empty, and what follows would be a request of its own.
    let smuggled = "POST /echo HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\
                    connection: close\r\n\r\n1e\r\nGET /other HTTP/1.1\r\nhost: x\r\n\r\n0\r\n\r\n";
    stream.write_all(smuggled.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    assert!(
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .is_ok()
    );
    assert_eq!(
        answer.matches("HTTP/1.1").count() - answer.matches("GET /other HTTP/1.1").count(),
        1,
        "{answer}"
    );
    world.stop().await;
}

/// Reads until the proxy closes the connection.
async fn closed(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    String::from_utf8(rest).unwrap()
}

#[tokio::test]
async fn a_client_that_trickles_its_headers_or_keeps_a_connection_unused_is_sent_away() {
    let world = World::with(Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    });
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let mut slow = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-slow")
        .await
        .unwrap();
    let mut unused = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    unused
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        .await
        .unwrap();
    let answered = closed(&mut unused).await;
    assert!(answered.starts_with("HTTP/1.1 503"), "{answered}");
    assert!(!closed(&mut slow).await.contains("HTTP/1.1 2"));
    world.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_a_504_and_is_not_asked_twice() {
    let world = World::with(Limits {
        answer: Duration::from_millis(300),
        ..Limits::default()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.serve("web", &[listener.local_addr().unwrap()]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let request = Request::get("/").header("host", "a.test");
    let (head, body) = send(port, request.body(Full::default()).unwrap()).await;
    assert_eq!(head.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("service shop/web:80, endpoint 127.0.0.1"), "{body}");
    within(listener.accept()).await.unwrap();
    let second = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(second.is_err(), "the request came once");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let world = World::with(Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    });
    let endpoint = support::websocket_endpoint(&world).await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut socket, _) = within(tokio_tungstenite::client_async("ws://a.test/", stream))
        .await
        .unwrap();
    let ended = within(socket.next()).await;
    assert!(!matches!(ended, Some(Ok(Message::Text(_)))), "{ended:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_served_once_another_one_ends() {
    let world = World::with(Limits {
        connections: 1,
        ..Limits::default()
    });
    let endpoint = endpoint(&world, "web").await;
    world.serve("web", &[endpoint]);
    world
        .rules
        .ingress(&ingress("a.test", &[("/", "web")], &json!({})));
    let port = world.http().await;
    let ask = b"GET /one HTTP/1.1\r\nhost: a.test\r\n\r\n";
    let mut first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    first.write_all(ask).await.unwrap();
    let mut buffer = [0; 1024];
    assert!(within(first.read(&mut buffer)).await.unwrap() > 0);
    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    second.write_all(ask).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the second one waits");
    drop(first);
    assert!(within(second.read(&mut buffer)).await.unwrap() > 0);
    world.stop().await;
}
