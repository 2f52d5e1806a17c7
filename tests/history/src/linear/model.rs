//! What operations on one key do to it.

use std::fmt;

use crate::operation::{Found, Object, Operation, Require, Revision};

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect<'a> {
    Put(&'a str),
    Delete,
}

/// What an answer says.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Write {
        require: Require,
        effect: Effect<'a>,
        revision: Option<Revision>,
    },
    Refused(Require, &'a Found),
    Read(Option<&'a Object>),
}

/// One operation, as the search sees it.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) invoked: u64,
    pub(super) ended: u64,
    /// Whether it surely happened.
    pub(super) is_mandatory: bool,
    pub(super) what: What<'a>,
    /// None of the last look.
    operation: Option<&'a Operation>,
}

impl<'a> Step<'a> {
    pub(super) fn mandatory(operation: &'a Operation, ended: u64, what: What<'a>) -> Self {
        Self {
            invoked: operation.invoked,
            ended,
            is_mandatory: true,
            what,
            operation: Some(operation),
        }
    }

    pub(super) fn optional(operation: &'a Operation, what: What<'a>) -> Self {
        Self {
            is_mandatory: false,
            ..Self::mandatory(operation, u64::MAX, what)
        }
    }

    /// The look at everything after all operations.
    pub(super) fn last(found: Option<&'a Object>) -> Self {
        Self {
            invoked: u64::MAX,
            ended: u64::MAX,
            is_mandatory: true,
            what: What::Read(found),
            operation: None,
        }
    }
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Live<'a> {
    Nothing,
    /// The object that a write made, and its revision if anybody saw that.
    Value(&'a str, Option<Revision>),
    /// An object that nobody ever saw.
    Unseen,
}

/// The key between two operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct State<'a> {
    pub(super) live: Live<'a>,
    /// The newest revision of its changes so far, among those that are known.
    pub(super) newest: Revision,
}

impl<'a> State<'a> {
    pub(super) fn new() -> Self {
        Self {
            live: Live::Nothing,
            newest: Revision(0),
        }
    }

    /// The state after a step; none when its answer does not fit.
    pub(super) fn after(self, step: &Step<'a>) -> Option<Self> {
        match step.what {
            What::Read(found) => (self.live == seen(found)).then_some(self),
            What::Refused(require, found) => {
                let fits = !self.holds(require) && self.is(found);
                fits.then_some(self)
            }
            What::Write {
                require,
                effect,
                revision,
            } => {
                let is_newer = revision.is_none_or(|revision| revision > self.newest);
                let live = self.changed(effect, revision, step.is_mandatory)?;
                (self.holds(require) && is_newer).then(|| Self {
                    live,
                    newest: revision.unwrap_or(self.newest),
                })
            }
        }
    }

    fn changed(self, effect: Effect<'a>, revision: Option<Revision>, is_mandatory: bool) -> Option<Live<'a>> {
        match effect {
            Effect::Delete => (self.live != Live::Nothing).then_some(Live::Nothing),
            // An optional write is one whose value nobody saw.
            Effect::Put(_) if !is_mandatory => Some(Live::Unseen),
            Effect::Put(value) => Some(Live::Value(value, revision)),
        }
    }

    fn holds(self, require: Require) -> bool {
        match require {
            Require::Anything => true,
            Require::Absent => self.live == Live::Nothing,
            Require::Present => self.live != Live::Nothing,
            Require::At(wanted) => {
                matches!(self.live, Live::Value(_, Some(revision)) if revision == wanted)
            }
        }
    }

    fn is(self, found: &Found) -> bool {
        match found {
            Found::Untold => true,
            Found::Nothing => self.live == Live::Nothing,
            Found::Something => self.live != Live::Nothing,
            Found::Object(object) => self.live == seen(Some(object)),
        }
    }
}

fn seen(found: Option<&Object>) -> Live<'_> {
    found.map_or(Live::Nothing, |object| {
        Live::Value(&object.value, Some(object.revision))
    })
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.operation, self.what) {
            (Some(operation), _) => operation.fmt(out),
            (None, What::Read(Some(object))) => write!(out, "the last look -> {object}"),
            (None, _) => out.write_str("the last look -> nothing there"),
        }
    }
}

impl fmt::Display for Live<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Live::Nothing => out.write_str("absent"),
            Live::Value(value, Some(revision)) => write!(out, "{value} at revision {revision}"),
            Live::Value(value, None) => out.write_str(value),
            Live::Unseen => out.write_str("what a write of unknown outcome made"),
        }
    }
}
