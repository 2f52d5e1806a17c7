//! Containers, as part of pods and of pod templates.

use serde_json::Value;

use crate::output::jsonpath::Path;

use super::text::{Text, flag, items, pairs, text, time};

/// Writes one list of the containers of a pod, with their states.
pub(super) fn of_pod(out: &mut Text, title: &str, pod: &Value, field: &str) {
    let containers = items(&pod["spec"][field]);
    let statuses = items(&pod["status"][format!("{}Statuses", field.trim_end_matches('s'))]);
    describe(out, title, containers, Some((pod, statuses)));
}

/// Writes one list of the containers of a pod template, which kubectl indents in its own way.
pub(super) fn of_template(out: &mut Text, title: &str, containers: &[Value]) {
    describe(out, title, containers, None);
}

fn describe(out: &mut Text, title: &str, containers: &[Value], live: Option<(&Value, &[Value])>) {
    let deeper = live.is_none();
    if containers.is_empty() {
        return;
    }
    out.line(0, format!("{}{title}:", if deeper { "  " } else { "" }));
    for container in containers {
        let name = text(&container["name"]);
        out.line(1, format!("{}{name}:", if deeper { " " } else { "" }));
        let status =
            live.and_then(|(_, statuses)| statuses.iter().find(|status| status["name"] == container["name"]));
        basics(out, container, status);
        words(out, "Command", &container["command"]);
        words(out, "Args", &container["args"]);
        if let Some(status) = status {
            state(out, "State", &status["state"]);
            if status["lastState"]
                .as_object()
                .is_some_and(|state| !state.is_empty())
            {
                state(out, "Last State", &status["lastState"]);
            }
            out.field(2, "Ready", flag(&status["ready"]));
            out.field(2, "Restart Count", text(&status["restartCount"]));
        }
        quantities(out, "Limits", &container["resources"]["limits"]);
        quantities(out, "Requests", &container["resources"]["requests"]);
        probes(out, container);
        environment(out, container, live.map(|(pod, _)| pod));
        mounts(out, container);
    }
}

fn basics(out: &mut Text, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        out.line(2, format!("Container ID:\t{}", text(&status["containerID"])));
    }
    out.line(2, format!("Image:\t{}", text(&container["image"])));
    if let Some(status) = status {
        out.line(2, format!("Image ID:\t{}", text(&status["imageID"])));
    }
    let ports = items(&container["ports"]);
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    let shown: Vec<String> = ports
        .iter()
        .map(|port| match port["name"].as_str() {
            Some(name) => format!("{}/{} ({name})", text(&port["containerPort"]), protocol(port)),
            None => format!("{}/{}", text(&port["containerPort"]), protocol(port)),
        })
        .collect();
    let on_host: Vec<String> = ports
        .iter()
        .map(|port| {
            let number = port["hostPort"].as_i64().unwrap_or(0);
            match port["name"].as_str() {
                Some(name) => format!("{number}/{} ({name})", protocol(port)),
                None => format!("{number}/{}", protocol(port)),
            }
        })
        .collect();
    let plural = if ports.len() > 1 { "s" } else { "" };
    out.field(2, &format!("Port{plural}"), shown.join(", "));
    out.field(2, &format!("Host Port{plural}"), on_host.join(", "));
}

fn words(out: &mut Text, title: &str, list: &Value) {
    if items(list).is_empty() {
        return;
    }
    out.line(2, format!("{title}:"));
    for word in items(list) {
        for line in text(word).lines() {
            out.line(3, line);
        }
    }
}

fn state(out: &mut Text, title: &str, state: &Value) {
    if state["running"].is_object() {
        out.field(2, title, "Running");
        out.line(3, format!("Started:\t{}", time(&state["running"]["startedAt"])));
    } else if let terminated @ Value::Object(_) = &state["terminated"] {
        out.field(2, title, "Terminated");
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            if terminated[field].is_string() {
                out.line(3, format!("{title}:\t{}", text(&terminated[field])));
            }
        }
        out.line(3, format!("Exit Code:\t{}", text(&terminated["exitCode"])));
        if terminated["signal"].as_i64().is_some_and(|signal| signal > 0) {
            out.line(3, format!("Signal:\t{}", text(&terminated["signal"])));
        }
        out.line(3, format!("Started:\t{}", time(&terminated["startedAt"])));
        out.line(3, format!("Finished:\t{}", time(&terminated["finishedAt"])));
    } else {
        out.field(2, title, "Waiting");
        if state["waiting"]["reason"].is_string() {
            out.line(3, format!("Reason:\t{}", text(&state["waiting"]["reason"])));
        }
    }
}

/// `Limits:` and the like, one quantity per line.
fn quantities(out: &mut Text, title: &str, map: &Value) {
    if pairs(map).next().is_none() {
        return;
    }
    out.line(2, format!("{title}:"));
    for (name, quantity) in pairs(map) {
        out.line(3, format!("{name}:\t{quantity}"));
    }
}

fn probes(out: &mut Text, container: &Value) {
    for (title, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        let probe = &container[field];
        if probe.is_object() {
            let number = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
            out.field(
                2,
                title,
                format!(
                    "{} delay={}s timeout={}s period={}s #success={} #failure={}",
                    probe_action(probe),
                    number("initialDelaySeconds", 0),
                    number("timeoutSeconds", 1),
                    number("periodSeconds", 10),
                    number("successThreshold", 1),
                    number("failureThreshold", 3)
                ),
            );
        }
    }
}

fn probe_action(probe: &Value) -> String {
    if let http @ Value::Object(_) = &probe["httpGet"] {
        let scheme = http["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        return format!(
            "http-get {scheme}://{}:{}{}",
            text(&http["host"]),
            text(&http["port"]),
            text(&http["path"])
        );
    }
    if let exec @ Value::Object(_) = &probe["exec"] {
        let words: Vec<String> = items(&exec["command"]).iter().map(text).collect();
        return format!("exec [{}]", words.join(" "));
    }
    if let socket @ Value::Object(_) = &probe["tcpSocket"] {
        return format!("tcp-socket {}:{}", text(&socket["host"]), text(&socket["port"]));
    }
    format!(
        "grpc <pod>:{} {}",
        text(&probe["grpc"]["port"]),
        text(&probe["grpc"]["service"])
    )
}

fn environment(out: &mut Text, container: &Value, pod: Option<&Value>) {
    let sources = items(&container["envFrom"]);
    if !sources.is_empty() {
        out.line(2, "Environment Variables from:");
        for source in sources {
            let (kind, reference) = if source["configMapRef"].is_object() {
                ("ConfigMap", &source["configMapRef"])
            } else {
                ("Secret", &source["secretRef"])
            };
            out.line(
                3,
                format!(
                    "{}\t{kind}\tOptional: {}",
                    text(&reference["name"]),
                    reference["optional"] == true
                ),
            );
        }
    }
    let variables = items(&container["env"]);
    if variables.is_empty() {
        return out.field(2, "Environment", "");
    }
    out.line(2, "Environment:");
    for variable in variables {
        out.line(
            3,
            format!("{}:\t{}", text(&variable["name"]), variable_value(variable, pod)),
        );
    }
}

fn variable_value(variable: &Value, pod: Option<&Value>) -> String {
    let from = &variable["valueFrom"];
    if let field @ Value::Object(_) = &from["fieldRef"] {
        let path = text(&field["fieldPath"]);
        // kubectl looks up metadata only.
        let found = pod.filter(|_| path.starts_with("metadata.")).and_then(|pod| {
            Path::parse_relaxed(&path)
                .ok()?
                .find(pod)
                .first()
                .map(|value| text(value))
        });
        let version = field["apiVersion"].as_str().unwrap_or("v1");
        return format!("{} ({version}:{path})", found.unwrap_or_default());
    }
    if let resource @ Value::Object(_) = &from["resourceFieldRef"] {
        return format!(
            "{} ({})",
            text(&resource["containerName"]),
            text(&resource["resource"])
        );
    }
    if let key @ Value::Object(_) = &from["secretKeyRef"] {
        let optional = key["optional"] == true;
        return format!(
            "<set to the key '{}' in secret '{}'>\tOptional: {optional}",
            text(&key["key"]),
            text(&key["name"])
        );
    }
    if let key @ Value::Object(_) = &from["configMapKeyRef"] {
        let optional = key["optional"] == true;
        return format!(
            "<set to the key '{}' of config map '{}'>\tOptional: {optional}",
            text(&key["key"]),
            text(&key["name"])
        );
    }
    text(&variable["value"])
        .lines()
        .collect::<Vec<_>>()
        .join("\n        \t")
}

fn mounts(out: &mut Text, container: &Value) {
    let mounts = items(&container["volumeMounts"]);
    if mounts.is_empty() {
        return out.field(2, "Mounts", "");
    }
    out.line(2, "Mounts:");
    for mount in mounts {
        let mut flags = vec![if mount["readOnly"] == true {
            "ro".to_owned()
        } else {
            "rw".to_owned()
        }];
        flags.extend(mount["subPath"].as_str().map(|path| format!("path=\"{path}\"")));
        out.line(
            3,
            format!(
                "{} from {} ({})",
                text(&mount["mountPath"]),
                text(&mount["name"]),
                flags.join(",")
            ),
        );
    }
}
