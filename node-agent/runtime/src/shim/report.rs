//! What a fork tells the shim over its pipe: lines of JSON until all writers have closed it.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::protocol::StartFailure;

/// News from a fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The container's init exists and was told to execute its program.
    Started { pid: i32 },
    /// It cannot be started.
    Failed(StartFailure),
    /// What a removal could not remove.
    Leftover(String),
}

/// Writes a report whole: it is far below the size that a pipe keeps together.
pub(super) fn send(mut pipe: &File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    pipe.write_all(&line)
}

/// The outcome of a start, from all that the fork wrote: the first failure counts, for later ones are only
/// its consequences as libcontainer words them.
pub(super) fn start_outcome(text: &[u8]) -> Result<i32, StartFailure> {
    let reports = parse(text);
    if let Some(Report::Failed(failure)) = reports.iter().find(|report| matches!(report, Report::Failed(_))) {
        return Err(failure.clone());
    }
    match reports.first() {
        Some(Report::Started { pid }) => Ok(*pid),
        _ => Err(StartFailure::Create {
            reason: "the fork ended without a word".to_owned(),
        }),
    }
}

/// The outcome of a removal.
pub(super) fn removal_outcome(text: &[u8]) -> Result<(), String> {
    match parse(text).into_iter().next() {
        Some(Report::Leftover(reason)) => Err(reason),
        _ => Ok(()),
    }
}

fn parse(text: &[u8]) -> Vec<Report> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(reports: &[Report]) -> Result<i32, StartFailure> {
        let lines = reports
            .iter()
            .map(|report| serde_json::to_string(report).unwrap() + "\n");
        start_outcome(lines.collect::<String>().as_bytes())
    }

    #[test]
    fn the_first_failure_counts() {
        let first = StartFailure::CommandNotFound { command: "x".into() };
        let later = StartFailure::Create {
            reason: "channel closed".into(),
        };
        let reports = [
            Report::Started { pid: 4 },
            Report::Failed(first.clone()),
            Report::Failed(later),
        ];
        assert_eq!(outcome(&reports), Err(first));
        assert_eq!(outcome(&reports[..1]), Ok(4));
        assert!(outcome(&[]).is_err());
    }
}
