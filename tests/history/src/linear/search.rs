//! The search for an order.

use std::collections::{BTreeMap, HashMap};

use super::model::{Effect, Live, State, Step, What};
use crate::operation::{Require, Revision};
use crate::violation::{Promise, Violation};

/// How many operations before the end of the longest order are shown.
const SHOWN_BEFORE: usize = 3;
/// How many operations that do not fit are shown.
const SHOWN_MAX: usize = 8;

/// How far an order has come, but for the optional steps in it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place<'a> {
    /// All mandatory steps before this one are in the order,
    first: usize,
    /// and these after it.
    beyond: Vec<usize>,
    state: State<'a>,
}

/// How far an order has come.
#[derive(Clone)]
struct Config<'a> {
    place: Place<'a>,
    /// Of these sorts of optional steps the first so many are in the order. Demands of a revision that has passed are
    /// forgotten: they cannot be met again.
    used: BTreeMap<Sort, usize>,
}

/// What may come next.
#[derive(Clone, Copy)]
enum Choice {
    Mandatory(usize),
    /// The next optional step of a sort.
    Optional(Sort),
}

/// What distinguishes optional writes: what they demand, and whether they remove.
type Sort = (Require, bool);

/// Where the search has been, and which optional steps it had used there. Whoever has used no fewer of any sort cannot
/// come further.
#[derive(Default)]
struct Seen<'a>(HashMap<Place<'a>, Vec<BTreeMap<Sort, usize>>>);

struct Search<'a> {
    /// Those that happened, by call.
    mandatory: Vec<Step<'a>>,
    /// Those that may have, by sort and call.
    optional: BTreeMap<Sort, Vec<Step<'a>>>,
    /// The known revisions of mandatory writes, in order.
    dated: Vec<Revision>,
}

struct Frame<'a> {
    config: Config<'a>,
    choices: Vec<Choice>,
    /// What led here.
    by: Option<Step<'a>>,
}

/// Looks for an order of all mandatory steps of a key, and of any of the others.
pub(super) fn search(key: &str, steps: Vec<Step<'_>>) -> Result<(), Violation> {
    let search = Search::new(steps);
    let start = Config {
        place: Place {
            first: 0,
            beyond: Vec::new(),
            state: State::new(),
        },
        used: BTreeMap::new(),
    };
    let (mut seen, mut longest) = (Seen::default(), Longest::default());
    let mut stack = vec![search.frame(start, None)];
    while let Some(frame) = stack.last_mut() {
        if frame.config.place.first == search.mandatory.len() {
            return Ok(());
        }
        let Some(choice) = frame.choices.pop() else {
            longest.note(&stack);
            stack.pop();
            continue;
        };
        if let Some((config, step)) = search.after(&frame.config, choice)
            && seen.is_new(&config)
        {
            stack.push(search.frame(config, Some(step)));
        }
    }
    Err(search.violation(key, &longest))
}

impl<'a> Seen<'a> {
    fn is_new(&mut self, config: &Config<'a>) -> bool {
        let known = self.0.entry(config.place.clone()).or_default();
        let is_known =
            |known: &BTreeMap<Sort, usize>| known.iter().all(|(sort, count)| *count <= config.used(sort));
        let is_new = !known.iter().any(is_known);
        if is_new {
            known.push(config.used.clone());
        }
        is_new
    }
}

impl<'a> Search<'a> {
    fn new(mut steps: Vec<Step<'a>>) -> Self {
        steps.sort_by_key(|step| step.invoked);
        let (mandatory, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.is_mandatory);
        let mut optional: BTreeMap<Sort, Vec<Step<'a>>> = BTreeMap::new();
        for step in others {
            if let What::Write { require, effect, .. } = step.what {
                let sort = (require, effect == Effect::Delete);
                optional.entry(sort).or_default().push(step);
            }
        }
        let revision = |step: &Step<'_>| match step.what {
            What::Write { revision, .. } => revision,
            What::Refused(..) | What::Read(_) => None,
        };
        let mut dated: Vec<Revision> = mandatory.iter().filter_map(revision).collect();
        dated.sort_unstable();
        Self {
            mandatory,
            optional,
            dated,
        }
    }

    fn frame(&self, config: Config<'a>, by: Option<Step<'a>>) -> Frame<'a> {
        let choices = self.choices(&config);
        Frame { config, choices, by }
    }

    /// Mandatory steps that are not in the order yet and were called before the first of them had ended; and that end.
    fn open(&self, place: &Place<'a>) -> (Vec<usize>, u64) {
        let (mut open, mut end) = (Vec::new(), u64::MAX);
        for (at, step) in self.mandatory.iter().enumerate().skip(place.first) {
            if step.invoked > end {
                break;
            }
            if place.beyond.binary_search(&at).is_err() {
                open.push(at);
                end = end.min(step.ended);
            }
        }
        // What was called after the end was only found out later.
        open.retain(|at| self.mandatory[*at].invoked <= end);
        (open, end)
    }

    /// What may come next, the likeliest last.
    fn choices(&self, config: &Config<'a>) -> Vec<Choice> {
        let state = config.place.state;
        let (open, end) = self.open(&config.place);
        let is_idle = |at: &&usize| {
            let step = &self.mandatory[**at];
            !matches!(step.what, What::Write { .. }) && state.after(step).is_some()
        };
        if let Some(at) = open.iter().find(is_idle) {
            return vec![Choice::Mandatory(*at)];
        }
        let next_date = self.dated.partition_point(|date| *date <= state.newest);
        let next_date = self.dated.get(next_date).copied();
        let is_next = |at: &usize| match self.mandatory[*at].what {
            What::Write { revision, .. } => revision.is_none() || revision == next_date,
            What::Refused(..) | What::Read(_) => false,
        };
        let mandatory = open.iter().rev().copied().filter(is_next);
        let optional = self.optional_choices(config, end).into_iter();
        optional.chain(mandatory.map(Choice::Mandatory)).collect()
    }

    fn optional_choices(&self, config: &Config<'a>, end: u64) -> Vec<Choice> {
        let mut requires = vec![Require::Anything, Require::Absent, Require::Present];
        if let Live::Value(_, Some(revision)) = config.place.state.live {
            requires.push(Require::At(revision));
        }
        let sorts = requires
            .into_iter()
            .flat_map(|require| [(require, false), (require, true)]);
        let is_there = |sort: &Sort| {
            let next = self
                .optional
                .get(sort)
                .and_then(|steps| steps.get(config.used(sort)));
            next.is_some_and(|step| step.invoked <= end)
        };
        sorts.filter(is_there).map(Choice::Optional).collect()
    }

    fn after(&self, config: &Config<'a>, choice: Choice) -> Option<(Config<'a>, Step<'a>)> {
        let step = match choice {
            Choice::Mandatory(at) => self.mandatory[at],
            Choice::Optional(sort) => self.optional[&sort][config.used(&sort)],
        };
        let state = config.place.state.after(&step)?;
        let mut next = config.clone();
        match choice {
            Choice::Optional(sort) => *next.used.entry(sort).or_default() += 1,
            Choice::Mandatory(at) => next.place.include(at),
        }
        if state.live != next.place.state.live {
            next.used
                .retain(|(require, _), _| !matches!(require, Require::At(_)));
        }
        next.place.state = state;
        Some((next, step))
    }

    fn violation(&self, key: &str, longest: &Longest<'a>) -> Violation {
        let Some((config, path)) = &longest.found else {
            return Violation::new(Promise::Linearizable, format!("{key} cannot be explained"), []);
        };
        let before = path.iter().map(|step| format!("before: {step}"));
        let here = format!("then {key} is {}, which does not fit:", config.place.state.live);
        let (open, _) = self.open(&config.place);
        let rest = open
            .iter()
            .take(SHOWN_MAX)
            .map(|at| self.mandatory[*at].to_string());
        let what = format!("no order of the operations on {key} explains their answers");
        let excerpt = before.chain([here]).chain(rest);
        Violation::new(Promise::Linearizable, what, excerpt)
    }
}

impl Config<'_> {
    fn used(&self, sort: &Sort) -> usize {
        self.used.get(sort).copied().unwrap_or(0)
    }
}

impl Place<'_> {
    fn include(&mut self, at: usize) {
        if at == self.first {
            self.first += 1;
            while self.beyond.first() == Some(&self.first) {
                self.beyond.remove(0);
                self.first += 1;
            }
        } else if let Err(place) = self.beyond.binary_search(&at) {
            self.beyond.insert(place, at);
        }
    }

    fn length(&self) -> usize {
        self.first + self.beyond.len()
    }
}

/// The order that explained most, and its end.
#[derive(Default)]
struct Longest<'a> {
    found: Option<(Config<'a>, Vec<Step<'a>>)>,
}

impl<'a> Longest<'a> {
    fn note(&mut self, stack: &[Frame<'a>]) {
        let Some(top) = stack.last() else { return };
        let known = self.found.as_ref().map(|(config, _)| config.place.length());
        if known.is_none_or(|known| known < top.config.place.length()) {
            let from = stack.len().saturating_sub(SHOWN_BEFORE);
            let path = stack[from..].iter().filter_map(|frame| frame.by).collect();
            self.found = Some((top.config.clone(), path));
        }
    }
}
