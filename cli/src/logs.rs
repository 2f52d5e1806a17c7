//! `flotilla logs`: prints what a pod's containers wrote.

use anyhow::{Context as _, bail};
use futures::{AsyncReadExt as _, StreamExt as _};
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::{Cluster, escape, with_query};
use crate::output::error::{AlreadyReported, explain};
use crate::{output, pods};

/// How many logs are followed at once before a narrower selector is asked for, as kubectl has it.
const FOLLOWED_MAX: usize = 5;
/// How much of each log a selector shows unless asked.
const TAIL_OF_SELECTED: &str = "10";

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// POD, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    subject: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container_word: Option<String>,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Of the container that ran before the present one
    #[arg(short, long)]
    previous: bool,
    /// Only this many lines from the end
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is younger: 5s, 2m, 3h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only what is younger than this RFC 3339 time
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Only this many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Of all pods with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Of all containers of the pod
    #[arg(long)]
    all_containers: bool,
    /// Put pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// How many logs may be followed at once
    #[arg(long, value_name = "NUMBER", default_value_t = FOLLOWED_MAX)]
    max_log_requests: usize,
    /// Of a pod that is no more: nodes keep the logs of its last runs for an hour
    #[arg(long, conflicts_with_all = ["follow", "selector", "all_containers", "prefix"])]
    deleted: bool,
    /// Print errors and go on with the other logs
    #[arg(long)]
    ignore_errors: bool,
}

/// One container's log.
struct Source {
    pod: String,
    container: String,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    if arguments.deleted {
        return print_deleted(&cluster, &arguments).await;
    }
    let pods = match (&arguments.selector, &arguments.subject) {
        (Some(selector), None) => pods::by_labels(&cluster, selector).await?,
        (None, Some(subject)) => vec![pods::one(&cluster, subject).await?],
        (Some(_), Some(_)) => bail!("only a selector (-l) or a POD name is allowed"),
        (None, None) => bail!("name a pod, or TYPE/NAME, or give a selector with -l"),
    };
    if pods.is_empty() {
        output::error_line(format!("No resources found in {} namespace.", cluster.namespace));
        return Ok(());
    }
    let mut sources = Vec::new();
    for pod in &pods {
        sources.extend(containers(&arguments, pod)?);
    }
    let reader = Reader {
        query: query(&arguments)?,
        prefix: arguments.prefix,
        cluster,
    };
    if arguments.follow && sources.len() > 1 {
        if sources.len() > arguments.max_log_requests {
            bail!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
                 --max-log-requests to increase the limit",
                sources.len(),
                arguments.max_log_requests
            );
        }
        let mut all: futures::stream::FuturesUnordered<_> =
            sources.iter().map(|source| reader.print(source)).collect();
        while let Some(outcome) = all.next().await {
            outcome?;
        }
        return Ok(());
    }
    let mut failed = false;
    for source in &sources {
        match reader.print(source).await {
            Err(error) if arguments.ignore_errors || sources.len() > 1 => {
                failed |= !arguments.ignore_errors;
                output::error_line(explain(&error));
            }
            outcome => outcome?,
        }
    }
    if failed {
        Err(AlreadyReported.into())
    } else {
        Ok(())
    }
}

/// The log of a pod that is gone. Which containers it had is known where the log is.
async fn print_deleted(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<()> {
    let pod = arguments
        .subject
        .as_ref()
        .context("name the pod whose log is wanted")?;
    let reader = Reader {
        query: query(arguments)?,
        prefix: false,
        cluster: cluster.clone(),
    };
    let wanted = arguments.container.as_ref().or(arguments.container_word.as_ref());
    let source = Source {
        pod: pod.trim_start_matches("pod/").to_owned(),
        container: wanted.cloned().unwrap_or_default(),
    };
    reader.print(&source).await
}

fn containers(arguments: &Arguments, pod: &Value) -> anyhow::Result<Vec<Source>> {
    let pod_name = text(&pod["metadata"]["name"]);
    let names = |field: &str| -> Vec<String> {
        pod["spec"][field]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| text(&container["name"]))
            .collect()
    };
    let (init, main) = (names("initContainers"), names("containers"));
    let source = |container: &String| Source {
        pod: pod_name.clone(),
        container: container.clone(),
    };
    if arguments.all_containers {
        return Ok(init.iter().chain(&main).map(source).collect());
    }
    let wanted = arguments
        .container
        .as_deref()
        .or(arguments.container_word.as_deref());
    let choice = pods::container(pod, wanted)?;
    if let Some(notice) = choice.notice {
        output::error_line(notice);
    }
    Ok(vec![source(&choice.container)])
}

fn query(arguments: &Arguments) -> anyhow::Result<Vec<(&'static str, Option<String>)>> {
    let flag = |set: bool| set.then(|| "true".to_owned());
    let tail = match arguments.tail {
        Some(lines) if lines >= 0 => Some(lines.to_string()),
        Some(_) => None,
        None => arguments.selector.as_ref().map(|_| TAIL_OF_SELECTED.to_owned()),
    };
    let since = match &arguments.since {
        // The server counts in whole seconds and takes none for everything.
        Some(since) => crate::wait::parse_duration(since)?.map(|since| since.as_secs().max(1).to_string()),
        None => None,
    };
    if let Some(time) = &arguments.since_time {
        let _: jiff::Timestamp = time
            .parse()
            .with_context(|| format!("--since-time={time} is not a time such as 2026-01-31T12:00:00Z"))?;
    }
    Ok(vec![
        ("follow", flag(arguments.follow)),
        ("previous", flag(arguments.previous)),
        ("deleted", flag(arguments.deleted)),
        ("timestamps", flag(arguments.timestamps)),
        ("tailLines", tail),
        ("sinceSeconds", since),
        ("sinceTime", arguments.since_time.clone()),
        ("limitBytes", arguments.limit_bytes.map(|bytes| bytes.to_string())),
    ])
}

struct Reader {
    cluster: Cluster,
    query: Vec<(&'static str, Option<String>)>,
    prefix: bool,
}

impl Reader {
    async fn print(&self, source: &Source) -> anyhow::Result<()> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/log",
            escape(&self.cluster.namespace),
            escape(&source.pod)
        );
        let container = Some(source.container.as_str()).filter(|name| !name.is_empty());
        let mut pairs = vec![("container", container)];
        pairs.extend(self.query.iter().map(|(key, value)| (*key, value.as_deref())));
        let mut stream = self.cluster.stream(&with_query(&path, &pairs), false).await?;
        let prefix = if self.prefix {
            format!("[pod/{}/{}] ", source.pod, source.container)
        } else {
            String::new()
        };
        let mut line_start = true;
        let mut buffer = vec![0; 32 << 10];
        loop {
            let count = stream.read(&mut buffer).await.context("the log broke off")?;
            if count == 0 {
                return Ok(());
            }
            if prefix.is_empty() {
                output::bytes(&buffer[..count]);
            } else {
                output::bytes(&prefixed(&buffer[..count], &prefix, &mut line_start));
            }
        }
    }
}

fn prefixed(bytes: &[u8], prefix: &str, line_start: &mut bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        if *line_start {
            out.extend_from_slice(prefix.as_bytes());
        }
        out.extend_from_slice(piece);
        *line_start = piece.ends_with(b"\n");
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
