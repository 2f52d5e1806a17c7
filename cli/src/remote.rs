//! A process in a container, as `exec`, `attach` and `cp` reach it: its streams over one WebSocket.

mod terminal;

use anyhow::Context as _;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use kube::client::Connection;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Cluster, Socket, escape, with_query};
pub(crate) use terminal::{RawTerminal, Size, is_terminal, output, standard_input, window_sizes};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Sent at once.
const SEND_BYTES: usize = 32 << 10;

/// The command has ended with another code than 0.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
pub(crate) struct Exited(pub(crate) u8);

/// Which streams of a process are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// What to join.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) wanted: Wanted,
}

/// The client's ends of a process's streams.
pub(crate) struct Ends<I, O, E> {
    pub(crate) stdin: I,
    pub(crate) stdout: O,
    pub(crate) stderr: E,
    /// The sizes of the terminal, the first one included.
    pub(crate) sizes: Option<watch::Receiver<Size>>,
}

/// Runs a command, or joins the container's own process when there is none, until it ends.
pub(crate) async fn run<I, O, E>(
    cluster: &Cluster,
    target: &Target<'_>,
    command: Option<&[String]>,
    ends: Ends<I, O, E>,
) -> anyhow::Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let connection = cluster
        .upgrade(&path(&cluster.namespace, target, command))
        .await?;
    let stdin = target.wanted.stdin.then_some(ends.stdin);
    converse(connection, stdin, ends.sizes, ends.stdout, ends.stderr).await
}

fn path(namespace: &str, target: &Target<'_>, command: Option<&[String]>) -> String {
    let subresource = if command.is_some() { "exec" } else { "attach" };
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/{subresource}",
        escape(namespace),
        escape(target.pod)
    );
    let flag = |set: bool| set.then_some("true");
    let Wanted { stdin, stderr, tty } = target.wanted;
    let mut pairs = vec![
        ("container", Some(target.container)),
        ("stdin", flag(stdin)),
        ("stdout", flag(true)),
        ("stderr", flag(stderr && !tty)),
        ("tty", flag(tty)),
    ];
    let words = command.unwrap_or_default();
    pairs.extend(words.iter().map(|word| ("command", Some(word.as_str()))));
    with_query(&path, &pairs)
}

async fn converse(
    connection: Connection,
    stdin: Option<impl AsyncRead + Unpin>,
    sizes: Option<watch::Receiver<Size>>,
    stdout: impl AsyncWrite + Unpin,
    stderr: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    let can_close = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    // Sending and receiving never wait for each other: the process may write before it has read.
    tokio::select! {
        ended = receive(stream, stdout, stderr) => ended,
        never = send(sink, stdin, sizes, can_close) => match never {},
    }
}

/// Sends input and sizes for as long as the process runs. When the server takes no more, what it still says counts.
async fn send(
    mut sink: SplitSink<Socket, Message>,
    mut stdin: Option<impl AsyncRead + Unpin>,
    mut sizes: Option<watch::Receiver<Size>>,
    can_close: bool,
) -> std::convert::Infallible {
    if let Some(sizes) = &mut sizes {
        sizes.mark_changed();
    }
    let mut buffer = vec![0; 1 + SEND_BYTES];
    loop {
        // Both arms are cancel safe: a read that is dropped has read nothing.
        let message = tokio::select! {
            count = read(&mut stdin, &mut buffer[1..]) => match count {
                0 => {
                    stdin = None;
                    if !can_close {
                        continue;
                    }
                    vec![CLOSE, STDIN]
                }
                count => {
                    buffer[0] = STDIN;
                    buffer[..=count].to_vec()
                }
            },
            size = changed(&mut sizes) => [&[RESIZE], size.to_json().as_bytes()].concat(),
        };
        if sink.send(Message::Binary(message.into())).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What was read; 0 at the end, and never once that was told.
async fn read(stdin: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match stdin {
        // Input that cannot be read any more is at its end.
        Some(stdin) => stdin.read(buffer).await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

async fn changed(sizes: &mut Option<watch::Receiver<Size>>) -> Size {
    if let Some(sizes) = sizes
        && sizes.changed().await.is_ok()
    {
        return *sizes.borrow_and_update();
    }
    std::future::pending().await
}

async fn receive(
    mut stream: SplitStream<Socket>,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> anyhow::Result<()> {
    let mut ended = None;
    while let Some(message) = stream.next().await {
        let bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Close(_)) => break,
            Ok(_) => continue,
            Err(_) if ended.is_some() => break,
            Err(error) => return Err(error).context("the connection to the server broke off"),
        };
        let Some((&channel, data)) = bytes.split_first() else {
            continue;
        };
        match channel {
            STDOUT => put(&mut stdout, data).await.context("cannot write the output")?,
            STDERR => put(&mut stderr, data).await.context("cannot write the errors")?,
            STATUS if !data.is_empty() => ended = Some(outcome(data)),
            _ => {}
        }
    }
    // Whoever reads the output as a stream sees its end only now.
    stdout.shutdown().await.ok();
    ended.unwrap_or_else(|| Err(anyhow::anyhow!("the server did not say how the command ended")))
}

async fn put(writer: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    writer.write_all(data).await?;
    writer.flush().await
}

/// What a `Status` object says about the end of a command.
fn outcome(status: &[u8]) -> anyhow::Result<()> {
    let status: Value = serde_json::from_slice(status).context("the server's last word is not JSON")?;
    if status["status"] == "Success" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes
        .filter(|cause| cause["reason"] == "ExitCode")
        .find_map(|cause| cause["message"].as_str()?.parse::<i32>().ok());
    match code {
        // Codes of processes have eight bits.
        Some(code) => Err(Exited((code & 0xff) as u8).into()),
        None => Err(anyhow::anyhow!(
            "{}",
            status["message"].as_str().unwrap_or_default().to_owned()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_command_keep_their_order() {
        let target = Target {
            pod: "web",
            container: "a",
            wanted: Wanted {
                stdin: true,
                stderr: true,
                tty: false,
            },
        };
        let command = ["sh", "-c", "echo $A"].map(str::to_owned);
        assert_eq!(
            path("default", &target, Some(&command)),
            "/api/v1/namespaces/default/pods/web/exec?container=a&stdin=true&stdout=true&stderr=true\
             &command=sh&command=-c&command=echo%20%24A"
        );
        assert!(path("default", &target, None).contains("/attach?"));
    }

    #[test]
    fn the_end_of_a_command_is_read_from_its_status() {
        assert!(outcome(br#"{"status":"Success"}"#).is_ok());
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"m",
            "details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        let error = outcome(failed).unwrap_err();
        assert_eq!(error.downcast_ref::<Exited>().map(|exited| exited.0), Some(42));
        let broken = outcome(br#"{"status":"Failure","message":"no such file"}"#).unwrap_err();
        assert_eq!(broken.to_string(), "no such file");
    }
}
