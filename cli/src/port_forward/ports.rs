//! Which local port leads to which port of the pod. Pure.

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A local port, 0 for any, and the pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) local: u16,
    pub(super) remote: u16,
}

/// Reads `LOCAL:REMOTE`, `REMOTE` or `:REMOTE`; a service's ports are translated to its pod's.
pub(super) fn parse(word: &str, pod: &Value, service: Option<&Value>) -> anyhow::Result<Pair> {
    let (local, remote) = match word.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, word),
    };
    let wanted = match service {
        Some(service) => service_port(service, remote)?,
        None => Wanted::of(remote),
    };
    let found = match &wanted {
        Wanted::Number(port) => *port,
        Wanted::Name(name) => named(pod, name)
            .with_context(|| format!("pod {} has no port named {name}", text(&pod["metadata"]["name"])))?,
    };
    let local = match local {
        Some("") => 0,
        Some(local) => port(local).with_context(|| format!("{word}: {local} is no port"))?,
        // The local port is the one that was named: a service's own.
        None => port(remote).unwrap_or(found),
    };
    Ok(Pair { local, remote: found })
}

enum Wanted {
    Number(u16),
    Name(String),
}

impl Wanted {
    fn of(word: &str) -> Self {
        match port(word) {
            Some(port) => Self::Number(port),
            None => Self::Name(word.to_owned()),
        }
    }
}

fn port(word: &str) -> Option<u16> {
    word.parse().ok().filter(|port| *port != 0)
}

fn service_port(service: &Value, wanted: &str) -> anyhow::Result<Wanted> {
    let ports = service["spec"]["ports"].as_array();
    let number = port(wanted);
    let is_meant = |entry: &&Value| {
        entry["name"] == wanted || number.is_some_and(|number| entry["port"] == u64::from(number))
    };
    let Some(entry) = ports.into_iter().flatten().find(is_meant) else {
        bail!(
            "Service {} does not have a service port {wanted}",
            text(&service["metadata"]["name"])
        );
    };
    Ok(match &entry["targetPort"] {
        Value::String(name) => Wanted::of(name),
        Value::Number(number) => Wanted::of(&number.to_string()),
        _ => Wanted::of(&entry["port"].to_string()),
    })
}

fn named(pod: &Value, name: &str) -> Option<u16> {
    let lists = ["containers", "initContainers"];
    let containers = lists
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = &ports.find(|port| port["name"] == name)?["containerPort"];
    port.as_u64().and_then(|port| u16::try_from(port).ok())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(word: &str, of_service: bool, expected: Result<(u16, u16), &str>) {
        let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [
            {"ports": [{"name": "http", "containerPort": 8080}]},
        ]}});
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [
            {"name": "main", "port": 80, "targetPort": "http"}, {"port": 9000},
        ]}});
        let found = parse(word, &pod, of_service.then_some(&service));
        let found = found.map(|pair| (pair.local, pair.remote));
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected.map_err(str::to_owned)
        );
    }

    #[test]
    fn pairs_of_ports_are_read() {
        check("8080", false, Ok((8080, 8080)));
        check("1:2", false, Ok((1, 2)));
        check(":2", false, Ok((0, 2)));
        check("http", false, Ok((8080, 8080)));
        check("5000:http", false, Ok((5000, 8080)));
    }

    #[test]
    fn a_services_ports_lead_to_its_pods() {
        check("80", true, Ok((80, 8080)));
        check("5000:main", true, Ok((5000, 8080)));
        check(":9000", true, Ok((0, 9000)));
        check("8080", true, Err("Service web does not have a service port 8080"));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        check("x:80", false, Err("x:80: x is no port"));
        check("70000:80", false, Err("70000:80: 70000 is no port"));
        check("none", false, Err("pod web-1 has no port named none"));
    }
}
