//! Static pods and the mirrors by which the control plane knows them.
//!
//! A mirror is assigned as any pod, but runs nothing: it says under which uid the static pod of its hash is to be
//! reported, logged and streamed. It is asked for when there is none, and given up when it is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_api::static_pods;
use flotilla_lifecycle::History;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Inner, Pods};
use crate::checkpoint::Checkpoint;

/// A static pod that runs, or that has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticPod {
    pub(crate) uid: String,
    /// With its namespace.
    pub(crate) name: String,
    /// The file that it is from.
    pub(crate) file: String,
    pub(crate) is_ending: bool,
}

impl Pods {
    /// The static pods of which something is left.
    pub(crate) fn statics(&self) -> Vec<StaticPod> {
        let inner = self.lock();
        let pod = |(uid, pod): (&String, Arc<Pod>)| StaticPod {
            uid: uid.clone(),
            name: full_name(&pod),
            file: static_pods::annotation(&pod, static_pods::FILE)
                .unwrap_or_default()
                .to_owned(),
            is_ending: pod.metadata.deletion_timestamp.is_some(),
        };
        statics(&inner).map(pod).collect()
    }

    /// Runs a static pod.
    pub(crate) fn run_static(&self, pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut inner = self.lock();
        let checkpoint = Checkpoint {
            status: PodStatus::default(),
            config_maps: BTreeMap::new(),
            secrets: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
            history: History {
                ended: self.rejection(&inner, &pod),
                ..History::default()
            },
            pod,
        };
        self.start(&mut inner, uid, checkpoint);
        self.settle_mirrors(&inner);
    }

    /// Ends a static pod within its grace.
    pub(crate) fn end_static(&self, uid: &str) {
        let inner = self.lock();
        let Some(entry) = inner.workers.get(uid) else {
            return;
        };
        entry.desired.send_modify(|desired| {
            let mut pod = (*desired.pod).clone();
            let grace = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.termination_grace_period_seconds);
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = grace;
            desired.pod = Arc::new(pod);
        });
    }

    /// Returns when a static pod has ended since this was last asked. Cancel safe.
    pub(crate) async fn static_ended(&self) {
        self.static_ended.notified().await;
    }

    /// Asks for the mirrors that are missing, and gives up those that are of no use.
    pub(crate) fn settle(&self) {
        self.settle_mirrors(&self.lock());
    }

    /// A mirror was assigned.
    pub(super) fn mirror(&self, inner: &mut Inner, uid: String, mut pod: Pod) {
        let known = pod.status.take().unwrap_or_default();
        let of = static_pods::mirror_of(&pod).unwrap_or_default().to_owned();
        let is_new = inner.mirrors.insert(uid, Arc::new(pod)).is_none();
        self.settle_mirrors(inner);
        if let Some(entry) = inner
            .workers
            .get(&of)
            .filter(|_| is_new || inner.syncing.is_some())
        {
            self.report_difference(entry, &known);
        }
    }

    /// A mirror is gone, if it was one.
    pub(super) fn mirror_gone(&self, inner: &mut Inner, uid: &str) {
        if inner.mirrors.remove(uid).is_some() {
            self.settle_mirrors(inner);
        }
    }

    /// The mirrors that the leader has named are all that there are.
    pub(super) fn mirrors_named(&self, inner: &mut Inner, named: &BTreeSet<String>) {
        inner.mirrors.retain(|uid, _| named.contains(uid));
        self.settle_mirrors(inner);
    }

    /// Which mirrors there are is known only once a leader has named them all.
    pub(super) fn settle_mirrors(&self, inner: &Inner) {
        let outbox = &self.surroundings.outbox;
        let there: Vec<(&String, Arc<Pod>)> = statics(inner).collect();
        outbox.retain_statics(|uid| there.iter().any(|(known, _)| *known == uid));
        if inner.source.is_none() || inner.syncing.is_some() {
            return;
        }
        for (uid, pod) in &there {
            let mirror = inner.mirrors.iter().find(|(_, mirror)| shows(mirror, uid));
            outbox.shown_by(uid, mirror.map(|(uid, _)| uid.clone()));
            if mirror.is_none() && pod.metadata.deletion_timestamp.is_none() {
                outbox.want_mirror(uid, || json(pod));
            }
        }
        for mirror in inner.mirrors.values() {
            let is_of_use = there.iter().any(|(uid, _)| shows(mirror, uid));
            if !is_of_use {
                outbox.drop_mirror(mirror);
            }
        }
    }
}

/// `NAMESPACE/NAME`.
pub(crate) fn full_name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// Whether the mirror shows this static pod and is to stay.
fn shows(mirror: &Pod, uid: &str) -> bool {
    static_pods::mirror_of(mirror) == Some(uid) && mirror.metadata.deletion_timestamp.is_none()
}

fn statics(inner: &Inner) -> impl Iterator<Item = (&String, Arc<Pod>)> {
    inner.workers.iter().filter_map(|(uid, entry)| {
        let pod = entry.desired.borrow().pod.clone();
        (!entry.desired.is_closed() && static_pods::is_static(&pod)).then_some((uid, pod))
    })
}

/// What a mirror looks like before the control plane completes it.
fn json(pod: &Pod) -> bytes::Bytes {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let hash = meta.uid.take().unwrap_or_default();
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(static_pods::MIRROR.to_owned(), hash);
    serde_json::to_vec(&mirror).expect("a pod is plain data").into()
}
