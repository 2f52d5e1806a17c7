//! Changing what the containers of a running pod may use, without other containers where their policy allows it.
//!
//! What a container was started or last resized with is part of its run. A pod whose words differ from that is to be
//! resized, once the node has room.

use flotilla_api::amounts::{Amounts, Demand};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::history::{ContainerHistory, History};
use crate::resources::Quantities;
use crate::rules;

/// What is changed in place.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// Why a wanted size is not given; the words of the condition `PodResizePending`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// `Infeasible` when it can never be, `Deferred` when not now.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// How far a wanted size is from being given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Why it is not given.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Why giving it has failed.
    #[serde(default)]
    pub failure: Option<String>,
}

/// The running containers that have other resources than the pod says.
pub(crate) fn outdated<'a>(
    pod: &'a Pod,
    history: &'a History,
) -> impl Iterator<Item = (&'a Container, &'a ContainerHistory)> {
    rules::containers(pod).filter_map(|(_, container)| {
        let past = history
            .containers
            .get(&container.name)
            .filter(|past| past.is_running())?;
        let has = past.run.as_ref()?.started_with.resources.as_ref()?;
        differs(has, &wanted(container)).then_some((container, past))
    })
}

/// Whether some container is to be resized.
pub fn is_resize_wanted(pod: &Pod, history: &History) -> bool {
    outdated(pod, history).next().is_some()
}

/// What the container is to have.
fn wanted(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

fn differs(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    MUTABLE.iter().any(|name| differs_in(one, other, name))
}

fn differs_in(one: &ResourceRequirements, other: &ResourceRequirements, name: &str) -> bool {
    let amount = |list: &Option<Quantities>| list.as_ref().and_then(|list| list.get(name)).cloned();
    amount(&one.limits) != amount(&other.limits) || amount(&one.requests) != amount(&other.requests)
}

/// Whether a change of what the container may use is one that it does not live through.
pub(crate) fn needs_restart(container: &Container, past: &ContainerHistory) -> bool {
    let Some(has) = past
        .run
        .as_ref()
        .and_then(|run| run.started_with.resources.as_ref())
    else {
        return false;
    };
    let wanted = wanted(container);
    let mut rules = container.resize_policy.iter().flatten();
    rules.any(|rule| {
        rule.restart_policy == "RestartContainer" && differs_in(has, &wanted, &rule.resource_name)
    })
}

/// Whether the node has room for the size that the pod asks for; `others` is what the other pods ask for.
///
/// # Errors
/// What the pod's status has to say then, in kubelet's words.
pub fn judge_resize(pod: &Pod, allocatable: &Quantities, others: &Amounts) -> Result<(), Hold> {
    let (has, wants) = (Amounts::read(Some(allocatable)), Demand::of(pod).requests);
    let rows = [
        ("cpu", wants.cpu_milli, others.cpu_milli, has.cpu_milli),
        ("memory", wants.memory, others.memory, has.memory),
    ];
    for (name, wanted, _, has) in rows {
        if wanted > has {
            return Err(Hold {
                reason: "Infeasible".to_owned(),
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {has}"
                ),
            });
        }
    }
    for (name, wanted, used, has) in rows {
        if wanted > has - used {
            return Err(Hold {
                reason: "Deferred".to_owned(),
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {has}"
                ),
            });
        }
    }
    Ok(())
}

/// What a new attempt of the container is given: while the wanted size is held back, what it had before.
pub fn allocated(container: &Container, history: &History) -> Container {
    let mut given = container.clone();
    let past = history.containers.get(&container.name);
    let had = past
        .and_then(|past| past.run.as_ref())
        .and_then(|run| run.started_with.resources.clone());
    if history.resize.hold.is_some() && had.is_some() {
        given.resources = had;
    }
    given
}

impl History {
    /// All running containers were given what the pod says.
    pub fn resized(&mut self, pod: &Pod) {
        for (_, container) in rules::containers(pod) {
            let past = self.containers.get_mut(&container.name);
            if let Some(run) = past.and_then(|past| past.run.as_mut()) {
                run.started_with.resources = Some(wanted(container));
            }
        }
        self.resize = Resize::default();
    }

    /// Runs of an agent that did not note what they were given: they have what the pod says now.
    pub(crate) fn assume_sizes(&mut self, pod: &Pod) {
        for (_, container) in rules::containers(pod) {
            let past = self.containers.get_mut(&container.name);
            if let Some(run) = past.and_then(|past| past.run.as_mut()) {
                run.started_with
                    .resources
                    .get_or_insert_with(|| wanted(container));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(cpu: &str, used_milli: i64) -> String {
        let spec = format!(
            r#"{{"spec":{{"containers":[{{"name":"a","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&spec).unwrap();
        let node: Quantities = serde_json::from_str(r#"{"cpu":"2","memory":"1Gi"}"#).unwrap();
        let others = Amounts {
            cpu_milli: used_milli,
            ..Amounts::default()
        };
        match judge_resize(&pod, &node, &others) {
            Ok(()) => "given".to_owned(),
            Err(hold) => format!("{}: {}", hold.reason, hold.message),
        }
    }

    #[test]
    fn a_size_is_given_where_there_is_room() {
        assert_eq!(judge("1", 1000), "given");
        assert_eq!(
            judge("1", 1500),
            "Deferred: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        assert_eq!(
            judge("3", 0),
            "Infeasible: Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
        );
    }
}
