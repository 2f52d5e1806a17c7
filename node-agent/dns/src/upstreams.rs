//! Who is asked for what the cluster does not know: the node's own resolver configuration, read again when it changes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// Between looks at the file.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// As many as the C library asks.
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;

#[derive(Debug)]
pub(crate) struct Upstreams {
    file: PathBuf,
    /// The address that is answered on: asking it would go round for ever.
    own: SocketAddr,
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    pub(crate) fn new(file: PathBuf, own: SocketAddr) -> Self {
        Self {
            file,
            own,
            looked: None,
            changed: None,
            servers: Vec::new(),
        }
    }

    /// Whom to ask, in this order.
    pub(crate) fn servers(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.looked.is_none_or(|looked| now >= looked + LOOK_AGAIN) {
            self.looked = Some(now);
            let changed = std::fs::metadata(&self.file)
                .and_then(|file| file.modified())
                .ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                let text = std::fs::read_to_string(&self.file).unwrap_or_default();
                self.servers = servers_in(&text, self.own);
            }
        }
        self.servers.clone()
    }
}

/// The name servers of a resolver configuration; `1.2.3.4:5353` is understood as well.
fn servers_in(text: &str, own: SocketAddr) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let address = |word: &str| {
        let plain = word.split('%').next().unwrap_or(word);
        plain
            .parse::<IpAddr>()
            .map(|address| SocketAddr::new(address, PORT))
            .ok()
            .or_else(|| word.parse::<SocketAddr>().ok())
    };
    words
        .filter_map(address)
        .filter(|server| *server != own)
        .take(SERVERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_c_library_does_and_never_this_one() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.43.0.10\nnameserver 1.1.1.1\n\tnameserver fe80::1%eth0\nnameserver\nnameserver x\nnameserver 127.0.0.1:5353\nnameserver 8.8.8.8\n";
        let servers = servers_in(text, "10.43.0.10:53".parse().unwrap());
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["1.1.1.1:53", "[fe80::1]:53", "127.0.0.1:5353"]);
    }
}
