//! When an image is asked of a registry.

use k8s_openapi::api::core::v1::Container;

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// The registry is asked before every start.
    Always,
    /// The registry is asked when the image is not on the node.
    IfNotPresent,
    /// The image is on the node, or the container does not start.
    Never,
}

/// The container's policy; where it says nothing, `latest` is always pulled and everything else once.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some("Never") => PullPolicy::Never,
        _ if is_latest(container.image.as_deref().unwrap_or_default()) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, policy: Option<&str>, expected: PullPolicy) {
        let container = Container {
            image: Some(image.to_owned()),
            image_pull_policy: policy.map(str::to_owned),
            ..Container::default()
        };
        assert_eq!(pull_policy(&container), expected, "{image} {policy:?}");
    }

    #[test]
    fn latest_is_always_pulled_unless_the_pod_says_otherwise() {
        check("nginx", None, PullPolicy::Always);
        check("nginx:latest", None, PullPolicy::Always);
        check("localhost:5000/nginx", None, PullPolicy::Always);
        check("nginx:1", None, PullPolicy::IfNotPresent);
        check("nginx@sha256:abc", None, PullPolicy::IfNotPresent);
        check("nginx", Some("IfNotPresent"), PullPolicy::IfNotPresent);
        check("nginx:1", Some("Always"), PullPolicy::Always);
        check("nginx:1", Some("Never"), PullPolicy::Never);
    }
}
