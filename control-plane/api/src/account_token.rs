//! What the admission of service accounts adds to a pod: a volume with a token, the cluster's authority and the
//! namespace, where client libraries look for them.

use crate::static_pods::is_mirror;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
/// An hour, and seven seconds by which Kubernetes tells its own tokens from those that users ask for.
const TOKEN_SECONDS: i64 = 3607;

/// Gives a new pod what its account stands for. `suffix` makes the volume's name unique.
pub fn add_service_account(pod: &mut Pod, account: &ServiceAccount, suffix: &str) {
    if is_mirror(pod) {
        return;
    }
    let spec = pod.spec.get_or_insert_default();
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
    }
    let is_wanted = spec
        .automount_service_account_token
        .or(account.automount_service_account_token);
    if is_wanted != Some(false) {
        mount_token(spec, suffix);
    }
}

fn mount_token(spec: &mut PodSpec, suffix: &str) {
    let volumes = spec.volumes.iter().flatten();
    let known = volumes
        .map(|volume| &volume.name)
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .cloned();
    let name = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut is_used = false;
    let containers = spec.init_containers.iter_mut().flatten();
    for container in containers.chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
            continue;
        }
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
        is_used = true;
    }
    if known.is_none() && is_used {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

fn volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: None,
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ROOT_CA.to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, authority, namespace]),
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(pod: &str, account: &str, expected: &Expect) {
        let mut pod: Pod = serde_json::from_str(pod).unwrap();
        let account: ServiceAccount = serde_json::from_str(account).unwrap();
        add_service_account(&mut pod, &account, "abcde");
        let spec = pod.spec.unwrap();
        let mounts = |container: &k8s_openapi::api::core::v1::Container| {
            let mounts = container.volume_mounts.iter().flatten();
            let shown: Vec<String> = mounts
                .map(|mount| {
                    let last = mount.mount_path.rsplit('/').next().unwrap();
                    format!("{} on {last}", mount.name)
                })
                .collect();
            format!("{}: {}", container.name, shown.join(", "))
        };
        let all = spec.init_containers.iter().flatten().chain(&spec.containers);
        let containers: Vec<String> = all.map(mounts).collect();
        let volumes: Vec<String> = spec
            .volumes
            .iter()
            .flatten()
            .map(|volume| volume.name.clone())
            .collect();
        let secrets = spec.image_pull_secrets.iter().flatten();
        let secrets: Vec<String> = secrets.map(|secret| secret.name.clone()).collect();
        expected.assert_eq(&format!(
            "{}; volumes {volumes:?}; pull secrets {secrets:?}",
            containers.join("; ")
        ));
    }

    const PLAIN: &str =
        r#"{"metadata":{"name":"p"},"spec":{"initContainers":[{"name":"i"}],"containers":[{"name":"c"}]}}"#;

    #[test]
    fn every_container_gets_the_token_where_libraries_look_for_it() {
        check(
            PLAIN,
            r#"{"metadata":{"name":"default"},"imagePullSecrets":[{"name":"registry"}]}"#,
            &expect![[
                r#"i: kube-api-access-abcde on serviceaccount; c: kube-api-access-abcde on serviceaccount; volumes ["kube-api-access-abcde"]; pull secrets ["registry"]"#
            ]],
        );
    }

    #[test]
    fn pod_and_account_may_do_without() {
        let nothing = r#"i: ; c: ; volumes []; pull secrets []"#;
        let account = r#"{"metadata":{"name":"a"},"automountServiceAccountToken":false}"#;
        let check = |pod: &str, account: &str| {
            let mut parsed: Pod = serde_json::from_str(pod).unwrap();
            let account: ServiceAccount = serde_json::from_str(account).unwrap();
            add_service_account(&mut parsed, &account, "abcde");
            assert!(parsed.spec.unwrap().volumes.is_none(), "{nothing}");
        };
        check(PLAIN, account);
        let pod =
            r#"{"metadata":{},"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c"}]}}"#;
        check(pod, r#"{"metadata":{}}"#);
        let mirror = r#"{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"containers":[{"name":"c"}]}}"#;
        check(mirror, r#"{"metadata":{}}"#);
    }

    #[test]
    fn what_is_there_already_stays() {
        check(
            r#"{"metadata":{},"spec":{"volumes":[{"name":"kube-api-access-own"}],"containers":[{"name":"a"},
                {"name":"b","volumeMounts":[{"name":"mine","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]}}"#,
            r#"{"metadata":{}}"#,
            &expect![[
                r#"a: kube-api-access-own on serviceaccount; b: mine on serviceaccount; volumes ["kube-api-access-own"]; pull secrets []"#
            ]],
        );
    }
}
