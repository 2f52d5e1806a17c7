//! One operation at one replica.

use flotilla_history::{Action, Found, Listing, Outcome, Revision};
use flotilla_raft::{CallError, ProposeError, Replica};
use flotilla_store::{Snapshot, Transaction};
use futures::FutureExt as _;

use crate::network::{CLIENTS, Network};
use crate::objects;

/// Does it at an address.
pub(crate) async fn perform(network: &Network, address: &str, action: Action, padding: usize) -> Outcome {
    let asked = action.clone();
    let call = network.call(CLIENTS, address, "client", move |target| {
        let asked = asked.clone();
        async move {
            Ok(match objects::transaction(&asked, padding) {
                Some(transaction) => write(&target.replica, transaction).await,
                None => read(&target.replica, &asked).await,
            })
        }
        .boxed()
    });
    match call.await {
        Ok(outcome) => outcome,
        Err(CallError::NotDelivered(_) | CallError::Refused(_) | CallError::LeftBehind(_)) => Outcome::Failed,
        Err(CallError::Unknown(_)) => unanswered(&action),
    }
}

/// What a client knows without an answer.
pub(super) fn unanswered(action: &Action) -> Outcome {
    match action {
        Action::Put { .. } | Action::Delete { .. } => Outcome::Unknown,
        Action::Get { .. } | Action::List { .. } => Outcome::Failed,
    }
}

async fn write(replica: &Replica, transaction: Transaction) -> Outcome {
    match replica.propose(transaction).await {
        Ok(flotilla_store::Outcome::Committed { objects, .. }) => match objects.first() {
            Some(Some(object)) => Outcome::Written(Some(Revision(object.modified.0))),
            _ => Outcome::Unchanged,
        },
        Ok(flotilla_store::Outcome::Conflict { found, .. }) => Outcome::Refused(match found {
            Some(found) => Found::Object(objects::shown(&found)),
            None => Found::Nothing,
        }),
        Ok(flotilla_store::Outcome::Fenced { .. }) => Outcome::Failed,
        Err(ProposeError::Unknown(_)) => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

async fn read(replica: &Replica, action: &Action) -> Outcome {
    let Ok(snapshot) = replica.read().await else {
        return Outcome::Failed;
    };
    match action {
        Action::Get { key } => {
            let object = snapshot.get(&objects::key(key));
            Outcome::Read(object.map(|object| objects::shown(object)))
        }
        Action::List { prefix } => Outcome::Listed(listing(&snapshot, prefix)),
        Action::Put { .. } | Action::Delete { .. } => Outcome::Failed,
    }
}

/// What a list shows of a state.
fn listing(snapshot: &Snapshot, prefix: &str) -> Listing {
    let (resource, namespace) = (objects::resource(), objects::namespace(prefix));
    let objects = snapshot.list(&resource, namespace.as_deref(), None);
    Listing {
        revision: Revision(snapshot.revision().0),
        objects: objects
            .map(|object| (objects::name(&object.key), objects::shown(object)))
            .collect(),
    }
}
