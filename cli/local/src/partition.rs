//! Keeps groups of nodes from hearing each other, by packet filters in the switch.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use flotilla_network::netns;

use crate::error::At;
use crate::place::need_root;
use crate::state::State;
use crate::{LocalError, Place, switch};

const REMOVE: &str = "table bridge flotilla\ndelete table bridge flotilla\n";

/// Splits the network: `server-1|server-2,server-3`. Nodes that are in no group hear everyone. With `>` instead of `|`,
/// each group is still heard by those before it, but no longer hears them: `server-1>server-2,server-3`.
///
/// The port of 127.0.0.1 still leads to all servers.
pub fn partition(place: &Place, groups: &str) -> Result<(), LocalError> {
    need_root()?;
    let _lock = place.lock()?;
    let mut state = State::read(place)?;
    let (groups, one_way) = parse(groups)?;
    groups
        .iter()
        .flatten()
        .try_for_each(|node| state.node(node).map(drop))?;
    filter(place, &rules(&groups, one_way))?;
    state.partition = groups;
    state.one_way = one_way;
    state.write(place)
}

/// Lets all nodes hear each other again.
pub fn heal(place: &Place) -> Result<(), LocalError> {
    need_root()?;
    let _lock = place.lock()?;
    let mut state = State::read(place)?;
    if state.partition.is_empty() {
        return Ok(());
    }
    filter(place, REMOVE)?;
    state.partition = Vec::new();
    state.write(place)
}

/// Puts the filters of the present partition into a new switch.
pub(crate) fn filter_again(place: &Place, state: &State) -> Result<(), LocalError> {
    if state.partition.is_empty() {
        Ok(())
    } else {
        filter(place, &rules(&state.partition, state.one_way))
    }
}

/// The groups, and whether only one direction is cut.
fn parse(text: &str) -> Result<(Vec<Vec<String>>, bool), LocalError> {
    let one_way = text.contains('>');
    let split = |group: &str| {
        group
            .split(',')
            .map(|node| node.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let groups: Vec<Vec<String>> = text.split(if one_way { '>' } else { '|' }).map(split).collect();
    let nodes: Vec<&String> = groups.iter().flatten().collect();
    let distinct: BTreeSet<&String> = nodes.iter().copied().collect();
    if groups.len() < 2
        || distinct.len() != nodes.len()
        || nodes.iter().any(|node| node.is_empty() || node.contains('|'))
    {
        return Err(LocalError::Groups);
    }
    Ok((groups, one_way))
}

/// One transaction that replaces the filters of an earlier partition. Ports are named after their nodes.
fn rules(groups: &[Vec<String>], one_way: bool) -> String {
    let set = |group: &[String]| {
        group
            .iter()
            .map(|node| format!("\"{node}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut script = format!(
        "{REMOVE}table bridge flotilla {{\n  chain forward {{\n    type filter hook forward priority 0; policy accept;\n"
    );
    for (at, from) in groups.iter().enumerate() {
        let is_cut = |other: usize| other > at || (other < at && !one_way);
        for (_, to) in groups.iter().enumerate().filter(|(other, _)| is_cut(*other)) {
            let _ = writeln!(
                script,
                "    iifname {{ {} }} oifname {{ {} }} drop",
                set(from),
                set(to)
            );
        }
    }
    script + "  }\n}\n"
}

/// How often the program may fail without a word, which it was seen to do once in some thousand runs.
const ATTEMPTS: usize = 3;

fn filter(place: &Place, script: &str) -> Result<(), LocalError> {
    let namespace = switch::namespace(place);
    let mut output = nft(&namespace, script)?;
    for _ in 1..ATTEMPTS {
        if output.status.success() || !output.stderr.is_empty() {
            break;
        }
        // The script is one transaction, so nothing of it was done.
        output = nft(&namespace, script)?;
    }
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(LocalError::Filter(format!(
        "nft ended with {}: {}",
        output.status,
        words.trim()
    )))
}

fn nft(namespace: &Path, script: &str) -> Result<Output, LocalError> {
    let run = || {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = nft.stdin.take() {
            // A program that ended early says why on its standard error.
            let _ = stdin.write_all(script.as_bytes());
        }
        Ok(nft.wait_with_output())
    };
    let output = netns::enter(namespace, run).map_err(|error| LocalError::Filter(error.to_string()))?;
    output.at("set filters in", namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_separated_by_bars_and_nodes_by_commas() {
        let groups = [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
        assert_eq!(parse("a,b|c").unwrap(), (groups.to_vec(), false));
        assert_eq!(parse("a,b>c").unwrap(), (groups.to_vec(), true));
        for bad in ["", "a", "a|", "a|a", "a,a|b", "a,|b", "a>b|c", ">a"] {
            assert!(matches!(parse(bad), Err(LocalError::Groups)), "{bad}");
        }
    }

    #[test]
    fn every_pair_of_groups_is_cut_in_both_directions() {
        let (groups, one_way) = parse("a,b|c").unwrap();
        let script = rules(&groups, one_way);
        assert!(
            script.contains("iifname { \"a\", \"b\" } oifname { \"c\" } drop"),
            "{script}"
        );
        assert!(
            script.contains("iifname { \"c\" } oifname { \"a\", \"b\" } drop"),
            "{script}"
        );
    }

    #[test]
    fn one_way_only_the_later_groups_hear_nothing() {
        let (groups, one_way) = parse("a>b>c").unwrap();
        let script = rules(&groups, one_way);
        let drops: Vec<&str> = script
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with("drop"))
            .collect();
        assert_eq!(
            drops,
            [
                "iifname { \"a\" } oifname { \"b\" } drop",
                "iifname { \"a\" } oifname { \"c\" } drop",
                "iifname { \"b\" } oifname { \"c\" } drop",
            ]
        );
    }
}
