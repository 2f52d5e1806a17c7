//! How kubectl names an object in its messages: `deployment.apps/web`, `pod "web-1"`.

use crate::discovery::Resource;

/// `pod`, `deployment.apps`: the singular with its group.
pub(crate) fn qualified_singular(resource: &Resource) -> String {
    qualify(&resource.kind.to_lowercase(), &resource.group)
}

/// `pods`, `deployments.apps`.
pub(crate) fn qualified_plural(resource: &Resource) -> String {
    qualify(&resource.plural, &resource.group)
}

/// `pod/web-1`, `deployment.apps/web`.
pub(crate) fn slashed(resource: &Resource, name: &str) -> String {
    format!("{}/{name}", qualified_singular(resource))
}

fn qualify(word: &str, group: &str) -> String {
    if group.is_empty() {
        word.to_owned()
    } else {
        format!("{word}.{group}")
    }
}
