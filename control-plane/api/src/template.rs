//! Pod templates: their hash, and what is added to pods made from them.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, Toleration};

/// Letters that make no words; Kubernetes uses the same ones for hashes in names.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for the template, the same for equal templates; the collision count makes another one.
pub fn pod_template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let json = serde_json::to_vec(template).expect("templates have only string keys and finite numbers");
    let mut hash = fnv(0x811c_9dc5, &json);
    if let Some(count) = collision_count {
        hash = fnv(hash, &count.to_le_bytes());
    }
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()]))
        .collect()
}

/// FNV-1a in 32 bits.
fn fnv(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Lets a pod stay on a node that is not ready or unreachable for `seconds`, unless it says otherwise itself.
pub fn add_default_tolerations(pod: &mut Pod, seconds: i64) {
    let tolerations = pod
        .spec
        .get_or_insert_default()
        .tolerations
        .get_or_insert_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|one| tolerates_no_execute(one, key)) {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(seconds),
                value: None,
            });
        }
    }
}

fn tolerates_no_execute(toleration: &Toleration, key: &str) -> bool {
    let key_fits = toleration
        .key
        .as_deref()
        .is_none_or(|own| own.is_empty() || own == key);
    let effect_fits = toleration
        .effect
        .as_deref()
        .is_none_or(|own| own.is_empty() || own == "NoExecute");
    key_fits && effect_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let json = serde_json::json!({
            "metadata": {"labels": {"b": "2", "a": "1"}},
            "spec": {"containers": [{"name": "web", "image": image}]},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn equal_templates_have_one_hash_and_others_another() {
        let hash = |image, collisions| pod_template_hash(&template(image), collisions);
        expect_test::expect!["7d56f9f8b8"].assert_eq(&hash("demo:v1", None));
        assert_eq!(hash("demo:v1", None), hash("demo:v1", None));
        assert_ne!(hash("demo:v1", None), hash("demo:v2", None));
        assert_ne!(hash("demo:v1", None), hash("demo:v1", Some(1)));
        assert_ne!(hash("demo:v1", Some(2)), hash("demo:v1", Some(1)));
    }
}
