//! `flotilla demo`: the program of the built-in image, a small HTTP server that shows where it runs and can be made to
//! fail.
//!
//! Plain threads and no runtime: it starts in under a millisecond and each connection costs one small stack. Only gRPC,
//! if asked for, brings a runtime with it.

mod grpc;
mod ports;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// More connections than this are refused: each has a thread.
const CONNECTIONS_MAX: usize = 1000;
const STACK_BYTES: usize = 64 * 1024;
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// How long another server may take to answer.
const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// More of its answer is not read.
const FETCH_BYTES_MAX: u64 = 1024 * 1024;
/// An idle connection is closed after this time.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Requests that are being answered when SIGTERM comes get this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT; `arguments` are those after `demo`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> Result<(), String> {
    let ports = ports::ports(arguments, std::env::var("PORT").ok())?;
    let address = format!("0.0.0.0:{}", ports.http);
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Blocked before any thread exists, so that only the wait below takes them: PID 1 has no default action for them.
    signals
        .thread_block()
        .map_err(|error| format!("cannot block signals: {error}"))?;
    let listener = TcpListener::bind(&address)
        .map_err(|error| format!("cannot listen on {address}: {}", reason(&error)))?;
    let demo = Arc::new(Demo::new(std::env::vars().collect()));
    if let Some(port) = ports.grpc {
        grpc::start(port, Arc::clone(&demo))?;
    }
    log(&format!("{} listening on {address}", demo.greeting()));
    let accepting = Arc::clone(&demo);
    let spawned = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || accept(&listener, &accepting));
    spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
    let signal = signals
        .wait()
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    log(&format!(
        "{signal}: finishing {} requests",
        demo.answering.load(Ordering::SeqCst)
    ));
    let end = Instant::now() + DRAIN_LIMIT;
    while demo.answering.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The system's words without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn accept(listener: &TcpListener, demo: &Arc<Demo>) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        if demo.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            demo.connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let serving = Arc::clone(demo);
        let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // A client that goes away in the middle is no concern of the server.
            let _ = converse(&connection, &serving);
            serving.connections.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            demo.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Answers the requests of one connection.
fn converse(connection: &TcpStream, demo: &Demo) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE_LIMIT))?;
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(4096, connection);
    loop {
        let Some(request) = Request::read(&mut reader)? else {
            return Ok(());
        };
        demo.answering.fetch_add(1, Ordering::SeqCst);
        let answer = demo.answer(&request);
        log(&format!(
            "{} {} {}",
            request.method, request.target, answer.status
        ));
        let written = answer.write(connection, request.keep_alive, request.method == "HEAD");
        demo.answering.fetch_sub(1, Ordering::SeqCst);
        written?;
        if let Some(code) = answer.exit {
            std::process::exit(code);
        }
        if !request.keep_alive {
            return Ok(());
        }
    }
}

fn log(line: &str) {
    // Nobody reads any more: not a reason to fail.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

struct Request {
    method: String,
    target: String,
    keep_alive: bool,
}

impl Request {
    /// The next request; `None` when the client is done. The body is read and dropped.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Ok(None);
        };
        let mut keep_alive = version == "HTTP/1.1";
        let mut body_bytes = 0;
        loop {
            let mut header = String::new();
            if head.read_line(&mut header)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "connection" => keep_alive = !value.trim().eq_ignore_ascii_case("close"),
                "content-length" => body_bytes = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        io::copy(&mut reader.by_ref().take(body_bytes), &mut io::sink())?;
        Ok(Some(Self {
            method,
            target,
            keep_alive,
        }))
    }
}

struct Answer {
    status: u16,
    body: String,
    /// Ends the process with this code once the answer is written.
    exit: Option<i32>,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            exit: None,
        }
    }

    fn write(&self, mut connection: &TcpStream, keep_alive: bool, head_only: bool) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Internal Server Error",
        };
        let connection_header = if keep_alive { "keep-alive" } else { "close" };
        let length = self.body.len() + 1;
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: {connection_header}\r\n\r\n",
            self.status
        );
        let body = if head_only {
            String::new()
        } else {
            format!("{}\n", self.body)
        };
        connection.write_all((head + &body).as_bytes())
    }
}

struct Demo {
    environment: BTreeMap<String, String>,
    hostname: String,
    healthy: AtomicBool,
    connections: AtomicUsize,
    answering: AtomicUsize,
}

impl Demo {
    fn new(environment: BTreeMap<String, String>) -> Self {
        let hostname = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Self {
            environment,
            hostname,
            healthy: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
        }
    }

    fn variable<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.environment.get(name).map_or(default, String::as_str)
    }

    fn version(&self) -> &str {
        self.variable("DEMO_VERSION", "v0")
    }

    fn greeting(&self) -> String {
        let (node, pod) = (
            self.variable("NODE_NAME", "unknown"),
            self.variable("POD_NAME", &self.hostname),
        );
        format!("flotilla demo {} on {node} pod {pod}", self.version())
    }

    fn answer(&self, request: &Request) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| decode(value))
        };
        match path {
            "/" => Answer::new(200, self.greeting()),
            "/version" => Answer::new(200, self.version()),
            "/hostname" => Answer::new(200, &self.hostname),
            "/env" => {
                let lines: Vec<String> = self
                    .environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                Answer::new(200, lines.join("\n"))
            }
            "/addresses" => Answer::new(200, addresses()),
            "/fetch" => {
                let (host, port, path) = (parameter("host"), parameter("port"), parameter("path"));
                fetch(host.as_deref(), port.as_deref(), path.as_deref())
            }
            "/healthz" => self.health(&request.method, parameter("set").as_deref()),
            "/log" => {
                let line = parameter("line").unwrap_or_default();
                log(&line);
                Answer::new(200, "logged")
            }
            "/exit" => match parameter("code").unwrap_or_else(|| "0".to_owned()).parse() {
                Ok(code) => Answer {
                    exit: Some(code),
                    ..Answer::new(200, format!("exiting with {code}"))
                },
                Err(_) => Answer::new(400, "code must be a number"),
            },
            _ => Answer::new(
                404,
                "not found: try / /version /hostname /addresses /env /fetch?host=…&port=…&path=… /healthz /log?line=… /exit?code=…",
            ),
        }
    }

    fn health(&self, method: &str, set: Option<&str>) -> Answer {
        if let Some(wanted) = set {
            if method != "POST" {
                return Answer::new(405, "setting the health needs a POST");
            }
            match wanted {
                "good" => self.healthy.store(true, Ordering::SeqCst),
                "bad" => self.healthy.store(false, Ordering::SeqCst),
                _ => return Answer::new(400, "set must be good or bad"),
            }
            return Answer::new(200, format!("health is {wanted}"));
        }
        if self.healthy.load(Ordering::SeqCst) {
            Answer::new(200, "ok")
        } else {
            Answer::new(500, "bad")
        }
    }
}

/// The IPv4 addresses of the pod but for localhost, one a line.
fn addresses() -> String {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let lines: Vec<String> = addresses
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect();
    lines.join("\n")
}

/// What another server of this kind answers: a neighbour in the same pod, or the one at the address `host`.
fn fetch(host: Option<&str>, port: Option<&str>, path: Option<&str>) -> Answer {
    let host = host.map_or(Ok(Ipv4Addr::LOCALHOST), str::parse);
    let (Ok(host), Some(Ok(port))) = (host, port.map(str::parse)) else {
        return Answer::new(400, "host must be an IPv4 address, and port a number");
    };
    let address = SocketAddrV4::new(host, port);
    match ask(address, path.unwrap_or("/")) {
        Ok(body) => Answer::new(200, body),
        Err(error) => Answer::new(500, format!("cannot fetch from {address}: {}", reason(&error))),
    }
}

fn ask(address: SocketAddrV4, path: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address.into(), FETCH_LIMIT)?;
    connection.set_read_timeout(Some(FETCH_LIMIT))?;
    write!(
        connection,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.take(FETCH_BYTES_MAX).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(body.trim_end().to_owned())
}

/// Undoes `%41` and `+`; what is malformed stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if byte.is_some() { &tail[2..] } else { tail };
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Demo {
        let environment = [
            ("DEMO_VERSION", "v2"),
            ("NODE_NAME", "agent-1"),
            ("POD_NAME", "web-0"),
        ];
        Demo::new(
            environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        )
    }

    fn check(demo: &Demo, method: &str, target: &str, status: u16, body: &str) {
        let answer = demo.answer(&Request {
            method: method.into(),
            target: target.into(),
            keep_alive: true,
        });
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{method} {target}"
        );
    }

    #[test]
    fn it_tells_where_it_runs() {
        let demo = demo();
        check(&demo, "GET", "/", 200, "flotilla demo v2 on agent-1 pod web-0");
        check(&demo, "GET", "/version", 200, "v2");
        check(
            &demo,
            "GET",
            "/env",
            200,
            "DEMO_VERSION=v2\nNODE_NAME=agent-1\nPOD_NAME=web-0",
        );
        check(&demo, "GET", "/log?line=a%20b+c", 200, "logged");
        assert_eq!(
            demo.answer(&Request {
                method: "GET".into(),
                target: "/nowhere".into(),
                keep_alive: true
            })
            .status,
            404
        );
    }

    #[test]
    fn health_can_be_turned_bad_and_good() {
        let demo = demo();
        check(&demo, "GET", "/healthz", 200, "ok");
        check(
            &demo,
            "GET",
            "/healthz?set=bad",
            405,
            "setting the health needs a POST",
        );
        check(&demo, "POST", "/healthz?set=bad", 200, "health is bad");
        check(&demo, "GET", "/healthz", 500, "bad");
        check(&demo, "POST", "/healthz?set=odd", 400, "set must be good or bad");
        check(&demo, "POST", "/healthz?set=good", 200, "health is good");
        check(&demo, "GET", "/healthz", 200, "ok");
    }

    #[test]
    fn it_can_be_told_to_exit() {
        let exit = |target: &str| {
            demo()
                .answer(&Request {
                    method: "GET".into(),
                    target: target.into(),
                    keep_alive: true,
                })
                .exit
        };
        assert_eq!(exit("/exit?code=3"), Some(3));
        assert_eq!(exit("/exit"), Some(0));
        assert_eq!(exit("/exit?code=x"), None);
    }

    #[test]
    fn a_taken_port_is_a_clear_error() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = serve(&["--port".to_owned(), port.to_string()]).unwrap_err();
        assert_eq!(
            error,
            format!("cannot listen on 0.0.0.0:{port}: Address already in use")
        );
    }

    #[test]
    fn escapes_are_undone_and_malformed_ones_kept() {
        assert_eq!(decode("a%20b+c%"), "a b c%");
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%C3%A4"), "ä");
    }
}
