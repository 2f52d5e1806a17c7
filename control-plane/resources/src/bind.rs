//! Binding pods to nodes, a batch in one proposal.

use std::{collections::BTreeSet, sync::Arc};

use flotilla_api::{Kind, Status, registry};
use flotilla_store::{
    Operation, Outcome, Require, Snapshot, Stored, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX,
};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    Resources,
    create::now,
    propose::{fenced, store_draft},
    resources::key,
};

/// One pod and the node that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid; another pod of that name is not bound. Empty: whichever.
    pub uid: String,
    /// The node's name.
    pub node: String,
}

impl Resources {
    /// Binds pods to nodes. One answer per binding, in their order; a pod that is bound already or is gone does
    /// not keep the others from being bound, nor does a node that is gone.
    pub async fn bind(&self, bindings: Vec<Binding>) -> Vec<Result<(), Status>> {
        let kind = registry().of::<Pod>();
        let snapshot = self.snapshot_with(kind, &bindings).await;
        let mut answers: Vec<Result<(), Status>> = bindings.iter().map(|_| Ok(())).collect();
        let mut pending: Vec<(usize, Operation)> = Vec::with_capacity(bindings.len());
        for (index, binding) in bindings.iter().enumerate() {
            match operation(kind, &snapshot, binding) {
                Ok(operation) => pending.push((index, operation)),
                Err(status) => answers[index] = Err(status),
            }
        }
        while !pending.is_empty() {
            let batch = &pending[..fitting(&pending)];
            let batch_size = batch.len();
            // A pod bound to a node that is no longer there would wait for ever.
            let nodes: BTreeSet<&str> = batch.iter().map(|(index, _)| &*bindings[*index].node).collect();
            let checks = nodes.iter().map(|node| Operation::Check {
                key: key(registry().of::<Node>(), "", node),
                require: Require::Present,
            });
            let operations = checks
                .chain(batch.iter().map(|(_, operation)| operation.clone()))
                .collect();
            match self.propose(operations).await {
                Ok(Outcome::Committed { .. }) => drop(pending.drain(..batch_size)),
                Ok(Outcome::Conflict { operation, .. }) if operation < nodes.len() => {
                    let gone = nodes.into_iter().nth(operation).unwrap_or_default();
                    refuse_node(&mut answers, &mut pending, &bindings, gone);
                }
                Ok(Outcome::Conflict {
                    operation: failed,
                    found,
                }) => {
                    let failed = failed - nodes.len();
                    let (index, _) = pending.remove(failed.min(pending.len() - 1));
                    match found
                        .map(|found| bound(kind, &found, &bindings[index]))
                        .transpose()
                    {
                        Ok(Some(operation)) => pending.push((index, operation)),
                        Ok(None) => answers[index] = Err(Status::not_found(kind, &bindings[index].name)),
                        Err(status) => answers[index] = Err(status),
                    }
                }
                Ok(Outcome::Fenced { term }) => return refuse_all(answers, &pending, &fenced(term)),
                Err(status) => return refuse_all(answers, &pending, &status),
            }
        }
        answers
    }
}

impl Resources {
    /// The local state if it has all the pods; else, unless there is no leader to ask, the newest one.
    async fn snapshot_with(&self, kind: &'static Kind, bindings: &[Binding]) -> Snapshot {
        let snapshot = self.replica.snapshot();
        let knows = |binding: &Binding| {
            snapshot
                .get(&key(kind, &binding.namespace, &binding.name))
                .is_some()
        };
        if bindings.iter().all(knows) {
            return snapshot;
        }
        self.read().await.unwrap_or(snapshot)
    }
}

/// How many of the first bindings go into one transaction: at least one, and with their nodes' checks no more than it may
/// hold.
fn fitting(pending: &[(usize, Operation)]) -> usize {
    let mut bytes = 0;
    let fitting = pending
        .iter()
        .take(TRANSACTION_OPERATIONS_MAX / 2)
        .take_while(|(_, operation)| {
            bytes += operation.bytes();
            bytes <= TRANSACTION_BYTES_MAX / 2
        });
    fitting.count().max(1)
}

/// Refuses all bindings to a node that is gone.
fn refuse_node(
    answers: &mut [Result<(), Status>],
    pending: &mut Vec<(usize, Operation)>,
    bindings: &[Binding],
    gone: &str,
) {
    let status = Status::not_found(registry().of::<Node>(), gone);
    for (index, _) in pending.extract_if(.., |(index, _)| bindings[*index].node == gone) {
        answers[index] = Err(status.clone());
    }
}

fn refuse_all(
    mut answers: Vec<Result<(), Status>>,
    pending: &[(usize, Operation)],
    status: &Status,
) -> Vec<Result<(), Status>> {
    for (index, _) in pending {
        answers[*index] = Err(status.clone());
    }
    answers
}

fn operation(kind: &'static Kind, snapshot: &Snapshot, binding: &Binding) -> Result<Operation, Status> {
    let found = snapshot.get(&key(kind, &binding.namespace, &binding.name));
    bound(
        kind,
        found.ok_or_else(|| Status::not_found(kind, &binding.name))?,
        binding,
    )
}

/// Stores the pod as bound, if it may be.
fn bound(kind: &'static Kind, found: &Arc<Stored>, binding: &Binding) -> Result<Operation, Status> {
    let refuse = |why: String| Err(Status::conflict(kind, &binding.name, &why));
    let mut pod: Pod = serde_json::from_slice(&found.json).map_err(Status::internal)?;
    if !binding.uid.is_empty() && pod.metadata.uid.as_deref() != Some(&binding.uid) {
        return refuse(format!(
            "Precondition failed: UID in precondition: {}",
            binding.uid
        ));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return refuse(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            binding.name
        ));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return refuse(format!(
            "pod {} is already assigned to node {node:?}",
            binding.name
        ));
    }
    spec.node_name = Some(binding.node.clone());
    note_scheduled(&mut pod, now());
    let put = Operation::Put {
        key: found.key.clone(),
        draft: store_draft(&pod),
        require: Require::Modified(found.modified),
    };
    // One that has become too large is refused by itself, not with all that are bound together with it.
    put.check_size().map_err(Status::too_large)?;
    Ok(put)
}

fn note_scheduled(pod: &mut Pod, now: Time) {
    let conditions = pod
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now),
        ..PodCondition::default()
    });
}
