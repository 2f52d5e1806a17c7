//! What is to be done so that what runs is what the files say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;

use crate::pods::{StaticPod, full_name};

/// What a file says, or why it says nothing.
pub(super) type Found = BTreeMap<String, Result<Box<Pod>, String>>;

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Run(Box<Pod>),
    /// By uid.
    End(String),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// By file.
    pub(super) problems: BTreeMap<String, String>,
}

/// Ends what no file says any more, and runs what is new. A pod that replaces another of its name waits for its end.
pub(super) fn plan(found: Found, there: &[StaticPod]) -> Plan {
    let mut problems = BTreeMap::new();
    let mut wanted: BTreeMap<String, (String, Box<Pod>)> = BTreeMap::new();
    for (file, pod) in found {
        match pod {
            Err(problem) => {
                problems.insert(file, problem);
            }
            Ok(pod) => {
                let name = full_name(&pod);
                match wanted.get(&name) {
                    Some((first, _)) => {
                        let problem = format!("{file}: pod {name} is in the file {first} already");
                        problems.insert(file, problem);
                    }
                    None => drop(wanted.insert(name, (file, pod))),
                }
            }
        }
    }
    let uids: BTreeSet<&str> = wanted.values().filter_map(|(_, pod)| uid(pod)).collect();
    let is_surplus = |pod: &&StaticPod| {
        !pod.is_ending && !uids.contains(pod.uid.as_str()) && !problems.contains_key(&pod.file)
    };
    let mut steps: Vec<Step> = there
        .iter()
        .filter(is_surplus)
        .map(|pod| Step::End(pod.uid.clone()))
        .collect();
    let is_free = |name: &String| there.iter().all(|pod| pod.name != *name);
    let new = wanted.into_iter().filter(|(name, _)| is_free(name));
    steps.extend(new.map(|(_, (_, pod))| Step::Run(pod)));
    Plan { steps, problems }
}

fn uid(pod: &Pod) -> Option<&str> {
    pod.metadata.uid.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as `file=uid:name` or `file=!problem`; pods as `uid:name:file`, with `-` behind them when they are ending.
    #[track_caller]
    fn check(files: &str, there: &str, expected: &str) {
        let file = |word: &str| {
            let (file, says) = word.split_once('=').unwrap();
            let says = match says.split_once(':') {
                None => Err(says.to_owned()),
                Some((uid, name)) => {
                    let mut pod = Pod::default();
                    pod.metadata.uid = Some(uid.to_owned());
                    pod.metadata.name = Some(name.to_owned());
                    pod.metadata.namespace = Some("n".to_owned());
                    Ok(Box::new(pod))
                }
            };
            (file.to_owned(), says)
        };
        let pod = |word: &str| {
            let parts: Vec<&str> = word.trim_end_matches('-').split(':').collect();
            let mut pod = Pod::default();
            pod.metadata.name = Some(parts[1].to_owned());
            pod.metadata.namespace = Some("n".to_owned());
            pod.metadata.uid = Some(parts[0].to_owned());
            StaticPod {
                uid: parts[0].to_owned(),
                name: full_name(&pod),
                file: parts[2].to_owned(),
                is_ending: word.ends_with('-'),
            }
        };
        let there: Vec<StaticPod> = there.split_whitespace().map(pod).collect();
        let plan = plan(files.split_whitespace().map(file).collect(), &there);
        let mut told: Vec<String> = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Run(pod) => format!("run {}", uid(pod).unwrap()),
                Step::End(uid) => format!("end {uid}"),
            })
            .collect();
        told.extend(plan.problems.into_values());
        assert_eq!(told.join(", "), expected);
    }

    #[test]
    fn what_is_new_runs_and_what_is_gone_ends() {
        check("a=1:web b=2:db", "", "run 2, run 1");
        check("a=1:web", "1:web:a", "");
        check("", "1:web:a 2:db:b-", "end 1");
    }

    #[test]
    fn another_content_waits_for_the_end_of_the_one_before() {
        check("a=3:web", "1:web:a", "end 1");
        check("a=3:web", "1:web:a-", "");
        check("a=3:web", "", "run 3");
        check("a=1:web", "1:web:a-", "");
    }

    #[test]
    fn a_broken_file_keeps_what_it_said() {
        check("a=broken b=2:db", "1:web:a 2:db:b", "broken");
        check("a=broken", "", "broken");
    }

    #[test]
    fn of_two_files_with_one_pod_the_first_counts() {
        check(
            "a=1:web b=2:web",
            "",
            "run 1, b: pod n/web is in the file a already",
        );
    }
}
