//! An API server that answers from a script, on a loopback port of its own.

use std::convert::Infallible;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Answers `METHOD path?query` with a status and a body.
pub(crate) type Script = fn(&str, &str) -> (u16, Value);

/// A running server; it ends when this is dropped.
pub(crate) struct FakeServer {
    requests: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl FakeServer {
    /// Starts answering from `script`; discovery is answered here.
    pub(crate) fn start(script: Script) -> FakeServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (log, stopped) = (requests.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(stopped.run_until_cancelled(serve(listener, script, log)));
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        FakeServer {
            requests,
            folder,
            _stop: stop.drop_guard(),
        }
    }

    /// Runs the binary against this server.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_flotilla"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .output()
            .unwrap();
        show(&output)
    }

    /// Leaves a file in the folder that the binary runs in.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// What was asked, without discovery.
    pub(crate) fn requests(&self) -> String {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| !request.starts_with("GET /api ") && !request.starts_with("GET /apis "))
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn show(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    text.extend(errors.lines().map(|line| format!("stderr: {line}\n")));
    if !output.status.success() {
        text.push_str(&format!("exit code {}\n", output.status.code().unwrap()));
    }
    text
}

async fn serve(listener: std::net::TcpListener, script: Script, log: Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let log = log.clone();
        let service = service_fn(move |request| answer(request, script, log.clone()));
        connections.spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Script,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().to_string();
    let path = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    log.lock()
        .unwrap()
        .push(format!("{method} {path} {}", String::from_utf8_lossy(&body)));
    let (status, value) = match path.as_str() {
        "/api" => (200, core()),
        "/apis" => (200, groups()),
        path => script(&method, path),
    };
    // A watch is one event per line.
    let text = match value {
        Value::Array(events) => events.iter().map(|event| format!("{event}\n")).collect(),
        value => value.to_string(),
    };
    Ok(Response::builder()
        .status(status)
        .body(Full::new(text.into()))
        .unwrap())
}

fn resource(plural: &str, kind: &str, short: &str) -> Value {
    json!({"resource": plural, "singularResource": kind.to_lowercase(), "responseKind": {"kind": kind}, "scope": "Namespaced",
        "shortNames": [short], "categories": ["all"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]})
}

fn core() -> Value {
    json!({"kind": "APIGroupDiscoveryList", "items": [
        {"metadata": {}, "versions": [{"version": "v1", "resources": [resource("pods", "Pod", "po"), resource("configmaps", "ConfigMap", "cm")]}]}]})
}

fn groups() -> Value {
    json!({"kind": "APIGroupDiscoveryList", "items": [
        {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [resource("deployments", "Deployment", "deploy")]}]}]})
}

/// The server's answer for what does not exist.
pub(crate) fn not_found(what: &str, name: &str) -> (u16, Value) {
    let message = format!("{what} \"{name}\" not found");
    (
        404,
        json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": message}),
    )
}
