//! Asks name servers, one after the other, until one answers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use flotilla_report::report;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::answer::PAYLOAD_MAX;

/// For one server; clients ask again after five seconds.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no name server is configured on the node")]
    NoServer,
    #[error("{server} does not answer")]
    Silent { server: SocketAddr },
    #[error("cannot talk to {server}")]
    Unreachable { server: SocketAddr, source: io::Error },
    #[error("{server} answers with {code}")]
    Trouble { server: SocketAddr, code: ResponseCode },
}

/// Asks for the records of a name; the first useful answer wins, else the last trouble is told.
pub(crate) async fn ask(
    servers: &[SocketAddr],
    name: &Name,
    record_type: RecordType,
    dnssec_ok: bool,
) -> Result<Message, ForwardError> {
    let mut last = ForwardError::NoServer;
    for &server in servers {
        let question = question(name, record_type, dnssec_ok);
        let answer = timeout(PATIENCE, ask_one(server, &question)).await;
        last = match answer {
            Err(_) => ForwardError::Silent { server },
            Ok(Err(source)) => ForwardError::Unreachable { server, source },
            Ok(Ok(answer)) => match answer.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => return Ok(answer),
                code => ForwardError::Trouble { server, code },
            },
        };
        tracing::debug!(error = report(&last), "a name server is of no help");
    }
    Err(last)
}

fn question(name: &Name, record_type: RecordType, dnssec_ok: bool) -> Message {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_MAX)
        .set_version(0)
        .set_dnssec_ok(dnssec_ok);
    question.set_edns(edns);
    question
}

async fn ask_one(server: SocketAddr, question: &Message) -> io::Result<Message> {
    let bytes = question.to_vec().map_err(io::Error::other)?;
    // A port of its own for each question, and only this server's packets are heard: hard to forge.
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if !is_answer(question, &answer) => {}
            Ok(answer) if answer.metadata.truncation => return ask_by_stream(server, question, &bytes).await,
            Ok(answer) => return Ok(answer),
            Err(error) => tracing::debug!(error = report(&error), "a name server's packet is malformed"),
        }
    }
}

async fn ask_by_stream(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if is_answer(question, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is to another question"))
    }
}

fn is_answer(question: &Message, answer: &Message) -> bool {
    let same = |a: &Query, b: &Query| a.name() == b.name() && a.query_type() == b.query_type();
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && match (&question.queries[..], &answer.queries[..]) {
            ([asked], [repeated]) => same(asked, repeated),
            _ => false,
        }
}
