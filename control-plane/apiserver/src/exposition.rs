//! `/metrics`: what this server measures of itself, in Prometheus' text format.

use std::fmt::{Display, Write};

use flotilla_raft::Replica;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::inflight::{Class, InFlight};

const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a scrape.
pub(crate) fn respond(replica: &Replica, in_flight: &InFlight) -> Response<Body> {
    let mut out = Exposition::default();
    requests(&mut out, in_flight);
    store(&mut out, replica);
    let mut response = Response::new(Body::whole(out.text));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    response
}

fn requests(out: &mut Exposition, in_flight: &InFlight) {
    let counts = Class::ALL.map(|class| (class.name(), in_flight.count(class)));
    out.family(
        "apiserver_current_inflight_requests",
        GAUGE,
        "Requests that are being answered.",
    );
    for (kind, (under_way, _)) in counts {
        out.sample(&[("request_kind", kind)], under_way);
    }
    out.family(
        "apiserver_dropped_requests_total",
        COUNTER,
        "Requests that were refused because too many were under way.",
    );
    for (kind, (_, refused)) in counts {
        out.sample(&[("request_kind", kind)], refused);
    }
}

fn store(out: &mut Exposition, replica: &Replica) {
    let snapshot = replica.snapshot();
    let leadership = replica.leadership().borrow().clone();
    out.single(
        "flotilla_store_revision",
        GAUGE,
        "Newest change that this server has applied.",
        snapshot.revision(),
    );
    out.single(
        "flotilla_store_objects",
        GAUGE,
        "Objects of all kinds.",
        snapshot.len(),
    );
    out.single("flotilla_raft_term", GAUGE, "Raft's term.", leadership.term);
    out.single(
        "flotilla_raft_has_leader",
        GAUGE,
        "Whether a leader is known.",
        u8::from(leadership.leader.is_some()),
    );
    out.single(
        "flotilla_raft_is_leader",
        GAUGE,
        "Whether this server leads.",
        u8::from(leadership.is_self),
    );
    out.single(
        "flotilla_raft_members",
        GAUGE,
        "Servers of the cluster, learners too.",
        leadership.members.len(),
    );
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// The text as it grows.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric. `help` is one line.
    fn family(&mut self, name: &'static str, type_: &str, help: &str) {
        self.name = name;
        // A string takes all that is written to it.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {type_}\n");
    }

    /// Adds a value to the metric that was begun.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (index, (label, of)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(of));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// A metric of one value.
    fn single(&mut self, name: &'static str, type_: &str, help: &str, value: impl Display) {
        self.family(name, type_, help);
        self.sample(&[], value);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_lines_of_prometheus() {
        let mut out = Exposition::default();
        out.single("up", GAUGE, "Whether it is up.", 1);
        out.family("seen_total", COUNTER, "What was seen.");
        out.sample(&[("a", "b\"c"), ("d", "e\\f\n")], 2.5);
        assert_eq!(
            out.text,
            "# HELP up Whether it is up.\n# TYPE up gauge\nup 1\n\
             # HELP seen_total What was seen.\n# TYPE seen_total counter\n\
             seen_total{a=\"b\\\"c\",d=\"e\\\\f\\n\"} 2.5\n"
        );
    }
}
