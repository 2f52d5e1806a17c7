//! What of a node is promised to its pods: the tables at the end of its description.

use flotilla_api::amounts::{Amounts, Demand};
use flotilla_api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;

use super::text::{Text, text};
use crate::output::age;

/// Requests and limits of a pod or of all of them.
#[derive(Clone, Default)]
struct Promised {
    requests: Amounts,
    limits: Amounts,
}

/// Writes the pods of a node, and what they ask for in all.
pub(super) fn describe(out: &mut Text, node: &Value, pods: &[Value]) {
    let has = Amounts::read(
        serde_json::from_value(node["status"]["allocatable"].clone())
            .ok()
            .as_ref(),
    );
    let promised: Vec<Promised> = pods.iter().map(promised).collect();
    let now = Timestamp::now();
    out.line(0, format!("Non-terminated Pods:\t({} in total)", pods.len()));
    out.line(
        1,
        "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge",
    );
    out.line(
        1,
        "---------\t----\t\t------------\t----------\t---------------\t-------------\t---",
    );
    for (pod, promised) in pods.iter().zip(&promised) {
        let meta = &pod["metadata"];
        let cells = [
            share(
                &milli(promised.requests.cpu_milli),
                promised.requests.cpu_milli,
                has.cpu_milli,
            ),
            share(
                &milli(promised.limits.cpu_milli),
                promised.limits.cpu_milli,
                has.cpu_milli,
            ),
            share(
                &bytes(promised.requests.memory),
                promised.requests.memory,
                has.memory,
            ),
            share(&bytes(promised.limits.memory), promised.limits.memory, has.memory),
            age::since(&meta["creationTimestamp"], now),
        ];
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        out.line(1, format!("{namespace}\t{name}\t\t{}", cells.join("\t")));
    }
    let mut total = Promised::default();
    for one in &promised {
        total.requests.add(&one.requests);
        total.limits.add(&one.limits);
    }
    totals(out, node, &total, &has);
}

fn totals(out: &mut Text, node: &Value, total: &Promised, has: &Amounts) {
    out.line(0, "Allocated resources:");
    out.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    out.line(1, "Resource\tRequests\tLimits");
    out.line(1, "--------\t--------\t------");
    let (requests, limits) = (&total.requests, &total.limits);
    let mut row = |name: &str, requested: String, limited: String| {
        out.line(1, format!("{name}\t{requested}\t{limited}"));
    };
    row(
        "cpu",
        share(&milli(requests.cpu_milli), requests.cpu_milli, has.cpu_milli),
        share(&milli(limits.cpu_milli), limits.cpu_milli, has.cpu_milli),
    );
    for (name, requested, limited, has) in [
        ("memory", requests.memory, limits.memory, has.memory),
        ("ephemeral-storage", requests.storage, limits.storage, has.storage),
    ] {
        row(
            name,
            share(&bytes(requested), requested, has),
            share(&bytes(limited), limited, has),
        );
    }
    let others = node["status"]["allocatable"].as_object().into_iter().flatten();
    for (name, _) in others {
        let of = |amounts: &Amounts| amounts.others.get(name).copied().unwrap_or(0);
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" | "pods" => {}
            pages if pages.starts_with("hugepages-") => row(
                pages,
                share(&bytes(of(requests)), of(requests), of(has)),
                share(&bytes(of(limits)), of(limits), of(has)),
            ),
            other => row(other, of(requests).to_string(), of(limits).to_string()),
        }
    }
}

/// A pod that cannot be read promises nothing.
fn promised(pod: &Value) -> Promised {
    let Ok(mut pod) = serde_json::from_value::<Pod>(pod.clone()) else {
        return Promised::default();
    };
    let requests = Demand::of(&pod).requests;
    // The same sum over limits.
    let spec = pod.spec.get_or_insert_default();
    let as_requests = |container: &mut Container| {
        if let Some(resources) = &mut container.resources {
            resources.requests = resources.limits.take();
        }
    };
    spec.containers.iter_mut().for_each(as_requests);
    spec.init_containers.iter_mut().flatten().for_each(as_requests);
    if let Some(resources) = &mut spec.resources {
        resources.requests = resources.limits.take();
    }
    Promised {
        requests,
        limits: Demand::of(&pod).requests,
    }
}

fn milli(amount: i64) -> String {
    Quantity::from_milli(amount).to_string()
}

fn bytes(amount: i64) -> String {
    Quantity::from_bytes(amount.unsigned_abs()).to_string()
}

fn share(shown: &str, amount: i64, all: i64) -> String {
    let percent = if all > 0 {
        i128::from(amount) * 100 / i128::from(all)
    } else {
        0
    };
    format!("{shown} ({percent}%)")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::output::tabwriter::{DESCRIPTION, align};

    #[test]
    fn what_is_promised_is_told_for_each_pod_and_in_all() {
        let node = json!({"status": {"allocatable": {
            "cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "hugepages-2Mi": "0", "pods": "110"}}});
        let pod = |name: &str, resources: Value| {
            json!({"metadata": {"name": name, "namespace": "default"},
                   "spec": {"containers": [{"name": "a", "resources": resources}]}})
        };
        let pods = [
            pod(
                "web",
                json!({"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"cpu": "3"}}),
            ),
            pod("bare", json!({})),
        ];
        let mut out = Text::default();
        describe(&mut out, &node, &pods);
        expect![[r#"
            Non-terminated Pods:  (2 in total)
              Namespace           Name    CPU Requests  CPU Limits  Memory Requests  Memory Limits  Age
              ---------           ----    ------------  ----------  ---------------  -------------  ---
              default             web     250m (12%)    3 (150%)    128Mi (12%)      0 (0%)         <unknown>
              default             bare    0 (0%)        0 (0%)      0 (0%)           0 (0%)         <unknown>
            Allocated resources:
              (Total limits may be over 100 percent, i.e., overcommitted.)
              Resource           Requests     Limits
              --------           --------     ------
              cpu                250m (12%)   3 (150%)
              memory             128Mi (12%)  0 (0%)
              ephemeral-storage  0 (0%)       0 (0%)
              hugepages-2Mi      0 (0%)       0 (0%)
        "#]]
        .assert_eq(&align(DESCRIPTION, &out.finish()));
    }
}
