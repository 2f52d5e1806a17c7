//! The pod's status, as kubelet reports it.

mod conditions;
mod containers;

use flotilla_api::qos_class;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::history::{Ended, Sandbox};
use crate::plan::{View, is_ending};
use crate::rules::{self, Role, Verdict};

pub(crate) fn status(view: &View<'_>, verdict: Option<&Verdict>) -> PodStatus {
    // A pod that was over before this node's memory begins: what is known of it elsewhere is all there is.
    if view.history.sandboxes == 0 && matches!(view.previous.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return view.previous.clone();
    }
    let never_ran = |ended: &&Ended| !ended.is_disruption && view.history.sandboxes == 0;
    if let Some(ended) = view.history.ended.as_ref().filter(never_ran) {
        return rejected(view, ended);
    }
    let ending = is_ending(view, verdict);
    let initialized = rules::is_initialized(view.pod, view.history, view.now);
    let mut inits = Vec::new();
    let mut mains = Vec::new();
    for (role, container) in rules::containers(view.pod) {
        let status = containers::status(view, role, container, ending, initialized);
        if role == Role::Main {
            mains.push(status)
        } else {
            inits.push(status)
        }
    }
    let ephemeral = rules::ephemeral(view.pod);
    let ephemeral = ephemeral.iter().map(|container| {
        let mut status = containers::status(view, Role::Ephemeral, container, ending, initialized);
        status.restart_count = 0;
        status
    });
    let ephemeral: Vec<ContainerStatus> = ephemeral.collect();
    let phase = match verdict {
        Some(verdict) => verdict.phase,
        None => phase(view, &mains, initialized),
    };
    let conditions = conditions::conditions(view, phase, &inits, &mains);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: verdict.and_then(|verdict| verdict.reason.clone()),
        message: verdict.and_then(|verdict| verdict.message.clone()),
        conditions: Some(conditions),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: Some(mains),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        observed_generation: view.pod.metadata.generation,
        qos_class: view.pod.spec.as_ref().map(|spec| qos_class(spec).to_owned()),
        start_time: view.history.started_at.map(Time),
        nominated_node_name: None,
        ..addresses(view)
    }
}

/// The status of a pod that the node never took: nothing of it was ever here.
fn rejected(view: &View<'_>, ended: &Ended) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(ended.reason.clone()),
        message: Some(ended.message.clone()),
        observed_generation: view.pod.metadata.generation,
        qos_class: view.pod.spec.as_ref().map(|spec| qos_class(spec).to_owned()),
        start_time: view.history.started_at.map(Time),
        ..PodStatus::default()
    }
}

fn addresses(view: &View<'_>) -> PodStatus {
    let host: Vec<String> = view.host_addresses.iter().map(ToString::to_string).collect();
    let uses_host = view
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or_default();
    let pod: Vec<String> = match (uses_host, &view.history.sandbox) {
        (true, Sandbox::Absent) => Vec::new(),
        (true, _) => host.clone(),
        (false, _) => view.history.addresses.iter().map(ToString::to_string).collect(),
    };
    let host_ips: Vec<HostIP> = host.iter().map(|ip| HostIP { ip: ip.clone() }).collect();
    let pod_ips: Vec<PodIP> = pod.iter().map(|ip| PodIP { ip: ip.clone() }).collect();
    PodStatus {
        host_ip: host.first().cloned(),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        pod_ip: pod.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then_some(pod_ips),
        ..PodStatus::default()
    }
}

fn phase(view: &View<'_>, mains: &[ContainerStatus], initialized: bool) -> &'static str {
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in mains {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            running += 1;
        } else if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
            stopped += 1;
            succeeded += i32::from(terminated.exit_code == 0);
        } else if status
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
        {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    let is_terminal = view.pod.metadata.deletion_timestamp.is_some() && running == 0 && waiting == 0;
    match (waiting, running, stopped) {
        _ if !initialized || waiting > 0 => "Pending",
        (_, 0, 0) => "Pending",
        _ if is_terminal && stopped == succeeded => "Succeeded",
        _ if is_terminal => "Failed",
        _ => "Running",
    }
}

#[cfg(test)]
mod tests {
    use crate::{Ended, History, Plan, Run, Sandbox, StartedWith, View, plan};
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn planned(history: &History, previous: &PodStatus, second: i64) -> Plan {
        let pod: Pod =
            serde_json::from_str(r#"{"metadata":{"name":"web"},"spec":{"containers":[{"name":"a"}]}}"#)
                .unwrap();
        plan(&View {
            pod: &pod,
            history,
            previous,
            host_addresses: &[],
            now: at(second),
        })
    }

    fn ended(is_disruption: bool) -> Ended {
        Ended {
            reason: "Evicted".to_owned(),
            message: "The node was low on resource: memory. ".to_owned(),
            grace_seconds: 1,
            is_disruption,
        }
    }

    #[test]
    fn an_evicted_pod_is_stopped_soon_and_says_why() {
        let mut history = History {
            sandbox: Sandbox::Ready,
            sandboxes: 1,
            ended: Some(ended(true)),
            ..History::default()
        };
        history.container_mut("a").started(Run {
            id: "a-0".to_owned(),
            started_at: at(0),
            image: String::new(),
            image_id: String::new(),
            stop_signal: None,
            finished: None,
            started_with: StartedWith::default(),
        });
        let first = planned(&history, &PodStatus::default(), 10);
        assert_eq!(first.status.phase.as_deref(), Some("Failed"));
        history.ended = Some(ended(false));
        let own_fault = planned(&history, &PodStatus::default(), 10).status;
        assert_eq!(own_fault.reason.as_deref(), Some("Evicted"));
        assert!(own_fault.container_statuses.is_some());
        let is_disruption = |conditions: &[PodCondition]| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "DisruptionTarget")
        };
        assert!(!is_disruption(&own_fault.conditions.unwrap()));
        history.ended = Some(ended(true));
        assert_eq!(first.status.reason.as_deref(), Some("Evicted"));
        let conditions = first.status.conditions.clone().unwrap();
        let disruption: Vec<&str> = conditions
            .iter()
            .filter(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
            .filter_map(|condition| condition.reason.as_deref())
            .collect();
        assert_eq!(disruption, ["TerminationByKubelet"]);
        assert!(
            matches!(first.steps.as_slice(), [crate::Step::Signal { .. }]),
            "{:?}",
            first.steps
        );
        history.stopping_since = Some(at(10));
        history.container_mut("a").stop = Some(crate::Stop::Asked);
        let later = planned(&history, &first.status, 20);
        assert!(
            matches!(later.steps.as_slice(), [crate::Step::Kill { .. }]),
            "{:?}",
            later.steps
        );
    }

    #[test]
    fn a_pod_that_was_never_taken_is_failed_and_nothing_is_done() {
        let history = History {
            ended: Some(ended(false)),
            ..History::default()
        };
        let plan = planned(&history, &PodStatus::default(), 10);
        assert!(plan.steps.is_empty() && !plan.is_gone);
        assert_eq!(plan.status.reason.as_deref(), Some("Evicted"));
        assert_eq!(plan.status.container_statuses, None);
        // It stays so, also for an agent that has forgotten why.
        let later = planned(&History::default(), &plan.status, 20);
        assert_eq!(
            (later.steps, later.status.phase.as_deref()),
            (Vec::new(), Some("Failed"))
        );
    }
}
