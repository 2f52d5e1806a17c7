//! Carries transactions to the store and its answers back, and the compare-and-set loop that all changes share.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::{Kind, Object, Status, draft};
use flotilla_raft::{ProposeError, ReadError};
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

/// Why a proposal came to nothing.
enum Beaten {
    /// The object is in another state.
    ByChange(Option<Arc<Stored>>),
    /// Somebody else has taken what the object wanted for itself.
    ByClaim,
}

impl Resources {
    /// A linearizable snapshot.
    pub(crate) async fn read(&self) -> Result<Snapshot, Status> {
        self.replica.read().await.map_err(|error| read_failed(&error))
    }

    pub(crate) async fn propose(&self, operations: Vec<Operation>) -> Result<Outcome, Status> {
        let transaction = Transaction {
            operations,
            fence: self.fence,
        };
        let proposed = self.replica.propose(transaction).await;
        proposed.map_err(|error| match error {
            ProposeError::Unavailable(_) => Status::unavailable(error.to_string()),
            ProposeError::Unknown(_) => Status::timeout(error.to_string()),
            ProposeError::Overloaded => Status::too_many_requests(error.to_string()),
            ProposeError::TooLarge(_) => Status::too_large(error),
            ProposeError::NoSpace(_) => Status::insufficient_storage(error.to_string()),
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
                Ok(Change::Put(object)) => self.put(kind, key, &current, object),
                Ok(Change::Delete) => Ok(Some(self.delete_all(key, &current))),
                Ok(Change::Keep) => Ok(None),
                Err(error) => Err(error),
            };
            let operations = match change {
                Ok(operations) => operations,
                Err(error) if fresh => return Err(error),
                Err(_) => {
                    continue_with(&mut found, &mut fresh, self.read().await?.get(key).cloned());
                    continue;
                }
            };
            let Some(operations) = operations else {
                if fresh || self.is_newest(key, &current).await? {
                    return Ok(Changed::Object(current));
                }
                continue_with(&mut found, &mut fresh, self.read().await?.get(key).cloned());
                continue;
            };
            if options.dry_run {
                return Ok(imagined(key, &current, operations));
            }
            match self.commit(operations).await? {
                Ok(changed) => return Ok(changed),
                Err(Beaten::ByChange(newer)) => continue_with(&mut found, &mut fresh, newer),
                Err(Beaten::ByClaim) => {
                    continue_with(&mut found, &mut fresh, self.read().await?.get(key).cloned());
                }
            }
        }
        Err(Status::modified(kind, &key.name))
    }

    /// Proposes the object's operation and those that go with it.
    async fn commit(&self, operations: Vec<Operation>) -> Result<Result<Changed, Beaten>, Status> {
        let deletes = matches!(operations.first(), Some(Operation::Delete { .. }));
        match self.propose(operations).await? {
            Outcome::Committed { objects, .. } => {
                let object = objects
                    .into_iter()
                    .next()
                    .flatten()
                    .ok_or_else(|| Status::internal("the store answered without the object"))?;
                Ok(Ok(if deletes {
                    Changed::Gone(object)
                } else {
                    Changed::Object(object)
                }))
            }
            Outcome::Conflict { operation: 0, found } => Ok(Err(Beaten::ByChange(found))),
            Outcome::Conflict { .. } => Ok(Err(Beaten::ByClaim)),
            Outcome::Fenced { term } => Err(fenced(term)),
        }
    }

    /// The operations that store `object` and what it claims, unless it equals what is stored.
    fn put(
        &self,
        kind: &'static Kind,
        key: &Key,
        current: &Stored,
        mut object: Box<dyn Object>,
    ) -> Result<Option<Vec<Operation>>, Status> {
        let claims = self.claim(kind, Some(current), &mut *object)?;
        let draft = store_draft(&*object);
        let unchanged =
            Stored::from_draft(key.clone(), &draft, current.created, current.modified).json == current.json;
        if unchanged && claims.is_empty() {
            return Ok(None);
        }
        let put = Operation::Put {
            key: key.clone(),
            draft,
            require: Require::Modified(current.modified),
        };
        Ok(Some(std::iter::once(put).chain(claims).collect()))
    }

    /// The operations that remove an object and what it had claimed.
    fn delete_all(&self, key: &Key, current: &Stored) -> Vec<Operation> {
        std::iter::once(delete(key, current))
            .chain(self.unclaim(current))
            .collect()
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
fn imagined(key: &Key, current: &Arc<Stored>, operations: Vec<Operation>) -> Changed {
    match operations.into_iter().next() {
        Some(Operation::Put { draft, .. }) => Changed::Object(Arc::new(Stored::from_draft(
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

/// Why there is no linearizable read.
pub fn read_failed(error: &ReadError) -> Status {
    match error {
        ReadError::Unavailable(_) => Status::unavailable(error.to_string()),
        ReadError::Overloaded => Status::too_many_requests(error.to_string()),
    }
}

/// The answer to a proposal of a leader that has been replaced.
pub(crate) fn fenced(term: u64) -> Status {
    Status::unavailable(format!("this replica no longer leads: term {term} has begun"))
}
