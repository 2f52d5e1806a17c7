//! One client: one operation after the other, each through a server of its choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flotilla_history::{Action, Operation, Outcome, Require, Revision};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::api::{self, PREFIX};
use crate::caller::Caller;
use crate::shared::{OPERATION_LIMIT, Shared};

/// A server that did not answer is left alone for so long; otherwise all clients would soon wait for it.
const AVOIDED: Duration = Duration::from_secs(1);

/// What a client asks of the cluster, and what it remembers.
pub(crate) struct Client {
    number: u32,
    shared: Arc<Shared>,
    callers: Vec<Caller>,
    /// Until when each server is left alone.
    avoided: Vec<Option<Instant>>,
    dice: StdRng,
    /// The last revision of each key that it was shown; mostly others have changed the key since.
    known: BTreeMap<String, Revision>,
    written: u64,
    operations: Vec<Operation>,
}

impl Client {
    pub(crate) fn new(number: u32, shared: &Arc<Shared>) -> Self {
        Self {
            number,
            callers: shared.callers(),
            avoided: vec![None; shared.servers.len()],
            dice: StdRng::seed_from_u64(shared.plan.seed.wrapping_add(u64::from(number))),
            shared: Arc::clone(shared),
            known: BTreeMap::new(),
            written: 0,
            operations: Vec::new(),
        }
    }

    /// Works until the workload is stopped; what it asked and was told.
    pub(crate) async fn run(mut self) -> Vec<Operation> {
        while !self.shared.stop.is_cancelled() {
            let action = self.choose();
            let server = self.choose_server();
            let is_answered = {
                let outcome = &self.carry_out(action, server).await.outcome;
                !matches!(outcome, Outcome::Unknown | Outcome::Failed)
            };
            self.avoided[server] = (!is_answered).then(|| Instant::now() + AVOIDED);
            // Between operations, so nothing is cut off.
            let pause = tokio::time::sleep(self.shared.plan.pause);
            let _ = self.shared.stop.run_until_cancelled(pause).await;
        }
        self.operations
    }

    /// Carries out one action through one server, and writes it down.
    pub(crate) async fn carry_out(&mut self, action: Action, server: usize) -> &Operation {
        let call = api::call(&self.shared.plan.namespace, &action, &self.shared.filling);
        let invoked = self.shared.now();
        let caller = &mut self.callers[server];
        let answer = caller
            .ask(call.method, &call.path, call.body, OPERATION_LIMIT)
            .await;
        let outcome = api::outcome(&action, answer);
        let operation = Operation {
            client: self.number,
            invoked,
            returned: self.shared.now(),
            action,
            outcome,
        };
        self.learn(&operation);
        self.operations.push(operation);
        self.operations.last().expect("one was pushed")
    }

    /// What was asked so far.
    pub(crate) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// A put that creates a key of its own.
    pub(crate) fn creation(&mut self, name: &str) -> Action {
        let key = format!("{PREFIX}{name}");
        self.put(key, Require::Absent)
    }

    /// Any server, but those that have just failed only if all have.
    fn choose_server(&mut self) -> usize {
        let now = Instant::now();
        let is_good = |server: &usize| self.avoided[*server].is_none_or(|end| end <= now);
        let good: Vec<usize> = (0..self.callers.len()).filter(is_good).collect();
        let any = self.dice.random_range(0..self.callers.len());
        good.choose(&mut self.dice).copied().unwrap_or(any)
    }

    fn choose(&mut self) -> Action {
        let key = format!("{PREFIX}{}", self.dice.random_range(0..self.shared.plan.keys));
        let shown = self.known.get(&key).copied();
        match (self.dice.random_range(0..100), shown) {
            (0..15, _) => self.put(key, Require::Absent),
            (15..30, _) => self.put(key, Require::Present),
            (30..55, Some(revision)) => self.put(key, Require::At(revision)),
            (55..60, Some(revision)) => Action::Delete {
                key,
                require: Require::At(revision),
            },
            (60..65, _) => Action::Delete {
                key,
                require: Require::Present,
            },
            (65..75, _) => Action::List {
                prefix: PREFIX.to_owned(),
            },
            _ => Action::Get { key },
        }
    }

    fn put(&mut self, key: String, require: Require) -> Action {
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        Action::Put { key, value, require }
    }

    fn learn(&mut self, operation: &Operation) {
        match (&operation.action, &operation.outcome) {
            (Action::Put { key, .. }, Outcome::Written(Some(revision))) => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.known.insert(key.clone(), *revision);
            }
            (Action::Get { key }, Outcome::Read(Some(object))) => {
                self.known.insert(key.clone(), object.revision);
            }
            (_, Outcome::Listed(listing)) => {
                // Few at a time, so that some of what it knows is old.
                let shown: Vec<_> = listing.objects.iter().collect();
                if let Some((key, object)) = shown.choose(&mut self.dice) {
                    self.known.insert((*key).clone(), object.revision);
                }
            }
            _ => {}
        }
    }
}
