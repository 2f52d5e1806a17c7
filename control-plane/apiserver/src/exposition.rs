//! `/metrics`: what this server measures of itself, in Prometheus' text format.

use std::fmt::{Display, Write};

use flotilla_raft::{Leadership, Replica, StoreStatus};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::inflight::{Class, InFlight};

const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a scrape.
pub(crate) fn respond(replica: &Replica, in_flight: &InFlight) -> Response<Body> {
    let mut out = Exposition::default();
    requests(&mut out, in_flight);
    let status = replica.status();
    store(&mut out, &status);
    space(&mut out, &status);
    raft(&mut out, &status, &replica.leadership().borrow());
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

fn store(out: &mut Exposition, status: &StoreStatus) {
    out.gauges([
        (
            "flotilla_store_revision",
            "Newest change that this server has applied.",
            status.revision.0,
        ),
        (
            "flotilla_store_objects",
            "Objects of all kinds.",
            status.objects as u64,
        ),
        (
            "flotilla_store_object_bytes",
            "What the objects take in memory and in a snapshot.",
            status.object_bytes,
        ),
        (
            "flotilla_store_history_events",
            "Watch events that are kept.",
            status.history.events as u64,
        ),
        (
            "flotilla_store_history_bytes",
            "What those take.",
            status.history.bytes as u64,
        ),
    ]);
}

fn space(out: &mut Exposition, status: &StoreStatus) {
    let failed = u64::from(status.failure.is_some());
    out.gauges([
        (
            "flotilla_store_disk_bytes",
            "What log and snapshot take of the disk.",
            status.space.used_bytes,
        ),
        (
            "flotilla_store_quota_bytes",
            "What they may take; 0 is no limit.",
            status.space.quota_bytes,
        ),
        (
            "flotilla_store_failed",
            "Whether this server's store needs a restart to go on.",
            failed,
        ),
    ]);
    out.family(
        "flotilla_store_refused_for_space_total",
        COUNTER,
        "Writes that were refused here because a server's data folder is over its quota.",
    );
    out.sample(&[], status.refused_for_space);
    out.family(
        "flotilla_store_space_alarm",
        GAUGE,
        "Servers whose data folder is over its quota; writes are refused while there is one.",
    );
    for alarm in &status.alarms {
        out.sample(&[("server", &alarm.server)], 1);
    }
}

fn raft(out: &mut Exposition, status: &StoreStatus, leadership: &Leadership) {
    let (has_leader, is_leader) = (leadership.leader.is_some(), leadership.is_self);
    out.gauges([
        ("flotilla_raft_term", "Raft's term.", status.term),
        (
            "flotilla_raft_last_log_index",
            "Newest entry of the log.",
            status.last_log_index,
        ),
        (
            "flotilla_raft_applied_index",
            "Newest entry that was applied.",
            status.applied_index,
        ),
        (
            "flotilla_raft_has_leader",
            "Whether a leader is known.",
            has_leader.into(),
        ),
        (
            "flotilla_raft_is_leader",
            "Whether this server leads.",
            is_leader.into(),
        ),
        (
            "flotilla_raft_members",
            "Servers of the cluster, learners too.",
            leadership.members.len() as u64,
        ),
        (
            "flotilla_raft_proposals_waiting",
            "Writes that wait for their turn.",
            status.proposals_waiting as u64,
        ),
        (
            "flotilla_raft_reads_waiting",
            "Reads that wait for their turn.",
            status.readers_waiting as u64,
        ),
    ]);
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

    /// Gauges of one value each: name, help, value.
    fn gauges<const COUNT: usize>(&mut self, gauges: [(&'static str, &str, u64); COUNT]) {
        for (name, help, value) in gauges {
            self.family(name, GAUGE, help);
            self.sample(&[], value);
        }
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
        out.gauges([("up", "Whether it is up.", 1)]);
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
