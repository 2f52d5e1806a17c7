//! What one client asked, when, and what it was told.

use std::collections::BTreeMap;
use std::fmt;

/// A revision of the store: one counter for the whole cluster, one revision for each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What a write demands of what is there before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Require {
    /// No demand. A deletion of nothing is then [`Outcome::Unchanged`].
    Anything,
    /// There is nothing: a creation.
    Absent,
    /// There is an object.
    Present,
    /// There is an object, and this was its last change: compare-and-set. A client demands only what it was shown.
    At(Revision),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To create or replace an object.
    Put {
        /// Which one.
        key: String,
        /// A tag that no other write of this key has; it stands for the content.
        value: String,
        /// What must hold before.
        require: Require,
    },
    /// To remove an object.
    Delete {
        /// Which one.
        key: String,
        /// What must hold before.
        require: Require,
    },
    /// To read one object, as new as anything acknowledged before.
    Get {
        /// Which one.
        key: String,
    },
    /// To read all objects whose keys begin so, as new as anything acknowledged before.
    List {
        /// The beginning; empty for all.
        prefix: String,
    },
}

/// An object as it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The tag of the write that made it so.
    pub value: String,
    /// When that was.
    pub revision: Revision,
}

/// All objects under some prefix at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The moment.
    pub revision: Revision,
    /// The objects by key.
    pub objects: BTreeMap<String, Object>,
}

/// What a refused write met instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The refusal does not say.
    Untold,
    /// No object.
    Nothing,
    /// An object; the refusal does not say which.
    Something,
    /// This object.
    Object(Object),
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write was done, at this revision if the answer said it.
    Written(Option<Revision>),
    /// The deletion had nothing to do.
    Unchanged,
    /// What a get found.
    Read(Option<Object>),
    /// What a list found.
    Listed(Listing),
    /// Nothing was done, because the demand did not hold.
    Refused(Found),
    /// Nothing was done and nothing will be, for another reason; of a read: there was no answer.
    Failed,
    /// It may have been done, or may be done at any later time.
    Unknown,
}

/// One operation of one client. Times are of any one clock and unit; equal times count as simultaneous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// When it was sent.
    pub invoked: u64,
    /// When the answer came, or the client gave up.
    pub returned: u64,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

impl Operation {
    /// When it was over for certain: what is unknown may happen at any later time.
    pub(crate) fn ended(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            _ => self.returned,
        }
    }

    /// Whether it may have changed something.
    pub(crate) fn may_have_written(&self) -> bool {
        let is_write = matches!(self.action, Action::Put { .. } | Action::Delete { .. });
        is_write && matches!(self.outcome, Outcome::Written(_) | Outcome::Unknown)
    }
}

impl fmt::Display for Require {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Require::Anything => Ok(()),
            Require::Absent => out.write_str(" if it is absent"),
            Require::Present => out.write_str(" if it is there"),
            Require::At(revision) => write!(out, " if it is at revision {revision}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Put { key, value, require } => write!(out, "put {key}={value}{require}"),
            Action::Delete { key, require } => write!(out, "delete {key}{require}"),
            Action::Get { key } => write!(out, "get {key}"),
            Action::List { prefix } => write!(out, "list {prefix}*"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at revision {}", self.value, self.revision)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Untold => out.write_str("refused"),
            Found::Nothing => out.write_str("refused, there was nothing"),
            Found::Something => out.write_str("refused, there was something"),
            Found::Object(object) => write!(out, "refused, there was {object}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Written(Some(revision)) => write!(out, "done at revision {revision}"),
            Outcome::Written(None) => out.write_str("done"),
            Outcome::Unchanged => out.write_str("nothing to do"),
            Outcome::Read(Some(object)) => object.fmt(out),
            Outcome::Read(None) => out.write_str("nothing there"),
            Outcome::Listed(listing) => write!(
                out,
                "{} objects at revision {}",
                listing.objects.len(),
                listing.revision
            ),
            Outcome::Refused(found) => found.fmt(out),
            Outcome::Failed => out.write_str("failed"),
            Outcome::Unknown => out.write_str("unknown"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation {
            client,
            invoked,
            returned,
            action,
            outcome,
        } = self;
        write!(
            out,
            "client {client}, from {invoked} to {returned}: {action} -> {outcome}"
        )
    }
}
