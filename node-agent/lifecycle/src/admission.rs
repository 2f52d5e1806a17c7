//! Whether a node takes a pod that was bound to it: kubelet's own last look before it starts one.

use flotilla_api::amounts::{Amounts, Demand, whole};
use flotilla_api::qos_class;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use crate::permits::Permits;
use crate::pressure::{Condition, Pressures, is_critical};
use crate::resources::Quantities;

/// What a node has, and what was promised to the pods on it.
#[derive(Debug, Clone)]
pub struct Room<'a> {
    /// What pods may have in all.
    pub allocatable: &'a Quantities,
    /// What is short.
    pub pressures: Pressures,
    /// What it lets pods have.
    pub permits: &'a Permits,
    /// The pods that are there and have not ended.
    pub pods: &'a [&'a Pod],
}

/// Why a pod is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The status' reason.
    pub reason: String,
    /// The status' message.
    pub message: String,
}

impl Rejection {
    pub(crate) fn new(reason: String, message: &str) -> Self {
        Self {
            reason,
            message: format!("Pod was rejected: {message}"),
        }
    }
}

/// Takes the pod, or says why not.
///
/// # Errors
/// What the pod's status has to say then.
pub fn admit(pod: &Pod, room: &Room<'_>) -> Result<(), Rejection> {
    room.permits.check(pod)?;
    check_pressure(pod, room.pressures)?;
    check_resources(pod, room)
}

/// A node that is short of something only takes pods that it cannot do without; one that is only short of memory also
/// those that have said how much they need.
fn check_pressure(pod: &Pod, pressures: Pressures) -> Result<(), Rejection> {
    let holding = pressures.list();
    if holding.is_empty() || is_critical(pod) {
        return Ok(());
    }
    if holding == [Condition::Memory] {
        let best_effort = pod
            .spec
            .as_ref()
            .is_some_and(|spec| qos_class(spec) == "BestEffort");
        if !best_effort || tolerates_memory_pressure(pod) {
            return Ok(());
        }
    }
    let names: Vec<&str> = holding.into_iter().map(Condition::name).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Err(Rejection::new("Evicted".to_owned(), &message))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let covers = |toleration: &Toleration| {
        let unset = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
        let key =
            unset(&toleration.key) || toleration.key.as_deref() == Some("node.kubernetes.io/memory-pressure");
        let effect = unset(&toleration.effect) || toleration.effect.as_deref() == Some("NoSchedule");
        let value = toleration.operator.as_deref() == Some("Exists")
            || (!unset(&toleration.key) && unset(&toleration.value));
        key && effect && value
    };
    tolerations.unwrap_or_default().iter().any(covers)
}

fn check_resources(pod: &Pod, room: &Room<'_>) -> Result<(), Rejection> {
    let pods_max = room.allocatable.get("pods").map(whole);
    let count = i64::try_from(room.pods.len()).unwrap_or(i64::MAX);
    if let Some(pods_max) = pods_max.filter(|pods_max| count >= *pods_max) {
        return Err(out_of("pods", 1, count, pods_max));
    }
    let has = Amounts::read(Some(room.allocatable));
    let mut used = Amounts::default();
    for other in room.pods {
        used.add(&Demand::of(other).requests);
    }
    let wants = Demand::of(pod).requests;
    for (name, wanted, used, has) in [
        ("cpu", wants.cpu_milli, used.cpu_milli, has.cpu_milli),
        ("memory", wants.memory, used.memory, has.memory),
        ("ephemeral-storage", wants.storage, used.storage, has.storage),
    ] {
        if wanted > 0 && wanted > has - used {
            return Err(out_of(name, wanted, used, has));
        }
    }
    for (name, wanted) in &wants.others {
        let of = |amounts: &Amounts| amounts.others.get(name).copied().unwrap_or(0);
        if *wanted > 0 && *wanted > of(&has) - of(&used) {
            return Err(out_of(name, *wanted, of(&used), of(&has)));
        }
    }
    Ok(())
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Rejection::new(format!("OutOf{resource}"), &message)
}

#[cfg(test)]
mod tests {
    use flotilla_api::quantity::QuantityField;

    use super::*;

    fn pod(requests: &str, more: &str) -> Pod {
        let spec = format!(
            r#"{{"spec":{{"containers":[{{"name":"a","resources":{{"requests":{requests}}}}}]{more}}}}}"#
        );
        serde_json::from_str(&spec).unwrap()
    }

    fn allocatable() -> Quantities {
        let list = [
            ("cpu", "2"),
            ("memory", "1Gi"),
            ("pods", "3"),
            ("example.org/gpu", "1"),
        ];
        list.map(|(name, amount)| (name.to_owned(), QuantityField(amount.to_owned())))
            .into()
    }

    fn check(pod: &Pod, there: &[&Pod], pressures: Pressures) -> String {
        let room = Room {
            allocatable: &allocatable(),
            pressures,
            permits: &Permits::default(),
            pods: there,
        };
        match admit(pod, &room) {
            Ok(()) => "taken".to_owned(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        }
    }

    #[test]
    fn a_pod_for_which_there_is_no_room_is_refused() {
        let (small, large) = (pod(r#"{"cpu":"500m"}"#, ""), pod(r#"{"cpu":"1600m"}"#, ""));
        let none = Pressures::default();
        assert_eq!(check(&large, &[], none), "taken");
        assert_eq!(
            check(&small, &[&large], none),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 1600, capacity: 2000"
        );
        assert_eq!(
            check(&pod(r#"{"memory":"2Gi"}"#, ""), &[], none),
            "OutOfmemory: Pod was rejected: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"
        );
        let gpu = pod(r#"{"example.org/gpu":"1"}"#, "");
        assert_eq!(check(&gpu, &[], none), "taken");
        assert!(check(&gpu, &[&gpu], none).starts_with("OutOfexample.org/gpu"));
        let bare = pod("{}", "");
        assert_eq!(check(&bare, &[&bare, &bare], none), "taken");
        assert_eq!(
            check(&bare, &[&bare, &bare, &bare], none),
            "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
    }

    #[test]
    fn a_node_under_pressure_takes_only_what_it_must() {
        let memory = Pressures {
            memory: true,
            ..Pressures::default()
        };
        let disk = Pressures {
            disk: true,
            ..Pressures::default()
        };
        let (bare, modest) = (pod("{}", ""), pod(r#"{"memory":"1Mi"}"#, ""));
        let critical = pod("{}", r#","priority":2000001000"#);
        let tolerant = pod(
            "{}",
            r#","tolerations":[{"key":"node.kubernetes.io/memory-pressure","operator":"Exists"}]"#,
        );
        let refused = "Evicted: Pod was rejected: The node had condition: [MemoryPressure]. ";
        assert_eq!(check(&bare, &[], memory), refused);
        for taken in [&modest, &critical, &tolerant] {
            assert_eq!(check(taken, &[], memory), "taken");
        }
        assert_eq!(
            check(&modest, &[], disk),
            "Evicted: Pod was rejected: The node had condition: [DiskPressure]. "
        );
        assert_eq!(check(&critical, &[], disk), "taken");
    }
}
