//! The connection to a cluster: any Kubernetes, found through a kubeconfig.
//!
//! Requests are raw paths and JSON values, because kinds are known only from discovery.

mod kubeconfig;

use std::fmt::Write as _;

use futures::AsyncBufRead;
use http::{Method, Request};
use kube::core::Status;
use serde_json::Value;

use crate::GlobalOptions;

/// Asks a server for tables, with objects as the second choice.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Plain JSON.
const JSON: &str = "application/json";

/// A WebSocket to a server.
pub(crate) type Socket =
    tokio_tungstenite::WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: kube::Client,
    /// Of `-n`, else of the context.
    pub(crate) namespace: String,
    /// The server's address as the kubeconfig has it.
    pub(crate) url: String,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{}", .0.message)]
    Server(Box<Status>),
    #[error("The connection to the server {host} was refused - did you specify the right host or port?")]
    Refused { host: String },
    #[error("Unable to connect to the server {host}")]
    Unreachable { host: String, source: kube::Error },
    #[error("the server's answer to {path} is not JSON")]
    NotJson { path: String, source: serde_json::Error },
    #[error("cannot make a request for {path}")]
    Path { path: String, source: http::Error },
}

impl RequestError {
    /// The server's reason (`NotFound`, `Conflict`, …), if it is the server's error.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            RequestError::Server(status) => Some(&status.reason),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.reason() == Some("NotFound")
    }
}

/// How a patch's body is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
}

impl Cluster {
    /// Reads the kubeconfig; nothing is sent yet.
    pub(crate) async fn connect(options: &GlobalOptions) -> anyhow::Result<Cluster> {
        let config = kubeconfig::load(options).await?;
        let namespace = options
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = kube::Client::try_from(config)?;
        Ok(Cluster {
            client,
            namespace,
            url,
        })
    }

    /// The object or list at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, RequestError> {
        self.call(Method::GET, path, JSON, None).await
    }

    /// The same as a table, where the server can make one.
    pub(crate) async fn get_table(&self, path: &str) -> Result<Value, RequestError> {
        self.call(Method::GET, path, TABLE, None).await
    }

    /// Any representation.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Result<Value, RequestError> {
        self.call(Method::GET, path, accept, None).await
    }

    /// The answer as text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String, RequestError> {
        let request = build(Method::GET, path, "*/*", None)?;
        self.client
            .request_text(request)
            .await
            .map_err(|error| self.explain(error))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, RequestError> {
        self.call(Method::POST, path, JSON, Some((JSON, body))).await
    }

    pub(crate) async fn patch(
        &self,
        path: &str,
        kind: PatchType,
        body: &Value,
    ) -> Result<Value, RequestError> {
        let content_type = match kind {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        };
        self.call(Method::PATCH, path, JSON, Some((content_type, body)))
            .await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, RequestError> {
        self.call(Method::DELETE, path, JSON, Some((JSON, options))).await
    }

    /// A body that arrives bit by bit: a log, or a watch (one JSON event per line).
    pub(crate) async fn stream(
        &self,
        path: &str,
        table: bool,
    ) -> Result<impl AsyncBufRead + use<>, RequestError> {
        let request = build(Method::GET, path, if table { TABLE } else { "*/*" }, None)?;
        self.client
            .request_stream(request)
            .await
            .map_err(|error| self.explain(error))
    }

    /// A connection that the server has turned into a WebSocket.
    pub(crate) async fn upgrade(&self, path: &str) -> Result<kube::client::Connection, RequestError> {
        tracing::debug!(path, "upgrade");
        let request = build(Method::GET, path, "*/*", None)?;
        self.client
            .connect(request)
            .await
            .map_err(|error| self.explain(error))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, RequestError> {
        tracing::debug!(%method, path, "request");
        let request = build(method, path, accept, body)?;
        let text = self
            .client
            .request_text(request)
            .await
            .map_err(|error| self.explain(error))?;
        serde_json::from_str(&text).map_err(|source| RequestError::NotJson {
            path: path.to_owned(),
            source,
        })
    }

    fn explain(&self, error: kube::Error) -> RequestError {
        let host = self.url.split("://").last().unwrap_or_default().to_owned();
        match error {
            kube::Error::Api(status) => RequestError::Server(status),
            error if is_refused(&error) => RequestError::Refused { host },
            source => RequestError::Unreachable { host, source },
        }
    }
}

fn build(
    method: Method,
    path: &str,
    accept: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Vec<u8>>, RequestError> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::ACCEPT, accept);
    if let Some((content_type, _)) = body {
        builder = builder.header(http::header::CONTENT_TYPE, content_type);
    }
    let bytes = body
        .map(|(_, value)| value.to_string().into_bytes())
        .unwrap_or_default();
    builder.body(bytes).map_err(|source| RequestError::Path {
        path: path.to_owned(),
        source,
    })
}

fn is_refused(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Appends `?a=b&c=d` with what a query may not hold escaped; pairs without a value are left out.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let mut separator = if path.contains('?') { '&' } else { '?' };
    for (key, value) in pairs {
        if let Some(value) = value {
            out.push(separator);
            out.push_str(&format!("{key}={}", escape(value)));
            separator = '&';
        }
    }
    out
}

/// Percent-encodes all that is not plainly allowed in a path segment or query value.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let written = write!(out, "%{byte:02X}");
            debug_assert!(written.is_ok(), "writing to a string succeeds");
        }
    }
    out
}
