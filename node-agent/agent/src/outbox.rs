//! What the agent has to tell the leading server: the newest status of each pod, and events.
//!
//! *Guarantees*: the newest status of a pod and the news of its end are sent until they are acknowledged, on as many
//! sessions as it takes. Only the session that was opened last takes anything, so nothing leaves on one whose server
//! leads no longer. A status that is overtaken before it was sent never is. Events are told once, and dropped when too
//! many wait. Statuses of a static pod wait until it has a mirror, and are told of that; its events keep its own uid,
//! as clients expect.

mod statics;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use flotilla_lifecycle::Notice;
use flotilla_proto::node::{AgentMessage, EventReport, PodGone, PodReport, agent_message::Kind};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::statics::Statics;

/// Events that wait while no server leads; enough for a burst of thirty pods.
const EVENTS_MAX: usize = 512;

/// Shared by all pods' workers and the sessions.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<String, Waiting>,
    events: VecDeque<EventReport>,
    statics: Statics,
    sequence: u64,
    /// The session that takes what waits.
    reader: Option<u64>,
}

struct Waiting {
    namespace: String,
    name: String,
    status: Option<PodStatus>,
    is_gone: bool,
    /// The number of the newest news about this pod.
    sequence: u64,
    /// What was sent and not yet acknowledged. There is never more than one, for the server works on reports at the
    /// same time and might end with the older one.
    in_flight: Option<u64>,
    /// A passing state is told only if it lasts.
    not_before: Instant,
}

impl Outbox {
    /// Replaces the pod's status. It is sent once `hold` has passed without a newer one.
    pub(crate) fn status(&self, pod: &Pod, status: PodStatus, hold: Duration) {
        self.update(pod, hold, |waiting| waiting.status = Some(status));
    }

    /// The deleted pod has ended and left nothing behind.
    pub(crate) fn gone(&self, pod: &Pod) {
        self.update(pod, Duration::ZERO, |waiting| waiting.is_gone = true);
    }

    /// The mirror is not to be there any more. Said once, however often this is called.
    pub(crate) fn drop_mirror(&self, mirror: &Pod) {
        let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
        let known = self.lock().pods.get(uid).is_some_and(|waiting| waiting.is_gone);
        if !known {
            self.gone(mirror);
        }
    }

    /// The pod of this uid is a static one, and this is the uid of its mirror, if it has one.
    pub(crate) fn shown_by(&self, uid: &str, mirror: Option<String>) {
        self.lock().statics.shown_by(uid, mirror);
        self.news.notify_waiters();
    }

    /// Asks for a mirror of a static pod.
    pub(crate) fn want_mirror(&self, uid: &str, json: impl FnOnce() -> bytes::Bytes) {
        let mut inner = self.lock();
        let sequence = inner.sequence + 1;
        if inner.statics.want(uid, sequence, json) {
            inner.sequence = sequence;
            drop(inner);
            self.news.notify_waiters();
        }
    }

    /// Forgets the static pods that are not there any more.
    pub(crate) fn retain_statics(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().statics.retain(is_there);
    }

    fn update(&self, pod: &Pod, hold: Duration, change: impl FnOnce(&mut Waiting)) {
        let meta = &pod.metadata;
        let mut inner = self.lock();
        inner.sequence += 1;
        let sequence = inner.sequence;
        let waiting = inner
            .pods
            .entry(meta.uid.clone().unwrap_or_default())
            .or_insert_with(|| Waiting {
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                status: None,
                is_gone: false,
                sequence,
                in_flight: None,
                not_before: Instant::now(),
            });
        change(waiting);
        waiting.sequence = sequence;
        waiting.not_before = Instant::now() + hold;
        drop(inner);
        self.news.notify_waiters();
    }

    /// Adds an event about the node itself.
    pub(crate) fn node_event(&self, notice: Notice) {
        // Servers take an event that names no pod for one about the node.
        self.event(&Pod::default(), notice);
    }

    /// Adds an event about a pod.
    pub(crate) fn event(&self, pod: &Pod, notice: Notice) {
        let meta = &pod.metadata;
        let event = EventReport {
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod_name: meta.name.clone().unwrap_or_default(),
            pod_uid: meta.uid.clone().unwrap_or_default(),
            r#type: if notice.is_warning { "Warning" } else { "Normal" }.to_owned(),
            reason: notice.reason.into_owned(),
            message: notice.message,
            field_path: notice.field_path,
        };
        let mut inner = self.lock();
        if inner.events.len() == EVENTS_MAX {
            inner.events.pop_front();
            tracing::warn!("an event was dropped: no server takes them");
        }
        inner.events.push_back(event);
        drop(inner);
        self.news.notify_waiters();
    }

    /// From now on this session takes what waits. What was sent on another and not acknowledged is sent again.
    pub(crate) fn open(&self, session: u64) {
        let mut inner = self.lock();
        inner.reader = Some(session);
        inner
            .pods
            .values_mut()
            .for_each(|waiting| waiting.in_flight = None);
        inner.statics.lands_nowhere();
        drop(inner);
        self.news.notify_waiters();
    }

    /// What is due to be sent now, in order: statuses and ends, then events. Nothing, if another session takes it.
    pub(crate) fn take(&self, session: u64) -> Vec<AgentMessage> {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.reader != Some(session) {
            return Vec::new();
        }
        let Inner { pods, statics, .. } = &mut *inner;
        let mut messages = statics.take();
        for (uid, waiting) in pods.iter_mut() {
            let Some(uid) = statics.known_as(uid) else {
                continue;
            };
            if waiting.in_flight.is_none() && waiting.not_before <= now {
                waiting.in_flight = Some(waiting.sequence);
                messages.push(waiting.message(uid));
            }
        }
        messages.extend(inner.events.drain(..).map(Kind::Event));
        messages
            .into_iter()
            .map(|kind| AgentMessage { kind: Some(kind) })
            .collect()
    }

    /// Returns when something may be due on this session. Cancel safe: at worst it returns once too often.
    pub(crate) async fn due(&self, session: u64) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // From here on no news is missed, although nothing was looked at yet.
            news.as_mut().enable();
            let next = self.lock().next(session);
            match next {
                Some(at) if at <= Instant::now() => return,
                // Both arms only wait; dropping either loses nothing, the loop looks again.
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = news => {}
                },
                None => news.await,
            }
        }
    }

    /// Forgets what was acknowledged; returns the uid when that was a pod's end.
    pub(crate) fn acknowledge(&self, sequence: u64) -> Option<String> {
        let mut inner = self.lock();
        if inner.statics.acknowledge(sequence) {
            return None;
        }
        let (uid, waiting) = inner
            .pods
            .iter_mut()
            .find(|(_, waiting)| waiting.in_flight == Some(sequence))?;
        waiting.in_flight = None;
        if waiting.sequence != sequence {
            drop(inner);
            self.news.notify_waiters();
            return None;
        }
        let (uid, is_gone) = (uid.clone(), waiting.is_gone);
        inner.pods.remove(&uid);
        is_gone.then_some(uid)
    }

    /// Drops what waits about a pod that no server knows any more.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().pods.remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    /// When something is due on this session.
    fn next(&self, session: u64) -> Option<Instant> {
        if self.reader != Some(session) {
            return None;
        }
        if !self.events.is_empty() || self.statics.is_due() {
            return Some(Instant::now());
        }
        self.pods
            .iter()
            .filter(|(uid, waiting)| waiting.in_flight.is_none() && self.statics.known_as(uid).is_some())
            .map(|(_, waiting)| waiting.not_before)
            .min()
    }
}

impl Waiting {
    fn message(&self, uid: &str) -> Kind {
        let (namespace, name, uid) = (self.namespace.clone(), self.name.clone(), uid.to_owned());
        let sequence = self.sequence;
        match &self.status {
            Some(status) if !self.is_gone => {
                let status_json = serde_json::to_vec(status).expect("a status is plain data").into();
                Kind::Pod(PodReport {
                    namespace,
                    name,
                    uid,
                    status_json,
                    sequence,
                })
            }
            _ => Kind::PodGone(PodGone {
                namespace,
                name,
                uid,
                sequence,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"p","namespace":"n","uid":"{uid}"}}}}"#
        ))
        .unwrap()
    }

    fn status(phase: &str) -> PodStatus {
        PodStatus {
            phase: Some(phase.to_owned()),
            ..PodStatus::default()
        }
    }

    fn opened() -> Outbox {
        let outbox = Outbox::default();
        outbox.open(1);
        outbox
    }

    fn words(outbox: &Outbox) -> Vec<String> {
        let word = |message: AgentMessage| match message.kind {
            Some(Kind::Pod(report)) => {
                let status: PodStatus = serde_json::from_slice(&report.status_json).unwrap();
                format!("{} {} #{}", report.uid, status.phase.unwrap(), report.sequence)
            }
            Some(Kind::PodGone(gone)) => format!("{} gone #{}", gone.uid, gone.sequence),
            Some(Kind::Event(event)) => event.reason,
            Some(Kind::Mirror(mirror)) => format!("mirror #{}", mirror.sequence),
            other => format!("{other:?}"),
        };
        outbox.take(1).into_iter().map(word).collect()
    }

    #[test]
    fn only_the_newest_status_is_sent_and_only_once() {
        let outbox = opened();
        outbox.status(&pod("a"), status("Pending"), Duration::ZERO);
        outbox.status(&pod("a"), status("Running"), Duration::ZERO);
        assert_eq!(words(&outbox), ["a Running #2"]);
        assert!(words(&outbox).is_empty());
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_on_the_next_session() {
        let outbox = opened();
        outbox.status(&pod("a"), status("Running"), Duration::ZERO);
        outbox.status(&pod("b"), status("Running"), Duration::ZERO);
        words(&outbox);
        assert_eq!(outbox.acknowledge(1), None);
        outbox.open(1);
        assert_eq!(words(&outbox), ["b Running #2"]);
    }

    #[test]
    fn a_session_that_another_has_followed_takes_nothing() {
        let outbox = opened();
        outbox.gone(&pod("a"));
        outbox.open(2);
        assert!(words(&outbox).is_empty());
        assert_eq!(outbox.take(2).len(), 1);
    }

    #[test]
    fn a_newer_status_waits_for_the_acknowledgement_of_the_older() {
        let outbox = opened();
        outbox.status(&pod("a"), status("Pending"), Duration::ZERO);
        words(&outbox);
        outbox.status(&pod("a"), status("Running"), Duration::ZERO);
        assert!(words(&outbox).is_empty());
        assert_eq!(outbox.acknowledge(1), None);
        assert_eq!(words(&outbox), ["a Running #2"]);
    }

    #[test]
    fn the_end_overtakes_the_status_and_is_acknowledged_by_uid() {
        let outbox = opened();
        outbox.status(&pod("a"), status("Failed"), Duration::ZERO);
        outbox.gone(&pod("a"));
        assert_eq!(words(&outbox), ["a gone #2"]);
        assert_eq!(outbox.acknowledge(2).as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn a_passing_state_is_told_only_if_it_lasts() {
        let outbox = opened();
        outbox.status(&pod("a"), status("Pending"), Duration::from_millis(150));
        assert!(words(&outbox).is_empty());
        outbox.due(1).await;
        assert_eq!(words(&outbox), ["a Pending #1"]);
        outbox.acknowledge(1);
        outbox.status(&pod("a"), status("Pending"), Duration::from_millis(150));
        outbox.status(&pod("a"), status("Running"), Duration::ZERO);
        outbox.due(1).await;
        assert_eq!(words(&outbox), ["a Running #3"]);
    }

    #[tokio::test]
    async fn a_static_pod_is_told_of_under_the_uid_of_its_mirror() {
        let outbox = opened();
        outbox.shown_by("a", None);
        outbox.status(&pod("a"), status("Running"), Duration::ZERO);
        outbox.want_mirror("a", bytes::Bytes::new);
        outbox.want_mirror("a", bytes::Bytes::new);
        assert_eq!(words(&outbox), ["mirror #2"]);
        outbox.open(1);
        assert_eq!(words(&outbox), ["mirror #2"], "it was not acknowledged");
        assert_eq!(outbox.acknowledge(2), None);
        assert!(words(&outbox).is_empty());
        outbox.shown_by("a", Some("m".to_owned()));
        outbox.due(1).await;
        assert_eq!(words(&outbox), ["m Running #1"]);
        assert_eq!(outbox.acknowledge(1), None);
        outbox.drop_mirror(&pod("m"));
        assert_eq!(words(&outbox), ["m gone #3"]);
        outbox.drop_mirror(&pod("m"));
        assert!(words(&outbox).is_empty());
        assert_eq!(outbox.acknowledge(3).as_deref(), Some("m"));
    }

    #[test]
    fn events_are_bounded() {
        let outbox = opened();
        for _ in 0..EVENTS_MAX + 5 {
            outbox.event(&pod("a"), Notice::of_pod(false, "Started", String::new()));
        }
        assert_eq!(words(&outbox).len(), EVENTS_MAX);
    }
}
