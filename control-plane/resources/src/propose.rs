//! Carries transactions to the store and its answers back, and the compare-and-set loop that all changes share.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::{Kind, Object, Status, draft};
use flotilla_raft::ProposeError;
use flotilla_store::{Draft, Key, Operation, Outcome, Require, Snapshot, Stored, Transaction};

use crate::{Resources, WriteOptions};

/// So often a change is worked out anew on a state that others keep changing.
const ATTEMPTS_MAX: usize = 16;

/// What a change makes of the object that it found.
pub(crate) enum Change {
    /// It is as it should be.
    Keep,
    /// A new state.
    Put(Box<dyn Object>),
    /// It goes.
    Delete,
}

/// What became of a change.
pub(crate) enum Changed {
    /// The object's state now, perhaps the one it had.
    Object(Arc<Stored>),
    /// It is gone; this was its last state.
    Gone(Arc<Stored>),
}

impl Changed {
    pub(crate) fn into_object(self) -> Arc<Stored> {
        match self {
            Changed::Object(object) | Changed::Gone(object) => object,
        }
    }
}

impl Resources {
    /// A linearizable snapshot.
    pub(crate) async fn read(&self) -> Result<Snapshot, Status> {
        self.replica
            .read()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(crate) async fn propose(&self, operations: Vec<Operation>) -> Result<Outcome, Status> {
        let transaction = Transaction {
            operations,
            fence: self.fence,
        };
        self.replica
            .propose(transaction)
            .await
            .map_err(|error| match error {
                ProposeError::Unavailable(_) => Status::unavailable(error.to_string()),
                _ => Status::timeout(error.to_string()),
            })
    }

    /// Works out a change on the object's newest state and stores it if nobody changed the object meanwhile;
    /// otherwise once more.
    ///
    /// *Guarantees*: an error of `step` is returned only if it also holds for a linearizable read.
    pub(crate) async fn change(
        &self,
        kind: &'static Kind,
        key: &Key,
        options: &WriteOptions,
        mut step: impl FnMut(&Arc<Stored>) -> Result<Change, Status>,
    ) -> Result<Changed, Status> {
        // The local state is mostly the newest one; the compare-and-set tells if it was not.
        let (mut found, mut fresh) = match self.replica.snapshot().get(key).cloned() {
            Some(found) => (Some(found), false),
            None => (self.read().await?.get(key).cloned(), true),
        };
        for _ in 0..ATTEMPTS_MAX {
            let current = found.take().ok_or_else(|| Status::not_found(kind, &key.name))?;
            let change = match step(&current) {
                Ok(Change::Put(object)) => self.put(key, &current, &*object),
                Ok(Change::Delete) => Some(delete(key, &current)),
                Ok(Change::Keep) => None,
                Err(error) if fresh => return Err(error),
                Err(_) => {
                    found = self.read().await?.get(key).cloned();
                    fresh = true;
                    continue;
                }
            };
            let Some(operation) = change else {
                if fresh || self.is_newest(key, &current).await? {
                    return Ok(Changed::Object(current));
                }
                continue_with(&mut found, &mut fresh, self.read().await?.get(key).cloned());
                continue;
            };
            if options.dry_run {
                return Ok(imagined(key, &current, operation));
            }
            match self.commit(operation).await? {
                Ok(changed) => return Ok(changed),
                Err(newer) => continue_with(&mut found, &mut fresh, newer),
            }
        }
        Err(Status::modified(kind, &key.name))
    }

    /// Proposes one operation; `Ok(Err(state))` when the object was in another state.
    async fn commit(&self, operation: Operation) -> Result<Result<Changed, Option<Arc<Stored>>>, Status> {
        let deletes = matches!(operation, Operation::Delete { .. });
        match self.propose(vec![operation]).await? {
            Outcome::Committed { mut objects, .. } => {
                let object = objects
                    .pop()
                    .flatten()
                    .ok_or_else(|| Status::internal("the store answered without the object"))?;
                Ok(Ok(if deletes {
                    Changed::Gone(object)
                } else {
                    Changed::Object(object)
                }))
            }
            Outcome::Conflict { found, .. } => Ok(Err(found)),
            Outcome::Fenced { term } => Err(fenced(term)),
        }
    }

    /// The operation that stores `object`, unless it equals what is stored.
    fn put(&self, key: &Key, current: &Stored, object: &dyn Object) -> Option<Operation> {
        let draft = store_draft(object);
        let unchanged =
            Stored::from_draft(key.clone(), &draft, current.created, current.modified).json == current.json;
        let require = Require::Modified(current.modified);
        (!unchanged).then(|| Operation::Put {
            key: key.clone(),
            draft,
            require,
        })
    }

    /// Whether nothing newer than `current` is known to the cluster. On the leader the local state is nearly always.
    async fn is_newest(&self, key: &Key, current: &Stored) -> Result<bool, Status> {
        let newest = self.read().await?;
        Ok(newest
            .get(key)
            .is_some_and(|object| object.modified == current.modified))
    }
}

fn continue_with(found: &mut Option<Arc<Stored>>, fresh: &mut bool, newer: Option<Arc<Stored>>) {
    *found = newer;
    *fresh = true;
}

fn delete(key: &Key, current: &Stored) -> Operation {
    Operation::Delete {
        key: key.clone(),
        require: Require::Modified(current.modified),
    }
}

/// What a dry run answers: the state that would have been stored.
fn imagined(key: &Key, current: &Arc<Stored>, operation: Operation) -> Changed {
    match operation {
        Operation::Put { draft, .. } => Changed::Object(Arc::new(Stored::from_draft(
            key.clone(),
            &draft,
            current.created,
            current.modified,
        ))),
        _ => Changed::Gone(current.clone()),
    }
}

/// The object as it is proposed.
pub(crate) fn store_draft(object: &dyn Object) -> Draft {
    let (json, revision_at) = draft(object);
    Draft {
        json: Bytes::from(json),
        revision_at,
    }
}

/// The answer to a proposal of a leader that has been replaced.
pub(crate) fn fenced(term: u64) -> Status {
    Status::unavailable(format!("this replica no longer leads: term {term} has begun"))
}
