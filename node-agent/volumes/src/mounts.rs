//! What of its pod's volumes a container sees where. Pure.

use std::cell::Cell;
use std::path::{Component, Path, PathBuf};

use flotilla_lifecycle::expand_variables;
use flotilla_runtime::{Mount, Propagation};
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

/// Why a container cannot be given its volumes. Most are caught by the API server already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The pod has no such volume.
    #[error("volumeMount \"{name}\" of container \"{container}\": the pod has no volume of this name")]
    NoVolume {
        /// The volume.
        name: String,
        /// The container.
        container: String,
    },
    /// The path is not absolute or leads about.
    #[error("volumeMount \"{name}\": mountPath {path:?} must be absolute and without \"..\"")]
    MountPath {
        /// The volume.
        name: String,
        /// What stands there.
        path: String,
    },
    /// The part of the volume cannot be named like this.
    #[error("volumeMount \"{name}\": subPath {path:?} must be relative and must not contain \"..\"")]
    SubPath {
        /// The volume.
        name: String,
        /// What stands there.
        path: String,
    },
    /// A variable is not in the container's environment.
    #[error(
        "volumeMount \"{name}\": subPathExpr {expression:?} refers to a variable that the container does not have"
    )]
    Variable {
        /// The volume.
        name: String,
        /// What stands there.
        expression: String,
    },
    /// What this node does not do.
    #[error("container \"{container}\": {what} is not supported by this node")]
    Unsupported {
        /// The container.
        container: String,
        /// What was asked for.
        what: &'static str,
    },
}

/// The container's mounts, those nearer to the root first. `place` tells where a volume is on the node and whether
/// containers may only read it.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
    place: impl Fn(&Volume) -> Option<(PathBuf, bool)>,
) -> Result<Vec<Mount>, MountError> {
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        let what = "volumeDevices (a volume as a block device; use volumeMode Filesystem and volumeMounts)";
        return Err(unsupported(container, what));
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let missing = || MountError::NoVolume {
            name: wanted.name.clone(),
            container: container.name.clone(),
        };
        let found = volumes
            .unwrap_or_default()
            .iter()
            .find(|volume| volume.name == wanted.name);
        let volume = found.ok_or_else(missing)?;
        let (source, is_read_only) = place(volume).ok_or_else(missing)?;
        mounts.push(mount(container, wanted, source, is_read_only, env)?);
    }
    mounts.sort_by_key(|mount: &Mount| mount.destination.components().count());
    Ok(mounts)
}

fn mount(
    container: &Container,
    wanted: &VolumeMount,
    source: PathBuf,
    is_read_only: bool,
    env: &[(String, String)],
) -> Result<Mount, MountError> {
    let read_only = is_read_only || wanted.read_only == Some(true);
    let recursive = match wanted.recursive_read_only.as_deref() {
        // Linux 5.12 has it, and this runtime needs a newer one anyway.
        Some("Enabled" | "IfPossible") => wanted.read_only == Some(true),
        _ => false,
    };
    let propagation = match wanted.mount_propagation.as_deref() {
        None | Some("" | "None") => Propagation::None,
        Some("HostToContainer") => Propagation::HostToContainer,
        Some(_) => return Err(unsupported(container, "mountPropagation Bidirectional")),
    };
    let destination = destination(wanted)?;
    if destination == Path::new("/dev") {
        // The runtime makes the container's devices there, and would make them in the volume.
        return Err(unsupported(
            container,
            "a volume at /dev (mount what is needed of it below /dev)",
        ));
    }
    Ok(Mount {
        source,
        destination,
        read_only,
        recursive_read_only: recursive,
        sub_path: sub_path(wanted, env)?,
        propagation,
        ..Mount::default()
    })
}

fn unsupported(container: &Container, what: &'static str) -> MountError {
    MountError::Unsupported {
        container: container.name.clone(),
        what,
    }
}

fn destination(wanted: &VolumeMount) -> Result<PathBuf, MountError> {
    // Kubernetes lets a relative one in, which container runtimes take from the root.
    let path = Path::new("/").join(&wanted.mount_path);
    match path.components().any(|part| part == Component::ParentDir) {
        false => Ok(path.components().collect()),
        true => Err(MountError::MountPath {
            name: wanted.name.clone(),
            path: wanted.mount_path.clone(),
        }),
    }
}

fn sub_path(wanted: &VolumeMount, env: &[(String, String)]) -> Result<Option<PathBuf>, MountError> {
    let path = match (wanted.sub_path.as_deref(), wanted.sub_path_expr.as_deref()) {
        (Some(path), _) if !path.is_empty() => path.to_owned(),
        (_, Some(expression)) if !expression.is_empty() => expanded(wanted, expression, env)?,
        _ => return Ok(None),
    };
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    match Path::new(&path).components().all(is_plain) {
        true => Ok(Some(PathBuf::from(path))),
        false => Err(MountError::SubPath {
            name: wanted.name.clone(),
            path,
        }),
    }
}

fn expanded(wanted: &VolumeMount, expression: &str, env: &[(String, String)]) -> Result<String, MountError> {
    let is_missing = Cell::new(false);
    let text = expand_variables(expression, |name| {
        let found = env.iter().find(|(known, _)| known == name);
        is_missing.set(is_missing.get() || found.is_none());
        found.map(|(_, value)| value.clone())
    });
    match is_missing.get() {
        false => Ok(text),
        true => Err(MountError::Variable {
            name: wanted.name.clone(),
            expression: expression.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(mount: &str, expected: &Expect) {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p"},"spec":{"containers":[],"volumes":[{"name":"v"},{"name":"files"}]}}"#,
        )
        .unwrap();
        let container: Container =
            serde_json::from_str(&format!(r#"{{"name":"c","volumeMounts":[{mount}]}}"#)).unwrap();
        let env = [
            ("POD".to_owned(), "web-0".to_owned()),
            ("UP".to_owned(), "../x".to_owned()),
        ];
        let place = |volume: &Volume| Some((PathBuf::from("/n").join(&volume.name), volume.name == "files"));
        let found = match mounts(&pod, &container, &env, place) {
            Err(error) => error.to_string(),
            Ok(mounts) => mounts.iter().map(show).collect::<Vec<_>>().join("; "),
        };
        expected.assert_eq(&found);
    }

    fn show(mount: &Mount) -> String {
        let access = match (mount.read_only, mount.recursive_read_only) {
            (_, true) => "rro",
            (true, _) => "ro",
            _ => "rw",
        };
        let part = mount
            .sub_path
            .as_ref()
            .map_or(String::new(), |part| format!("[{}]", part.display()));
        let source = mount.source.display();
        let heard = match mount.propagation {
            Propagation::None => "",
            Propagation::HostToContainer => " hears",
            Propagation::Bidirectional => " both",
        };
        format!(
            "{source}{part} on {} {access}{heard}",
            mount.destination.display()
        )
    }

    #[test]
    fn mounts_are_as_the_container_wants_them() {
        check(
            r#"{"name":"v","mountPath":"/data"}"#,
            &expect!["/n/v on /data rw"],
        );
        check(
            r#"{"name":"v","mountPath":"/data/","readOnly":true}"#,
            &expect!["/n/v on /data ro"],
        );
        check(
            r#"{"name":"v","mountPath":"d","readOnly":true,"recursiveReadOnly":"Enabled"}"#,
            &expect!["/n/v on /d rro"],
        );
        check(
            r#"{"name":"files","mountPath":"/f"}"#,
            &expect!["/n/files on /f ro"],
        );
        check(
            r#"{"name":"v","mountPath":"/d","mountPropagation":"HostToContainer"}"#,
            &expect!["/n/v on /d rw hears"],
        );
    }

    #[test]
    fn parents_are_mounted_before_what_is_in_them() {
        check(
            r#"{"name":"files","mountPath":"/a/b"},{"name":"v","mountPath":"/a"}"#,
            &expect!["/n/v on /a rw; /n/files on /a/b ro"],
        );
    }

    #[test]
    fn parts_of_volumes_are_named_by_path_or_expression() {
        check(
            r#"{"name":"v","mountPath":"/d","subPath":"a/b"}"#,
            &expect!["/n/v[a/b] on /d rw"],
        );
        check(
            r#"{"name":"v","mountPath":"/d","subPathExpr":"logs/$(POD)/$$(POD)"}"#,
            &expect!["/n/v[logs/web-0/$(POD)] on /d rw"],
        );
        check(
            r#"{"name":"v","mountPath":"/d","subPathExpr":"$(NONE)"}"#,
            &expect![[
                r#"volumeMount "v": subPathExpr "$(NONE)" refers to a variable that the container does not have"#
            ]],
        );
        check(
            r#"{"name":"v","mountPath":"/d","subPathExpr":"$(UP)"}"#,
            &expect![[r#"volumeMount "v": subPath "../x" must be relative and must not contain "..""#]],
        );
        check(
            r#"{"name":"v","mountPath":"/d","subPath":"/etc"}"#,
            &expect![[r#"volumeMount "v": subPath "/etc" must be relative and must not contain "..""#]],
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_name() {
        check(
            r#"{"name":"x","mountPath":"/d"}"#,
            &expect![[r#"volumeMount "x" of container "c": the pod has no volume of this name"#]],
        );
        check(
            r#"{"name":"v","mountPath":"/d/../../x"}"#,
            &expect![[r#"volumeMount "v": mountPath "/d/../../x" must be absolute and without "..""#]],
        );
        for dev in ["/dev", "dev/", "/./dev"] {
            check(
                &format!(r#"{{"name":"v","mountPath":"{dev}"}}"#),
                &expect![[
                    r#"container "c": a volume at /dev (mount what is needed of it below /dev) is not supported by this node"#
                ]],
            );
        }
        check(
            r#"{"name":"v","mountPath":"/dev/net"}"#,
            &expect!["/n/v on /dev/net rw"],
        );
        check(
            r#"{"name":"v","mountPath":"/d","mountPropagation":"Bidirectional"}"#,
            &expect![[r#"container "c": mountPropagation Bidirectional is not supported by this node"#]],
        );
    }
}
