//! `flotilla wait`: waits until objects exist, are gone, or meet a condition.

use std::time::Duration;

use anyhow::bail;
use futures::StreamExt as _;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::{Cluster, with_query};
use crate::discovery::{Discovery, Resource};
use crate::output::jsonpath::Path;
use crate::output::{self, name};
use crate::selection::select;
use crate::watch::{Filter, by_name, watch};

/// Flags of `wait`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with -l or --all
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    words: Vec<String>,
    /// condition=NAME[=VALUE], jsonpath={.path}=VALUE, create or delete
    #[arg(long = "for", value_name = "WHAT")]
    wanted: String,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// How long to wait: 30s, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: String,
}

/// What is waited for.
#[derive(Debug)]
enum Wanted {
    Deleted,
    Created,
    Condition { name: String, value: String },
    Field { path: Path, value: Option<String> },
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let wanted = parse_wanted(&arguments.wanted)?;
    let timeout = parse_duration(&arguments.timeout)?.unwrap_or(Duration::ZERO);
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let deadline = tokio::time::Instant::now() + timeout;
    for target in select(&discovery, &arguments.words)?.targets {
        let mut names = target.names.clone();
        if names.is_empty() {
            if !arguments.all && arguments.selector.is_none() {
                bail!("name the objects, or give -l or --all");
            }
            let path = with_query(
                &target.resource.collection(Some(&cluster.namespace)),
                &[("labelSelector", arguments.selector.as_deref())],
            );
            let list = cluster.get(&path).await?;
            names.extend(
                list["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)),
            );
            if names.is_empty() && !matches!(wanted, Wanted::Deleted) {
                bail!("no matching resources found");
            }
        }
        for object in &names {
            let outcome =
                tokio::time::timeout_at(deadline, until(&cluster, &target.resource, object, &wanted)).await;
            let Ok(outcome) = outcome else {
                bail!(
                    "timed out waiting for the condition on {}/{object}",
                    name::qualified_plural(&target.resource)
                );
            };
            outcome?;
            output::line(format!(
                "{} condition met",
                name::slashed(&target.resource, object)
            ));
        }
    }
    Ok(())
}

async fn until(cluster: &Cluster, resource: &Resource, name: &str, wanted: &Wanted) -> anyhow::Result<()> {
    let path = resource.object(&cluster.namespace, name);
    let collection = resource.collection(Some(&cluster.namespace));
    let fields = by_name(name);
    let filter = Filter {
        fields: Some(&fields),
        ..Filter::default()
    };
    loop {
        let list = cluster
            .get(&with_query(&collection, &[("fieldSelector", Some(&fields))]))
            .await?;
        let found = list["items"].as_array().and_then(|items| items.first());
        match found {
            Some(object) if is_met(wanted, object) => return Ok(()),
            None if matches!(wanted, Wanted::Deleted) => return Ok(()),
            None if !matches!(wanted, Wanted::Created) => drop(cluster.get(&path).await?),
            _ => {}
        }
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let mut events = watch(cluster, &collection, &filter, revision).await?;
        while let Some(Ok(event)) = events.next().await {
            match event.change.as_str() {
                "DELETED" if matches!(wanted, Wanted::Deleted) => return Ok(()),
                "ADDED" | "MODIFIED" if is_met(wanted, &event.object) => return Ok(()),
                _ => {}
            }
        }
        // The watch ended without an answer; look again.
    }
}

fn is_met(wanted: &Wanted, object: &Value) -> bool {
    match wanted {
        Wanted::Deleted => false,
        Wanted::Created => true,
        Wanted::Condition { name, value } => {
            let conditions = object["status"]["conditions"].as_array();
            let equals = |value: &Value, text: &str| {
                value
                    .as_str()
                    .is_some_and(|found| found.eq_ignore_ascii_case(text))
            };
            conditions
                .into_iter()
                .flatten()
                .any(|condition| equals(&condition["type"], name) && equals(&condition["status"], value))
        }
        Wanted::Field { path, value } => {
            let found = path.find(object);
            let shown = |found: &&Value| found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            value.as_ref().map_or(!found.is_empty(), |value| {
                found.iter().map(shown).any(|found| found == *value)
            })
        }
    }
}

fn parse_wanted(text: &str) -> anyhow::Result<Wanted> {
    match text.split_once('=') {
        None if text.eq_ignore_ascii_case("delete") => Ok(Wanted::Deleted),
        None if text.eq_ignore_ascii_case("create") => Ok(Wanted::Created),
        Some(("condition", rest)) => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            Ok(Wanted::Condition {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        }
        Some(("jsonpath", rest)) => {
            let rest = rest.trim_matches('\'');
            let (path, value) = match rest.rfind("}=") {
                Some(end) => (&rest[..=end], Some(rest[end + 2..].to_owned())),
                None => (rest, None),
            };
            Ok(Wanted::Field {
                path: Path::parse_relaxed(path)?,
                value,
            })
        }
        _ => bail!(
            "unrecognized condition: {text:?}: it is condition=NAME, jsonpath={{.path}}=VALUE, create or delete"
        ),
    }
}

/// A duration as Go writes it: `1h30m`, `45s`, `500ms`; none for zero, which means no limit.
pub(crate) fn parse_duration(text: &str) -> anyhow::Result<Option<Duration>> {
    let mut seconds = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "" if number == "0" => 0.0,
            _ => bail!("{text:?} is not a duration: write 30s, 5m or 1h30m"),
        };
        let Ok(number) = number.parse::<f64>() else {
            bail!("{text:?} is not a duration: write 30s, 5m or 1h30m");
        };
        seconds += number * factor;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds)?;
    Ok((!duration.is_zero()).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("30s", 30.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25)] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Some(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("0").unwrap(), None);
        assert_eq!(parse_duration("0s").unwrap(), None);
        assert!(parse_duration("5 minutes").is_err());
        assert!(parse_duration("5").is_err());
    }

    #[test]
    fn conditions_and_fields_are_met_or_not() {
        let pod = serde_json::json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
        for (wanted, met) in [
            ("condition=Ready", false),
            ("condition=ready=false", true),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Failed", false),
            ("jsonpath={.status.podIP}", false),
            ("delete", false),
            ("create", true),
        ] {
            assert_eq!(is_met(&parse_wanted(wanted).unwrap(), &pod), met, "{wanted}");
        }
    }
}
