//! What is too large, and what is too much at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flotilla_apiserver::{InFlightLimits, User};
use futures::{future, stream};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster, deployment, limited, read};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PIECE_BYTES: usize = 64 << 10;

fn config_map(name: &str, bytes: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "x".repeat(bytes)}})
}

/// A body that never ends and does not say how long it is, and how many pieces of it were taken.
fn endless() -> (
    impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
    Arc<AtomicUsize>,
) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let pieces = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from(vec![b' '; PIECE_BYTES])))
    });
    (StreamBody::new(pieces), taken)
}

#[track_caller]
fn assert_too_many(answer: Answer) {
    assert_eq!(answer.headers["retry-after"], "1");
    let body = answer.expect(429);
    assert_eq!(body["reason"], "TooManyRequests");
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
    assert_eq!(body["message"], "too many requests, please try again later");
}

#[tokio::test]
async fn an_object_that_is_too_large_is_refused_and_says_how_large() {
    let cluster = Cluster::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let with_argument = |name: &str, bytes: usize| {
        let mut object = deployment(name);
        object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["x".repeat(bytes)]);
        object
    };
    cluster
        .create(deployments, with_argument("fits", 1_500_000))
        .await;
    let too_large = with_argument("large", 1_600_000).to_string();
    let answer = cluster.send(Method::POST, deployments, &[], &too_large).await;
    let body = answer.expect(413);
    assert_eq!(body["reason"], "RequestEntityTooLarge");
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("Request entity too large: deployments.apps default/large has 1600"),
        "{message}"
    );
    assert!(
        message.ends_with("the limit for an object is 1572864"),
        "{message}"
    );
    // Neither does an object grow to it.
    let uri = format!("{deployments}/fits");
    let patch = json!({"metadata": {"annotations": {"b": "x".repeat(200_000)}}});
    cluster.merge(&uri, patch).await.refused(413);
    let patch = json!({"metadata": {"annotations": {"b": "x"}}});
    cluster.merge(&uri, patch).await.expect(200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read_to_its_end() {
    let cluster = Cluster::start().await;
    let (body, taken) = endless();
    let answer = cluster.post_body(MAPS, body).await;
    let message = read(answer).await.refused(413);
    assert_eq!(message, "Request entity too large: limit is 3145728");
    let most = (3 << 20) / PIECE_BYTES + 1;
    assert_eq!(taken.load(Ordering::Relaxed), most);

    // With a length, nothing is read at all.
    let (body, taken) = endless();
    let told = Told(Box::pin(body), 4 << 20);
    read(cluster.post_body(MAPS, told).await).await.refused(413);
    assert_eq!(taken.load(Ordering::Relaxed), 0);
}

/// A body that says how long it is.
struct Told<B>(std::pin::Pin<Box<B>>, u64);

impl<B: http_body::Body<Data = Bytes, Error = Infallible>> http_body::Body for Told<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        ctx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.as_mut().poll_frame(ctx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn two_thousand_writers_at_once_are_answered_or_told_to_come_back() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..2000).map(|number| format!("map-{number}")).collect();
    let mut waiting: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut rounds, mut refused) = (0, 0);
    while !waiting.is_empty() {
        rounds += 1;
        let answers = limited(future::join_all(waiting.iter().map(|name| {
            let body = config_map(name, 100).to_string();
            let cluster = &cluster;
            async move { cluster.send(Method::POST, MAPS, &[], &body).await }
        })))
        .await;
        let mut again = Vec::new();
        for (name, answer) in waiting.into_iter().zip(answers) {
            match answer.code {
                201 => {}
                _ => {
                    assert_too_many(answer);
                    again.push(name);
                }
            }
        }
        refused += again.len();
        waiting = again;
    }
    assert!(rounds > 1 && refused > 0, "{rounds} rounds, {refused} refused");
    let list = cluster.get(MAPS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2000);
}

fn limits() -> InFlightLimits {
    InFlightLimits {
        mutating: 1,
        reading: 1,
        long_running: 2,
        body_bytes: 3 << 20,
    }
}

#[tokio::test]
async fn writers_and_watchers_that_are_too_many_keep_out_nobody_else() {
    let cluster = Cluster::limited_to(limits()).await;
    // A writer that does not come to an end.
    let waits = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let mut writer = Box::pin(cluster.post_body(MAPS, waits));
    assert!(future::poll_immediate(&mut writer).await.is_none());
    let map = config_map("a", 1).to_string();
    assert_too_many(cluster.send(Method::POST, MAPS, &[], &map).await);
    cluster.get(MAPS).await.expect(200);

    let uri = format!("{MAPS}?watch=1");
    let watch = || cluster.open(Method::GET, &uri, &[], "");
    let (first, _second) = (watch().await, watch().await);
    assert_eq!(first.status(), 200);
    assert_too_many(read(watch().await).await);
    cluster.get(MAPS).await.expect(200);
    for path in ["/readyz", "/livez", "/version"] {
        assert_eq!(cluster.get(path).await.code, 200, "{path}");
    }

    // Both are let in again once somebody has left.
    drop((writer, first));
    assert_eq!(watch().await.status(), 200);
    cluster.send(Method::POST, MAPS, &[], &map).await.expect(201);
}

#[tokio::test]
async fn bodies_take_only_so_much_memory_together() {
    let cluster = Cluster::limited_to(InFlightLimits {
        mutating: 10,
        ..limits()
    })
    .await;
    // It has not said how long it is, so it may be as long as a body may be: that is all there is.
    let waits = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let mut writer = Box::pin(cluster.post_body(MAPS, waits));
    assert!(future::poll_immediate(&mut writer).await.is_none());
    let map = config_map("a", 1).to_string();
    assert_too_many(cluster.send(Method::POST, MAPS, &[], &map).await);
    drop(writer);
    cluster.send(Method::POST, MAPS, &[], &map).await.expect(201);
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_falls_behind_and_is_told_so() {
    let cluster = Cluster::start().await;
    let watch = cluster
        .open(Method::GET, &format!("{MAPS}?watch=1"), &[], "")
        .await;
    let mut body = watch.into_body();
    // More than the history of one resource keeps, while nothing is taken.
    cluster.create(MAPS, config_map("a", 1_000_000)).await;
    for number in 0..6 {
        let patch = json!({"data": {"n": number.to_string()}});
        cluster.merge(&format!("{MAPS}/a"), patch).await.expect(200);
    }
    let mut last = Bytes::new();
    while let Some(frame) = limited(body.frame()).await {
        last = frame.unwrap().into_data().unwrap();
    }
    let event: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
}

#[tokio::test]
async fn metrics_tell_what_is_refused_to_those_who_may_know() {
    let cluster = Cluster::limited_to(limits()).await;
    let first = cluster
        .open(Method::GET, &format!("{MAPS}?watch=1"), &[], "")
        .await;
    let _second = cluster
        .open(Method::GET, &format!("{MAPS}?watch=1"), &[], "")
        .await;
    cluster.get(&format!("{MAPS}?watch=1")).await.refused(429);
    drop(first);
    let monitoring = User {
        name: "prometheus".into(),
        groups: vec!["system:monitoring".into()],
    };
    let scraped = cluster
        .open_as(Some(monitoring), Method::GET, "/metrics", &[], "")
        .await;
    let answer = read(scraped).await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in [
        "apiserver_current_inflight_requests{request_kind=\"longRunning\"} 1",
        "apiserver_dropped_requests_total{request_kind=\"longRunning\"} 1",
        "apiserver_dropped_requests_total{request_kind=\"mutating\"} 0",
        "flotilla_store_objects 1",
        "flotilla_raft_is_leader 1",
        "flotilla_raft_members 1",
    ] {
        assert!(
            answer.text.lines().any(|found| found == line),
            "{line} is missing in {}",
            answer.text
        );
    }
    read(cluster.open_as(None, Method::GET, "/metrics", &[], "").await)
        .await
        .refused(403);
}

#[tokio::test]
async fn a_full_store_says_how_to_get_out_and_lets_its_users_do_it() {
    let limits = flotilla_raft::Limits {
        quota_bytes: 24 << 20,
        snapshot_bytes_min: 2 << 20,
        snapshot_bytes_max: 2 << 20,
        ..flotilla_raft::Limits::default()
    };
    let cluster = Cluster::with(InFlightLimits::default(), limits).await;
    let mut count = 0;
    let refused = loop {
        let map = config_map(&format!("map-{count}"), 1_000_000).to_string();
        let answer = cluster.send(Method::POST, MAPS, &[], &map).await;
        if answer.code != 201 {
            break answer;
        }
        count += 1;
    };
    assert!(!refused.headers.contains_key("retry-after"));
    let body = refused.expect(507);
    assert_eq!(body["reason"], "InsufficientStorage");
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("more than its quota of 24 MiB: delete objects, which still works"),
        "{message}"
    );

    // It is shown, and makes nobody go elsewhere.
    let answer = cluster.get("/readyz?verbose").await;
    assert_eq!(answer.code, 200);
    let shown = "[!]store-space warns: the store's data on server-1 takes";
    assert!(answer.text.contains(shown), "{}", answer.text);
    assert_eq!(cluster.get("/readyz/store-space").await.code, 500);
    let alarm = "flotilla_store_space_alarm{server=\"server-1\"} 1";
    assert!(cluster.get("/metrics").await.text.contains(alarm));

    // What exists can be made smaller and deleted. (Marks, too, up to a tenth over the quota; what is written between
    // two measurements may be more than that.)
    cluster
        .merge(&format!("{MAPS}/map-0"), json!({"data": {"a": "x"}}))
        .await
        .expect(200);
    cluster.send(Method::DELETE, MAPS, &[], "").await.expect(200);
    limited(async {
        while cluster.get("/readyz/store-space").await.code != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.create(MAPS, config_map("again", 1)).await;
    assert!(!cluster.get("/metrics").await.text.contains(alarm));
}
