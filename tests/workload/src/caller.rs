//! Requests over one kept connection to one server. Nothing is ever sent twice.

use std::io;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Server};

/// A request that had no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The server has surely not seen it.
    NeverSent,
    /// The server may have seen it, or may see it yet.
    Lost,
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) body: Bytes,
}

/// Asks one server.
pub(crate) struct Caller {
    access: Access,
    server: Server,
    connections: TaskTracker,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Caller {
    pub(crate) fn new(access: Access, server: Server, connections: TaskTracker) -> Self {
        Self {
            access,
            server,
            connections,
            sender: None,
        }
    }

    /// Sends a request and reads its answer, within the limit.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        limit: Duration,
    ) -> Result<Answer, NoAnswer> {
        match timeout(limit, self.open()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(NoAnswer::NeverSent),
        }
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let code = response.status();
            let body = response.into_body().collect().await.map_err(|_| NoAnswer::Lost)?;
            let body = body.to_bytes();
            Ok(Answer { code, body })
        };
        let answer = timeout(limit, exchange).await.unwrap_or(Err(NoAnswer::Lost));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    /// Sends a request for a stream; the limit is that of its beginning.
    pub(crate) async fn stream(&mut self, path: &str, limit: Duration) -> Option<Response<Incoming>> {
        let begin = async {
            self.open().await.ok()?;
            self.send(Method::GET, path, String::new()).await.ok()
        };
        let response = timeout(limit, begin).await.ok().flatten();
        // The connection is the stream's, whatever became of it.
        self.sender = None;
        response
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let sender = self.sender.as_mut().ok_or(NoAnswer::NeverSent)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "flotilla")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .expect("method, path and headers are well formed");
        sender
            .try_send_request(request)
            .await
            .map_err(|mut error| match error.take_message() {
                Some(_) => NoAnswer::NeverSent,
                None => NoAnswer::Lost,
            })
    }

    /// Makes sure that there is a connection.
    async fn open(&mut self) -> io::Result<()> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
        {
            return Ok(());
        }
        self.sender = None;
        let stream = self.access.connect(&self.server).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // How it ends is told to whoever waits for an answer.
        self.connections.spawn(async move { drop(connection.await) });
        self.sender = Some(sender);
        Ok(())
    }
}
