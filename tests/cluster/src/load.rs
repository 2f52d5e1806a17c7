//! Asks a URL at a fixed rate, each time over a new connection, and prints what came of it as one line of JSON.
//!
//! A request counts as failed when it is not answered with 200 within the limit; nothing is tried twice. Run it where the
//! address is reached, for example `flotilla local exec agent-1 -- flotilla-load http://10.43.0.80/ 200 60`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks to whoever runs it"
)]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{Mutex, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

/// Requests under way at once: at 200 requests/s each may take 300 ms before the rate suffers.
const CLIENTS: u64 = 64;
/// Of a connection, a write and each read.
const LIMIT: Duration = Duration::from_secs(5);
/// Failures that are printed in words.
const TOLD_MAX: usize = 10;

struct Target {
    address: SocketAddr,
    request: String,
}

#[derive(Default)]
struct Outcome {
    milliseconds: Vec<f64>,
    failed: u64,
    told: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match words.as_slice() {
        [url, rate, seconds] => target(url).zip(rate.parse().ok()).zip(seconds.parse().ok()),
        _ => None,
    };
    let Some(((target, rate), seconds)) = parsed else {
        eprintln!("usage: flotilla-load http://ADDRESS[:PORT]/PATH REQUESTS_PER_SECOND SECONDS");
        return ExitCode::from(2);
    };
    println!("{}", summary(run(&target, rate, seconds)));
    ExitCode::SUCCESS
}

fn target(url: &str) -> Option<Target> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.parse().or_else(|_| format!("{host}:80").parse()).ok()?;
    Some(Target {
        address,
        request: format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    })
}

fn run(target: &Target, rate: u64, seconds: u64) -> Outcome {
    let (next, outcome) = (AtomicU64::new(0), Mutex::new(Outcome::default()));
    let (begin, total) = (Instant::now(), rate * seconds);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS.min(total) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let due = begin + Duration::from_secs(number) / u32::try_from(rate).unwrap_or(u32::MAX);
                    wait_until(due);
                    let (sent, at) = (Instant::now(), begin.elapsed());
                    let asked = ask(target);
                    let took = sent.elapsed().as_secs_f64() * 1000.0;
                    note(&outcome, at, took, asked);
                }
            });
        }
    });
    outcome.into_inner().expect("no client panics")
}

/// A thread may be woken before its time.
fn wait_until(due: Instant) {
    while let Some(rest) = due
        .checked_duration_since(Instant::now())
        .filter(|rest| !rest.is_zero())
    {
        std::thread::park_timeout(rest);
    }
}

fn note(outcome: &Mutex<Outcome>, at: Duration, took: f64, asked: Result<(), String>) {
    let mut outcome = outcome.lock().expect("no client panics");
    outcome.milliseconds.push(took);
    if let Err(reason) = asked {
        outcome.failed += 1;
        if outcome.told.len() < TOLD_MAX {
            outcome.told.push(format!(
                "after {:.3} s: {reason} ({took:.1} ms)",
                at.as_secs_f64()
            ));
        }
    }
}

fn ask(target: &Target) -> Result<(), String> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |error: std::io::Error| format!("{step}: {error}")
    };
    let mut stream = TcpStream::connect_timeout(&target.address, LIMIT).map_err(failed("connect"))?;
    stream
        .set_read_timeout(Some(LIMIT))
        .map_err(failed("set a limit"))?;
    stream
        .set_write_timeout(Some(LIMIT))
        .map_err(failed("set a limit"))?;
    stream
        .write_all(target.request.as_bytes())
        .map_err(failed("send"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed("receive"))?;
    let first = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match first {
        line if line.starts_with(b"HTTP/1.1 200 ") || line.starts_with(b"HTTP/1.0 200 ") => Ok(()),
        line => Err(format!("answer {:?}", String::from_utf8_lossy(line))),
    }
}

fn summary(mut outcome: Outcome) -> serde_json::Value {
    outcome.milliseconds.sort_by(f64::total_cmp);
    let last = outcome.milliseconds.len().saturating_sub(1);
    let at = |share: usize| outcome.milliseconds.get(last * share / 100).copied();
    serde_json::json!({
        "requests": outcome.milliseconds.len(),
        "failed": outcome.failed,
        "median_ms": at(50),
        "p99_ms": at(99),
        "max_ms": at(100),
        "failures": outcome.told,
    })
}
