//! What exactly a container runs, and as whom.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, PodSecurityContext, SecurityContext};

use crate::environment::{EnvironmentError, Facts, environment};
use crate::expansion::expand;
use crate::pod_label;

/// What the image says, for where the pod says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub cmd: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// The folder to start in.
    pub working_dir: String,
    /// User, or user and group, by name or number.
    pub user: String,
}

/// Everything about a container's process that follows from pod and image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// The folder to start in.
    pub cwd: String,
    /// To be looked up in the image's user database; empty means root.
    pub user: String,
    /// Instead of the user's own group.
    pub group: Option<u32>,
    /// Besides the user's own groups.
    pub supplemental_groups: Vec<u32>,
    /// The container may not write to its own files.
    pub read_only_root: bool,
    /// Capabilities beyond the runtime's default set, by Kubernetes' names.
    pub capabilities_added: Vec<String>,
    /// Capabilities to go without.
    pub capabilities_dropped: Vec<String>,
    /// No way to gain privileges by running a program.
    pub no_new_privileges: bool,
    /// All devices and nothing masked.
    pub privileged: bool,
}

/// Why a container cannot be launched as the pod says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Something that the environment refers to is missing.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Neither pod nor image name a program.
    #[error("no command specified")]
    NoCommand,
    /// The pod forbids root, and the image wants it.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    Root {
        /// The pod.
        pod: String,
        /// The container's name.
        container: String,
    },
    /// A user or group id is out of range.
    #[error("{field}: {id} is not a user or group id")]
    Id {
        /// Where it stands.
        field: &'static str,
        /// What stands there.
        id: i64,
    },
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts pod, container and image together.
pub fn launch(
    facts: &Facts<'_>,
    container: &Container,
    image: &ImageDefaults,
) -> Result<Launch, LaunchError> {
    let spec = facts.pod.spec.as_ref();
    let of_pod = spec
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let env = environment(facts, container, image_env(facts.pod, image))?;
    let args = args(container, image, &env)?;
    let user = match own.run_as_user.or(of_pod.run_as_user) {
        Some(id) => group_id("runAsUser", id)?.to_string(),
        None => image.user.clone(),
    };
    let group = own.run_as_group.or(of_pod.run_as_group);
    let privileged = own.privileged == Some(true);
    let (capabilities_added, capabilities_dropped) = capabilities(privileged, own.capabilities.as_ref());
    let cwd = container
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty())
        .unwrap_or(&image.working_dir);
    Ok(Launch {
        args,
        env,
        cwd: if cwd.is_empty() {
            "/".to_owned()
        } else {
            cwd.to_owned()
        },
        user,
        group: group.map(|id| group_id("runAsGroup", id)).transpose()?,
        supplemental_groups: supplemental_groups(&of_pod)?,
        read_only_root: own.read_only_root_filesystem == Some(true),
        capabilities_added,
        capabilities_dropped,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        privileged,
    })
}

/// Refuses root where the pod forbids it; `uid` is what [`Launch::user`] was found to be.
pub fn check_non_root(pod: &Pod, container: &Container, uid: u32) -> Result<(), LaunchError> {
    let own = container
        .security_context
        .as_ref()
        .and_then(|context: &SecurityContext| context.run_as_non_root);
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let forbidden = own
        .or(of_pod.and_then(|context| context.run_as_non_root))
        .unwrap_or_default();
    if forbidden && uid == 0 {
        return Err(LaunchError::Root {
            pod: pod_label(pod),
            container: container.name.clone(),
        });
    }
    Ok(())
}

fn image_env(pod: &Pod, image: &ImageDefaults) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    if !image.env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
    env.push(("HOSTNAME".to_owned(), hostname(pod)));
    env.extend(image.env.iter().cloned());
    env
}

/// The longest name that a kernel takes.
const KERNEL_NAME_BYTES_MAX: usize = 64;
/// The longest label of a name.
const LABEL_BYTES_MAX: usize = 63;

/// The pod's host name: what `spec` says, else its name as far as that fits.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let given = |name: Option<&String>| name.filter(|name| !name.is_empty()).cloned();
    let of_spec = given(spec.and_then(|spec| spec.hostname_override.as_ref()))
        .or_else(|| given(spec.and_then(|spec| spec.hostname.as_ref())));
    of_spec.unwrap_or_else(|| {
        let mut name = pod.metadata.name.clone().unwrap_or_default();
        name.truncate(LABEL_BYTES_MAX);
        name.trim_end_matches(['-', '.']).to_owned()
    })
}

/// The pod's name in its subdomain, if it has one.
pub(crate) fn fqdn(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.hostname_override.is_some() {
        return None;
    }
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!(
        "{}.{subdomain}.{namespace}.svc.{cluster_domain}",
        hostname(pod)
    ))
}

/// What the kernel calls the pod: its host name, or the whole name where the pod asks for that.
///
/// # Errors
/// A whole name that is too long, in kubelet's words.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let wants_whole = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    match fqdn(pod, cluster_domain).filter(|_| wants_whole) {
        Some(fqdn) if fqdn.len() > KERNEL_NAME_BYTES_MAX => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} characters requested)",
            fqdn.len()
        )),
        Some(fqdn) => Ok(fqdn),
        None => Ok(hostname(pod)),
    }
}

fn args(
    container: &Container,
    image: &ImageDefaults,
    env: &[(String, String)],
) -> Result<Vec<String>, LaunchError> {
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let lookup = |name: &str| {
        env.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, lookup)).collect::<Vec<_>>();
    let mut all = if command.is_empty() {
        image.entrypoint.clone()
    } else {
        expanded(command)
    };
    match (command.is_empty(), args.is_empty()) {
        (_, false) => all.extend(expanded(args)),
        (true, true) => all.extend(image.cmd.clone()),
        (false, true) => {}
    }
    if all.is_empty() {
        Err(LaunchError::NoCommand)
    } else {
        Ok(all)
    }
}

fn supplemental_groups(context: &PodSecurityContext) -> Result<Vec<u32>, LaunchError> {
    let mut groups = Vec::new();
    for id in context.supplemental_groups.iter().flatten() {
        groups.push(group_id("supplementalGroups", *id)?);
    }
    if let Some(id) = context.fs_group {
        groups.push(group_id("fsGroup", id)?);
    }
    Ok(groups)
}

fn group_id(field: &'static str, id: i64) -> Result<u32, LaunchError> {
    u32::try_from(id).map_err(|_| LaunchError::Id { field, id })
}

/// What to add to the runtime's default set, and what to drop from it.
fn capabilities(privileged: bool, wanted: Option<&Capabilities>) -> (Vec<String>, Vec<String>) {
    if privileged {
        return (vec!["ALL".to_owned()], Vec::new());
    }
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    let wanted = wanted.cloned().unwrap_or_default();
    (list(wanted.add.as_ref()), list(wanted.drop.as_ref()))
}

#[cfg(test)]
mod tests;
