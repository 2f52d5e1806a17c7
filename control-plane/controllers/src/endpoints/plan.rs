//! Which slices to write so that they tell what is wanted, and no more of them than that takes. Pure.
//!
//! An endpoint stays in the slice that has it. So a change of one pod writes one slice, and a rolling update writes
//! those whose pods it replaces.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Endpoints of one slice.
const ENDPOINTS_MAX: usize = 100;
const IPV4: &str = "IPv4";

/// What all slices of an owner have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) namespace: String,
    /// Names of new slices begin with it.
    pub(super) base_name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owner: OwnerReference,
}

/// Endpoints that are reached at the same ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PortGroup {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(String),
}

/// Adds an endpoint to those with the same ports.
pub(super) fn group(groups: &mut Vec<PortGroup>, ports: Vec<EndpointPort>, endpoint: Endpoint) {
    match groups.iter_mut().find(|group| group.ports == ports) {
        Some(group) => group.endpoints.push(endpoint),
        None => groups.push(PortGroup {
            ports,
            endpoints: vec![endpoint],
        }),
    }
}

/// The writes that make the slices tell of these groups. There is always one slice, so that "none" can be told from
/// "not yet".
pub(super) fn plan(common: &Common, wanted: Vec<PortGroup>, present: &[&EndpointSlice]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut left: Vec<&EndpointSlice> = present.to_vec();
    left.retain(|slice| {
        let foreign = slice.address_type != IPV4;
        if foreign {
            steps.push(delete(slice));
        }
        !foreign
    });
    let mut wanted = wanted;
    if wanted.is_empty() {
        wanted.push(PortGroup::default());
    }
    for group in wanted {
        let (own, others) = left.into_iter().partition(|slice| ports_of(slice) == group.ports);
        left = others;
        plan_group(common, group, own, &mut left, &mut steps);
    }
    steps.extend(left.into_iter().map(delete));
    steps
}

/// Slices of other ports are taken over before new ones are made.
fn plan_group(
    common: &Common,
    group: PortGroup,
    own: Vec<&EndpointSlice>,
    others: &mut Vec<&EndpointSlice>,
    steps: &mut Vec<Step>,
) {
    // Of no endpoints, one slice tells.
    let mut keeps_one = group.endpoints.is_empty();
    let mut wanted: HashMap<Identity, Endpoint> = group
        .endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut drafts: Vec<Draft<'_>> = own
        .into_iter()
        .map(|slice| Draft::keep(slice, &mut wanted))
        .collect();
    let mut fresh: Vec<Endpoint> = wanted.into_values().collect();
    fresh.sort_by_key(identity);
    // Those that are written anyway first, then the fullest that has room for all.
    for draft in drafts.iter_mut().filter(|draft| draft.is_changed(common)) {
        draft.fill(&mut fresh);
    }
    let room =
        |draft: &&mut Draft<'_>| ENDPOINTS_MAX - draft.endpoints.len().min(ENDPOINTS_MAX) >= fresh.len();
    if !fresh.is_empty()
        && let Some(draft) = drafts
            .iter_mut()
            .filter(room)
            .max_by_key(|draft| draft.endpoints.len())
    {
        draft.fill(&mut fresh);
    }
    while !fresh.is_empty() {
        let mut draft = Draft::new(others.pop());
        draft.fill(&mut fresh);
        drafts.push(draft);
    }
    if drafts.is_empty() {
        drafts.push(Draft::new(others.pop()));
    }
    for draft in &drafts {
        match draft.slice {
            Some(slice) if draft.endpoints.is_empty() && !std::mem::take(&mut keeps_one) => {
                steps.push(delete(slice))
            }
            _ => steps.extend(draft.write(common, &group.ports)),
        }
    }
}

/// A slice as it is going to be.
struct Draft<'a> {
    /// None: it is new.
    slice: Option<&'a EndpointSlice>,
    endpoints: Vec<Endpoint>,
}

impl<'a> Draft<'a> {
    fn new(slice: Option<&'a EndpointSlice>) -> Self {
        Self {
            slice,
            endpoints: Vec::new(),
        }
    }

    /// The slice with those of its endpoints that are wanted, as they are now.
    fn keep(slice: &'a EndpointSlice, wanted: &mut HashMap<Identity, Endpoint>) -> Self {
        let kept = slice
            .endpoints
            .iter()
            .filter_map(|old| wanted.remove(&identity(old)));
        Self {
            endpoints: kept.collect(),
            slice: Some(slice),
        }
    }

    fn is_changed(&self, common: &Common) -> bool {
        self.slice
            .is_none_or(|slice| slice.endpoints != self.endpoints || !is_common(slice, common))
    }

    fn fill(&mut self, fresh: &mut Vec<Endpoint>) {
        let room = ENDPOINTS_MAX
            .saturating_sub(self.endpoints.len())
            .min(fresh.len());
        self.endpoints.extend(fresh.drain(..room));
    }

    fn write(&self, common: &Common, ports: &[EndpointPort]) -> Option<Step> {
        let mut slice = match self.slice {
            Some(slice) if !self.is_changed(common) && ports_of(slice) == ports => return None,
            Some(slice) => slice.clone(),
            None => EndpointSlice {
                address_type: IPV4.to_owned(),
                metadata: ObjectMeta {
                    namespace: Some(common.namespace.clone()),
                    generate_name: Some(format!("{}-", common.base_name)),
                    ..ObjectMeta::default()
                },
                ..EndpointSlice::default()
            },
        };
        slice.metadata.labels = Some(common.labels.clone());
        slice.metadata.owner_references = Some(vec![common.owner.clone()]);
        slice.ports = Some(ports.to_vec());
        slice.endpoints = self.endpoints.clone();
        Some(match self.slice {
            Some(_) => Step::Update(slice),
            None => Step::Create(slice),
        })
    }
}

/// An endpoint is the same one while its address and pod are.
type Identity = (Vec<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.uid.clone());
    (endpoint.addresses.clone(), pod)
}

fn ports_of(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

fn is_common(slice: &EndpointSlice, common: &Common) -> bool {
    let meta = &slice.metadata;
    meta.labels.as_ref() == Some(&common.labels)
        && meta.owner_references.as_deref() == Some(std::slice::from_ref(&common.owner))
}

fn delete(slice: &EndpointSlice) -> Step {
    Step::Delete(slice.metadata.name.clone().unwrap_or_default())
}
