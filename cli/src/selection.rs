//! Which objects a command is about: `TYPE`, `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE`, `all`.
//!
//! Pure, given discovery.

use anyhow::bail;

use crate::discovery::{Discovery, Resource};

/// Objects of one kind; no names means all that the selectors let through.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    pub(crate) names: Vec<String>,
}

/// What a command line names.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) targets: Vec<Target>,
    /// Whether names are shown as `pod/web`, because several kinds were asked for.
    pub(crate) several_kinds: bool,
    /// Whether exactly one object was named.
    pub(crate) single: bool,
}

/// Reads the words of a command line.
pub(crate) fn select(discovery: &Discovery, words: &[String]) -> anyhow::Result<Selection> {
    let Some(first) = words.first() else {
        bail!(
            "You must specify the type of resource to get. `flotilla api-resources` lists what the server has."
        );
    };
    if words.iter().any(|word| word.contains('/')) {
        return by_slashes(discovery, words);
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut category = false;
    for word in first.split(',').filter(|word| !word.is_empty()) {
        let before = targets.len();
        targets.extend(discovery.category(word).map(|resource| Target {
            resource: resource.clone(),
            names: Vec::new(),
        }));
        category |= targets.len() > before;
        if targets.len() == before {
            targets.push(Target {
                resource: discovery.find(word)?.clone(),
                names: Vec::new(),
            });
        }
    }
    let names = &words[1..];
    if category && !names.is_empty() {
        bail!("a category such as \"{first}\" cannot be combined with names");
    }
    for target in &mut targets {
        target.names = names.to_vec();
    }
    let several_kinds = category || targets.len() > 1;
    Ok(Selection {
        single: targets.len() == 1 && names.len() == 1,
        several_kinds,
        targets,
    })
}

fn by_slashes(discovery: &Discovery, words: &[String]) -> anyhow::Result<Selection> {
    let mut targets: Vec<Target> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in \
                 resource/name form (e.g. 'flotilla get resource/<resource_name>' instead of \
                 'flotilla get resource resource/<resource_name>')"
            );
        };
        if kind.is_empty() || name.is_empty() || name.contains('/') {
            bail!("arguments in resource/name form must have a single resource and name");
        }
        let resource = discovery.find(kind)?;
        match targets.iter_mut().find(|target| &target.resource == resource) {
            Some(target) => target.names.push(name.to_owned()),
            None => targets.push(Target {
                resource: resource.clone(),
                names: vec![name.to_owned()],
            }),
        }
    }
    Ok(Selection {
        several_kinds: targets.len() > 1,
        single: words.len() == 1,
        targets,
    })
}
