//! What a request for a stream asks for. Pure.

use flotilla_api::Status;
use flotilla_tunnel::request::{Streams, Target};
use k8s_openapi::api::core::v1::Pod;

use crate::logs;
use crate::query::Query;

/// Ports of one legacy connection: each needs two of its 255 channels.
const PORTS_MAX: usize = 100;

/// What `exec` and `attach` have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) container: String,
    pub(super) streams: Streams,
}

/// Reads the query of `exec` and `attach`.
pub(super) fn remote(pod: &Pod, query: &Query) -> Result<Remote, Status> {
    let tty = query.flag("tty");
    let streams = Streams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Status::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let container = logs::container(pod, query.get("container"))?;
    Ok(Remote { container, streams })
}

/// The command of `exec`.
pub(super) fn command(query: &Query) -> Result<Vec<String>, Status> {
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    match command.is_empty() {
        false => Ok(command),
        true => Err(Status::bad_request(
            "you must specify at least one command for the container",
        )),
    }
}

/// The ports of the legacy protocol, which names all of them beforehand.
pub(super) fn ports(query: &Query) -> Result<Vec<u16>, Status> {
    let words = query.all("ports").flat_map(|ports| ports.split(','));
    let ports = words.map(|word| {
        let port = word.trim().parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| {
            Status::bad_request(format!(
                "ports: Invalid value: \"{word}\": must be between 1 and 65535"
            ))
        })
    });
    let ports: Vec<u16> = ports.collect::<Result<_, Status>>()?;
    match ports.len() {
        0 => Err(Status::bad_request("query parameter \"ports\" is required")),
        1..=PORTS_MAX => Ok(ports),
        more => Err(Status::bad_request(format!(
            "ports: {more} are too many for one connection: at most {PORTS_MAX}"
        ))),
    }
}

/// The pod, as its node knows it.
pub(super) fn target(pod: &Pod) -> Target {
    let meta = &pod.metadata;
    Target {
        namespace: meta.namespace.clone().unwrap_or_default(),
        pod: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// The pod's node.
pub(super) fn node(pod: &Pod) -> Result<&str, Status> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.filter(|node| !node.is_empty()).ok_or_else(|| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Status::bad_request(format!("pod {name} does not have a host assigned"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let pod = serde_json::json!({
            "metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[track_caller]
    fn check(query: &str, expected: &str) {
        let found = match remote(&pod(), &Query::parse(query)) {
            Ok(Remote { container, streams }) => {
                let Streams {
                    stdin,
                    stdout,
                    stderr,
                    tty,
                } = streams;
                let flags = [(stdin, "in"), (stdout, "out"), (stderr, "err"), (tty, "tty")];
                let set: Vec<&str> = flags
                    .iter()
                    .filter(|(set, _)| *set)
                    .map(|(_, name)| *name)
                    .collect();
                format!("{container}: {}", set.join(" "))
            }
            Err(status) => status.message,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn streams_and_container_are_read() {
        check("container=b&stdin=true&stdout=true&stderr=true", "b: in out err");
        check("container=a&stdout=1&stderr=1&tty=true", "a: out tty");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        check(
            "container=a",
            "you must specify at least 1 of stdin, stdout, stderr",
        );
        check("container=x&stdout=1", "container x is not valid for pod web");
        check(
            "stdout=1",
            "a container name must be specified for pod web, choose one of: [a b]",
        );
        assert!(command(&Query::parse("")).is_err());
        assert_eq!(
            node(&pod()).unwrap_err().message,
            "pod web does not have a host assigned"
        );
    }

    #[test]
    fn a_command_keeps_its_order() {
        let query = Query::parse("command=sh&command=-c&command=echo+%22a%22&command=");
        assert_eq!(command(&query).unwrap(), ["sh", "-c", "echo \"a\"", ""]);
    }

    #[test]
    fn ports_are_listed_or_repeated() {
        assert_eq!(
            ports(&Query::parse("ports=80,81&ports=82")).unwrap(),
            [80, 81, 82]
        );
        for wrong in ["", "ports=", "ports=0", "ports=x", "ports=70000"] {
            assert!(ports(&Query::parse(wrong)).is_err(), "{wrong}");
        }
    }
}
