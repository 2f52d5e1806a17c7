//! What a new pod's priority is: that of its class, of the cluster's default class, or none.

use std::sync::Arc;

use flotilla_api::{Status, registry, system_priority_classes};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::Resources;

const PREEMPT_LOWER: &str = "PreemptLowerPriority";

impl Resources {
    /// Gives a new pod the priority of its class.
    pub(crate) fn admit_priority(&self, pod: &mut Pod) -> Result<(), Status> {
        let (classes, _) = self.list_typed::<PriorityClass>(None);
        let name = pod.metadata.name.clone().unwrap_or_default();
        settle(pod, &classes).map_err(|why| Status::forbidden(registry().of::<Pod>(), &name, &why))
    }

    /// There is at most one default class.
    pub(crate) fn admit_priority_class(&self, class: &PriorityClass) -> Result<(), Status> {
        if class.global_default != Some(true) {
            return Ok(());
        }
        let (classes, _) = self.list_typed::<PriorityClass>(None);
        let Some(other) = default_class(&classes).filter(|other| other.metadata.name != class.metadata.name)
        else {
            return Ok(());
        };
        let why = format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.metadata.name.as_deref().unwrap_or_default()
        );
        let name = class.metadata.name.as_deref().unwrap_or_default();
        Err(Status::forbidden(registry().of::<PriorityClass>(), name, &why))
    }
}

/// The default class; of several the one of the lowest value, as in Kubernetes.
fn default_class(classes: &[Arc<PriorityClass>]) -> Option<&Arc<PriorityClass>> {
    classes
        .iter()
        .filter(|class| class.global_default == Some(true))
        .min_by_key(|class| class.value)
}

fn settle(pod: &mut Pod, classes: &[Arc<PriorityClass>]) -> Result<(), String> {
    let spec = pod.spec.get_or_insert_default();
    let wanted = spec
        .priority_class_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let class = match wanted {
        None => default_class(classes).map(|class| (**class).clone()),
        Some(wanted) => {
            let named = |class: &PriorityClass| class.metadata.name.as_deref() == Some(wanted);
            let own = || system_priority_classes().into_iter().find(|class| named(class));
            let found = classes.iter().find(|class| named(class));
            let found = found.map(|class| (**class).clone()).or_else(own);
            Some(found.ok_or_else(|| format!("no PriorityClass with name {wanted} was found"))?)
        }
    };
    let value = class.as_ref().map_or(0, |class| class.value);
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        ));
    }
    let policy = class
        .as_ref()
        .and_then(|class| class.preemption_policy.clone())
        .unwrap_or_else(|| PREEMPT_LOWER.to_owned());
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    if let Some(class) = class {
        spec.priority_class_name = class.metadata.name;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i32, default: bool) -> Arc<PriorityClass> {
        let mut class = PriorityClass {
            value,
            global_default: Some(default),
            preemption_policy: Some("Never".to_owned()),
            ..PriorityClass::default()
        };
        class.metadata.name = Some(name.to_owned());
        Arc::new(class)
    }

    fn check(spec: &str, classes: &[Arc<PriorityClass>], expected: &str) {
        let mut pod: Pod = serde_json::from_str(&format!(r#"{{"spec":{{"containers":[]{spec}}}}}"#)).unwrap();
        let told = settle(&mut pod, classes).map_or_else(
            |why| why,
            |()| {
                let spec = pod.spec.unwrap();
                let name = spec.priority_class_name.unwrap_or_default();
                format!(
                    "{name} {} {}",
                    spec.priority.unwrap(),
                    spec.preemption_policy.unwrap()
                )
            },
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn a_pod_has_the_priority_of_its_class_or_of_the_default() {
        let some = [class("high", 100, false)];
        let with_default = [
            class("high", 100, false),
            class("b", 7, true),
            class("a", 9, true),
        ];
        check("", &some, " 0 PreemptLowerPriority");
        check("", &with_default, "b 7 Never");
        check(r#","priorityClassName":"high""#, &with_default, "high 100 Never");
        check(
            r#","priorityClassName":"system-node-critical""#,
            &[],
            "system-node-critical 2000001000 PreemptLowerPriority",
        );
        check(
            r#","priorityClassName":"high","priority":100"#,
            &some,
            "high 100 Never",
        );
    }

    #[test]
    fn what_does_not_fit_the_class_is_refused() {
        let some = [class("high", 100, false)];
        check(
            r#","priorityClassName":"low""#,
            &some,
            "no PriorityClass with name low was found",
        );
        check(
            r#","priority":5"#,
            &some,
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
        );
        check(
            r#","priorityClassName":"high","preemptionPolicy":"PreemptLowerPriority""#,
            &some,
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
        );
    }
}
