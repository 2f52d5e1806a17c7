//! `flotilla label` and `flotilla annotate`: set or remove labels and annotations.

use anyhow::bail;
use serde_json::{Map, Value, json};

use crate::GlobalOptions;
use crate::client::{Cluster, PatchType};
use crate::discovery::Discovery;
use crate::output::error::Failures;
use crate::output::{self, name};
use crate::selection::{Target, select};

/// Flags of `label` and `annotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE NAME… KEY=VALUE… KEY-…
    #[arg(value_name = "TYPE[/NAME] | KEY=VALUE | KEY-", required = true)]
    words: Vec<String>,
    /// Change values that are there already
    #[arg(long)]
    overwrite: bool,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// Which of the two is set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Label,
    Annotation,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Kind::Label => "labels",
            Kind::Annotation => "annotations",
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, kind: Kind, global: &GlobalOptions) -> anyhow::Result<()> {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let (changes, words): (Vec<&String>, Vec<&String>) = arguments.words.iter().partition(is_change);
    if changes.is_empty() {
        bail!("at least one change is required: KEY=VALUE sets, KEY- removes");
    }
    let changes = parse_changes(&changes)?;
    let words: Vec<String> = words.into_iter().cloned().collect();
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut failures = Failures::default();
    for target in select(&discovery, &words)?.targets {
        if target.names.is_empty() && !arguments.all && arguments.selector.is_none() {
            bail!("name the objects, or give -l or --all");
        }
        for object in crate::get::fetch_all(&cluster, &target, arguments.selector.as_deref()).await? {
            failures.note(change(&arguments, kind, &cluster, &target, &object, &changes).await);
        }
    }
    failures.end()
}

/// New values by key; null removes.
fn parse_changes(words: &[&String]) -> anyhow::Result<Map<String, Value>> {
    let mut changes = Map::new();
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Value::String(value.to_owned())),
            None => (word.trim_end_matches('-'), Value::Null),
        };
        if changes.insert(key.to_owned(), value).is_some() {
            bail!("{key} is given twice");
        }
    }
    Ok(changes)
}

async fn change(
    arguments: &Arguments,
    kind: Kind,
    cluster: &Cluster,
    target: &Target,
    object: &Value,
    changes: &Map<String, Value>,
) -> anyhow::Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let found = &object["metadata"][kind.field()];
    for (key, value) in changes {
        let clash = found[key]
            .as_str()
            .filter(|_| !value.is_null() && found[key] != *value);
        if let Some(present) = clash.filter(|_| !arguments.overwrite) {
            bail!("'{key}' already has a value ({present}), and --overwrite is false");
        }
        if value.is_null() && found[key].is_null() {
            output::line(format!(
                "{} \"{key}\" not found.",
                if matches!(kind, Kind::Label) {
                    "label"
                } else {
                    "annotation"
                }
            ));
        }
    }
    let differs = changes.iter().any(|(key, value)| found[key] != *value);
    if differs {
        let path = target.resource.object(&cluster.namespace, name);
        let patch = json!({"metadata": {kind.field(): changes}});
        cluster.patch(&path, PatchType::Merge, &patch).await?;
    }
    let only_removed = changes.values().all(Value::is_null);
    let outcome = match (kind, differs) {
        (Kind::Label, true) if only_removed => "unlabeled",
        (Kind::Label, true) => "labeled",
        (Kind::Label, false) => "not labeled",
        (Kind::Annotation, _) => "annotated",
    };
    output::line(format!("{} {outcome}", name::slashed(&target.resource, name)));
    Ok(())
}
