//! Carries out what a probe or hook wants done, and says how it went in kubelet's words.

mod grpc;
mod http;
mod tls;

use std::io;
use std::time::Duration;

use flotilla_lifecycle::{Check, ProbeOutcome, host_port};
use flotilla_report::report;
use tokio::net::TcpStream;

use crate::machine::{CommandError, Machine};

/// Bytes of a command's output or an answer's body that are told.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// The container that a check is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) uid: &'a str,
    /// The runtime's name of the container.
    pub(crate) id: &'a str,
}

/// Runs a probe once.
pub(crate) async fn probe(
    machine: &dyn Machine,
    subject: Subject<'_>,
    check: &Check,
    limit: Duration,
) -> ProbeOutcome {
    match check {
        Check::Exec { command } => probe_command(machine, subject, command, limit).await,
        Check::Http(check) => {
            let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            match within(limit, http::probe(check)).await {
                Some(outcome) => outcome,
                None => ProbeOutcome::Failure(format!("Get \"{}\": {late}", check.url())),
            }
        }
        Check::Tcp { host, port } => match within(limit, dial(host, *port)).await {
            Some(Ok(_)) => ProbeOutcome::Success,
            Some(Err(why)) => ProbeOutcome::Failure(why),
            None => ProbeOutcome::Failure(format!("dial tcp {}: i/o timeout", host_port(host, *port))),
        },
        Check::Grpc { host, port, service } => grpc::probe(&host_port(host, *port), service, limit).await,
        Check::Sleep { .. } => ProbeOutcome::Unknown("a probe cannot sleep".to_owned()),
    }
}

/// Runs a hook; the error is for the container's status. A hook that is to be cut short is dropped.
pub(crate) async fn hook(
    machine: &dyn Machine,
    subject: Subject<'_>,
    check: &Check,
    limit: Duration,
) -> Result<(), String> {
    match check {
        Check::Exec { command } => {
            let ran = machine.command(subject.uid, subject.id, command.clone(), limit);
            match ran.await {
                Ok(output) if output.code == 0 => Ok(()),
                Ok(output) => Err(format!(
                    "Exec lifecycle hook ({command:?}) failed - error: command '{}' exited with {}: , message: {:?}",
                    command.join(" "),
                    output.code,
                    text(&output.output),
                )),
                Err(error) => Err(format!(
                    "Exec lifecycle hook ({command:?}) failed - error: {}",
                    report(&error)
                )),
            }
        }
        Check::Http(check) => match within(limit, http::get(check)).await {
            Some(answer) => answer
                .map(|_| ())
                .map_err(|why| format!("HTTP lifecycle hook ({}) failed - error: {why}", check.path)),
            None => Err(format!(
                "HTTP lifecycle hook ({}) failed - error: no answer in time",
                check.path
            )),
        },
        Check::Sleep { seconds } => {
            tokio::time::sleep(Duration::from_secs((*seconds).max(0).unsigned_abs())).await;
            Ok(())
        }
        Check::Tcp { .. } | Check::Grpc { .. } => Err("not a hook's handler".to_owned()),
    }
}

async fn probe_command(
    machine: &dyn Machine,
    subject: Subject<'_>,
    command: &[String],
    limit: Duration,
) -> ProbeOutcome {
    match machine
        .command(subject.uid, subject.id, command.to_vec(), limit)
        .await
    {
        Ok(output) if output.code == 0 => ProbeOutcome::Success,
        Ok(output) => ProbeOutcome::Failure(text(&output.output)),
        Err(CommandError::TimedOut) => ProbeOutcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            limit.as_secs()
        )),
        Err(error) => ProbeOutcome::Unknown(report(&error)),
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(OUTPUT_BYTES_MAX)]).into_owned()
}

/// The answer, or none when it took too long.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

/// Opens a connection; the error is Go's.
async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((host, port)).await;
    stream.map_err(|error| format!("dial tcp {}: {}", host_port(host, port), go_error(&error)))
}

fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => report(error),
    }
}

#[cfg(test)]
mod tests;
