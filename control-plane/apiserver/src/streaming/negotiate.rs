//! Which protocol the connection is upgraded to. Pure.

use std::fmt::Write as _;

use flotilla_api::Status;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";

/// How a client's messages or streams are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// WebSocket messages that begin with the number of a channel.
    Channels(Channels),
    /// SPDY streams; commands have four versions of them.
    Spdy(u8),
    /// SPDY inside WebSocket messages.
    TunnelledSpdy,
}

/// A dialect of the channel protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    /// 1: how a command ended is told as text; 4: as a `Status`; 5: also, a channel can be closed.
    pub(super) version: u8,
    /// Text messages with a digit and base64, for clients that cannot send bytes.
    pub(super) is_base64: bool,
}

const fn channels(version: u8, is_base64: bool) -> Protocol {
    Protocol::Channels(Channels { version, is_base64 })
}

/// What a subresource offers, by name.
#[derive(Debug)]
pub(super) struct Offer {
    websocket: &'static [(&'static str, Protocol)],
    spdy: &'static [(&'static str, Protocol)],
}

/// For `exec` and `attach`.
pub(super) const REMOTE: Offer = Offer {
    websocket: &[
        ("v5.channel.k8s.io", channels(5, false)),
        ("v4.channel.k8s.io", channels(4, false)),
        ("v4.base64.channel.k8s.io", channels(4, true)),
        ("channel.k8s.io", channels(1, false)),
        ("base64.channel.k8s.io", channels(1, true)),
        ("", channels(1, false)),
    ],
    spdy: &[
        ("v4.channel.k8s.io", Protocol::Spdy(4)),
        ("v3.channel.k8s.io", Protocol::Spdy(3)),
        ("v2.channel.k8s.io", Protocol::Spdy(2)),
        ("channel.k8s.io", Protocol::Spdy(1)),
        ("", Protocol::Spdy(1)),
    ],
};

/// For `portforward`. Version 5 of the channels is an addition of ours: it lets a client close one direction.
pub(super) const PORT_FORWARD: Offer = Offer {
    websocket: &[
        ("SPDY/3.1+portforward.k8s.io", Protocol::TunnelledSpdy),
        ("v5.channel.k8s.io", channels(5, false)),
        ("v4.channel.k8s.io", channels(4, false)),
        ("v4.base64.channel.k8s.io", channels(4, true)),
        ("", channels(4, false)),
    ],
    spdy: &[("portforward.k8s.io", Protocol::Spdy(1)), ("", Protocol::Spdy(1))],
};

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) protocol: Protocol,
    /// The protocol's name; empty when the client has named none.
    name: &'static str,
    /// For WebSockets, the answer to the client's key.
    accept: Option<String>,
}

impl Transport {
    /// The headers of the answer.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![(CONNECTION, HeaderValue::from_static("Upgrade"))];
        let (upgrade, named) = match &self.accept {
            Some(accept) => {
                // Base64 is always a valid value.
                headers.extend(HeaderValue::from_str(accept).map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
                ("websocket", SEC_WEBSOCKET_PROTOCOL)
            }
            None => (SPDY, STREAM_PROTOCOL),
        };
        headers.push((UPGRADE, HeaderValue::from_static(upgrade)));
        if !self.name.is_empty() {
            headers.push((named, HeaderValue::from_static(self.name)));
        }
        headers
    }
}

/// Picks the first protocol of the client's that is offered.
pub(super) fn negotiate(headers: &HeaderMap, offer: &Offer) -> Result<Transport, Status> {
    let upgrades = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |name: &str| upgrades && words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case(name));
    if to("websocket") {
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .ok_or_else(|| Status::bad_request("the header Sec-WebSocket-Key is missing"))?;
        let (name, protocol) = pick(headers, &SEC_WEBSOCKET_PROTOCOL, offer.websocket)?;
        let accept = Some(derive_accept_key(key.as_bytes()));
        return Ok(Transport {
            protocol,
            name,
            accept,
        });
    }
    if to(SPDY) {
        let (name, protocol) = pick(headers, &STREAM_PROTOCOL, offer.spdy)?;
        return Ok(Transport {
            protocol,
            name,
            accept: None,
        });
    }
    Err(Status::bad_request(
        "Upgrade request required: connect with a WebSocket or with SPDY/3.1",
    ))
}

fn pick(
    headers: &HeaderMap,
    header: &HeaderName,
    offered: &'static [(&'static str, Protocol)],
) -> Result<(&'static str, Protocol), Status> {
    let mut asked = words(headers, header).peekable();
    let named = |wanted: &str| offered.iter().find(|(name, _)| *name == wanted).copied();
    let found = match asked.peek() {
        None => named(""),
        Some(_) => asked.find_map(named),
    };
    found.ok_or_else(|| {
        let mut message = "unable to upgrade: unable to negotiate protocol: client supports [".to_owned();
        let join = |words: Vec<&str>| words.join(", ");
        // Writing to a string cannot fail.
        let _ = write!(
            message,
            "{}], server accepts [{}]",
            join(words(headers, header).collect()),
            join(
                offered
                    .iter()
                    .map(|(name, _)| *name)
                    .filter(|name| !name.is_empty())
                    .collect()
            )
        );
        Status::bad_request(message)
    })
}

/// The comma-separated words of a header that may be there several times.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(offer: &Offer, headers: &[(&'static str, &'static str)], expected: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let found = match negotiate(&map, offer) {
            Err(status) => status.message,
            Ok(transport) => {
                let headers: Vec<String> = transport
                    .headers()
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                    .collect();
                format!("{:?}; {}", transport.protocol, headers.join(", "))
            }
        };
        assert_eq!(found, expected);
    }

    const WEBSOCKET: [(&str, &str); 3] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    const ACCEPT: &str =
        "connection: Upgrade, sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=, upgrade: websocket";

    fn websocket(protocols: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut headers = WEBSOCKET.to_vec();
        headers.push(("sec-websocket-protocol", protocols));
        headers
    }

    #[test]
    fn the_clients_first_choice_that_is_offered_wins() {
        check(
            &REMOTE,
            &websocket("v9.channel.k8s.io, v4.channel.k8s.io, v5.channel.k8s.io"),
            &format!(
                "Channels(Channels {{ version: 4, is_base64: false }}); {ACCEPT}, sec-websocket-protocol: v4.channel.k8s.io"
            ),
        );
        check(
            &PORT_FORWARD,
            &websocket("SPDY/3.1+portforward.k8s.io"),
            &format!("TunnelledSpdy; {ACCEPT}, sec-websocket-protocol: SPDY/3.1+portforward.k8s.io"),
        );
        check(
            &REMOTE,
            &WEBSOCKET,
            &format!("Channels(Channels {{ version: 1, is_base64: false }}); {ACCEPT}"),
        );
    }

    #[test]
    fn spdy_clients_name_their_versions_in_headers_of_their_own() {
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let versions = [
            spdy[0],
            spdy[1],
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ];
        check(
            &REMOTE,
            &versions,
            "Spdy(4); connection: Upgrade, upgrade: SPDY/3.1, x-stream-protocol-version: v4.channel.k8s.io",
        );
        check(&REMOTE, &spdy, "Spdy(1); connection: Upgrade, upgrade: SPDY/3.1");
    }

    #[test]
    fn what_cannot_be_agreed_on_is_refused() {
        check(
            &PORT_FORWARD,
            &websocket("v9.channel.k8s.io"),
            "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
             [SPDY/3.1+portforward.k8s.io, v5.channel.k8s.io, v4.channel.k8s.io, v4.base64.channel.k8s.io]",
        );
        let plain = "Upgrade request required: connect with a WebSocket or with SPDY/3.1";
        check(&REMOTE, &[], plain);
        check(&REMOTE, &[("upgrade", "websocket")], plain);
        check(&REMOTE, &[("connection", "upgrade"), ("upgrade", "h2c")], plain);
        check(
            &REMOTE,
            &WEBSOCKET[..2],
            "the header Sec-WebSocket-Key is missing",
        );
    }
}
