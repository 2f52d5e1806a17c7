//! What keeps the tree in order and no compiler checks.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{collections::BTreeSet, process::Command};

use flotilla_tidy::{Source, root, sources};
use serde::Deserialize as _;

const LINES_MAX: usize = 500;

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn complaints(complain: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources(&[".rs"]).iter().flat_map(complain).collect()
}

fn lines_with(source: &Source, wrong: impl Fn(&str) -> bool, why: &str) -> Vec<String> {
    let numbered = source.text.lines().enumerate().filter(|(_, line)| wrong(line));
    numbered
        .map(|(number, line)| format!("{}:{}: {why}: {}", source.path.display(), number + 1, line.trim()))
        .collect()
}

#[test]
fn files_stay_short() {
    none(&complaints(|source| {
        let lines = source.code().count();
        let too_long = lines > LINES_MAX && !source.is_test();
        too_long
            .then(|| format!("{}: {lines} lines, {LINES_MAX} at most", source.path.display()))
            .into_iter()
            .collect()
    }));
}

#[test]
fn every_file_says_what_it_is_for() {
    none(&complaints(|source| {
        let documented = source
            .text
            .lines()
            .find(|line| !line.is_empty())
            .is_some_and(|line| line.starts_with("//!"));
        (!documented)
            .then(|| format!("{}: starts without //!", source.path.display()))
            .into_iter()
            .collect()
    }));
}

#[test]
fn no_test_is_ignored_and_none_sleeps() {
    // Written apart, so that this file does not accuse itself.
    let (ignore, sleep) = (concat!("#[ign", "ore"), concat!("thread::sl", "eep("));
    none(&complaints(|source| {
        let mut found = lines_with(
            source,
            |line| line.trim_start().starts_with(ignore),
            "a test is ignored",
        );
        if source.is_test() {
            found.extend(lines_with(
                source,
                |line| line.contains(sleep),
                "a test sleeps: await a condition",
            ));
        }
        found
    }));
}

#[test]
fn unsafe_code_lives_in_the_runtime_only() {
    let word = concat!("uns", "afe {");
    none(&complaints(|source| {
        if source.path.starts_with("node-agent/runtime") {
            return Vec::new();
        }
        lines_with(
            source,
            |line| line.contains(word),
            "unsafe outside node-agent/runtime",
        )
    }));
}

#[test]
fn every_task_has_an_owner() {
    none(&complaints(|source| {
        lines_with(
            source,
            |line| line.contains(concat!("tokio::sp", "awn(")),
            "a task without an owner",
        )
    }));
}

#[test]
fn errors_reach_a_log_by_report_only() {
    let banned = [
        concat!("%err", "or,"),
        concat!("?err", "or,"),
        concat!("error =", " %"),
        concat!("error =", " ?"),
    ];
    none(&complaints(|source| {
        let logs = source.text.contains("tracing::");
        lines_with(
            source,
            |line| logs && banned.iter().any(|banned| line.contains(banned)),
            "the causes are lost: error = report(&error)",
        )
    }));
}

#[test]
fn every_exception_has_a_reason() {
    let opens = [concat!("[all", "ow("), concat!("[exp", "ect(")];
    none(&complaints(|source| {
        let text = &source.text;
        let exceptions = opens
            .iter()
            .flat_map(|open| text.match_indices(open))
            .filter(|(at, _)| text[..*at].ends_with(['#', '!']));
        exceptions
            .filter(|(at, _)| {
                let end = text[*at..].find(")]").map_or(text.len(), |end| at + end);
                !text[*at..end].contains("reason = ")
            })
            .map(|(at, open)| {
                let line = text[..at].lines().count();
                format!("{}:{line}: #{open}…)] without a reason", source.path.display())
            })
            .collect()
    }));
}

#[test]
fn nothing_is_named_after_nothing() {
    let banned = [
        "utils", "util", "helpers", "common", "misc", "manager", "managers", "core", "base",
    ];
    none(&complaints(|source| {
        let parts = source.path.with_extension("");
        let named = |part: &std::path::Component<'_>| banned.iter().any(|banned| part.as_os_str() == *banned);
        parts
            .components()
            .filter(named)
            .map(|part| {
                let name = part.as_os_str().to_string_lossy().into_owned();
                format!("{}: {name:?} says nothing", source.path.display())
            })
            .collect()
    }));
}

/// The workspace's own crates and what each depends on, tests left out.
fn arrows() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|found| found["kind"].is_null());
            (name(package), normal.map(name).collect())
        })
        .collect()
}

fn forbid(who: impl Fn(&str) -> bool, what: &[&str]) {
    let arrows = arrows();
    assert!(
        arrows.iter().any(|(name, _)| who(name)),
        "the check is about no crate at all"
    );
    let wrong = arrows
        .iter()
        .filter(|(name, _)| who(name))
        .flat_map(|(name, dependencies)| {
            what.iter()
                .filter(|what| dependencies.contains(**what))
                .map(move |what| format!("{name} must not use {what}"))
        });
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn pure_crates_know_no_runtime_and_no_network() {
    let pure = [
        "flotilla-api",
        "flotilla-store",
        "flotilla-lifecycle",
        "flotilla-history",
    ];
    forbid(
        |name| pure.contains(&name),
        &["tokio", "hyper", "http", "axum", "tonic", "rand", "nix", "rustix"],
    );
}

#[test]
fn nodes_and_client_verbs_never_see_the_store() {
    let agents = [
        "flotilla-agent",
        "flotilla-runtime",
        "flotilla-images",
        "flotilla-network",
        "flotilla-volumes",
        "flotilla-nftables",
        "flotilla-policies",
        "flotilla-services",
        "flotilla-ingress",
        "flotilla-local",
        "flotilla",
    ];
    forbid(
        |name| agents.contains(&name),
        &["flotilla-store", "flotilla-raft", "flotilla-resources"],
    );
}

#[test]
fn what_is_shipped_uses_no_test_crate() {
    let shipped = |name: &str| {
        let of_tests = ["flotilla-sim", "flotilla-history", "flotilla-workload"];
        !of_tests.contains(&name) && !name.ends_with("-tests")
    };
    forbid(
        shipped,
        &["flotilla-sim", "flotilla-history", "flotilla-workload"],
    );
}

#[test]
fn every_manifest_that_is_shipped_is_yaml() {
    let shipped: Vec<Source> = sources(&[".yaml", ".yml"])
        .into_iter()
        .filter(|source| source.path.starts_with("deploy"))
        .collect();
    assert!(!shipped.is_empty());
    for source in shipped {
        for document in serde_yaml::Deserializer::from_str(&source.text) {
            let value = serde_yaml::Value::deserialize(document)
                .unwrap_or_else(|error| panic!("{}: {error}", source.path.display()));
            for field in ["apiVersion", "kind", "metadata"] {
                assert!(
                    value.get(field).is_some(),
                    "{}: a document without {field}",
                    source.path.display()
                );
            }
        }
    }
}
