//! Answers one query: from the records, the cache, or upstream.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use flotilla_report::report;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::answer::{self, Zone, kind_of, plain, set_code};
use crate::cache::{Answer, Cache};
use crate::forward;
use crate::records::{Lookup, Records};
use crate::upstreams::Upstreams;

/// As many names may stand for one another in a row.
const ALIASES_MAX: usize = 8;

pub(crate) struct Resolver {
    records: Arc<RwLock<Records>>,
    cache: Mutex<Cache>,
    upstreams: Mutex<Upstreams>,
}

/// What the records say of a query.
enum Found {
    /// All there is to say.
    Whole,
    /// The rest is upstream's, below this name.
    Upstream(Name),
}

impl Resolver {
    pub(crate) fn new(records: Arc<RwLock<Records>>, upstreams: Upstreams) -> Self {
        Self {
            records,
            cache: Mutex::default(),
            upstreams: Mutex::new(upstreams),
        }
    }

    /// The answer if nobody has to be asked for it.
    pub(crate) fn answer_at_once(&self, query: &Message) -> Result<Message, Pending> {
        let mut response = answer::response(query);
        if let Some(code) = answer::refusal(query) {
            set_code(&mut response, code);
            return Ok(response);
        }
        let question = query.queries[0].clone();
        match self.find(&question, &mut response) {
            Found::Whole => Ok(response),
            Found::Upstream(name) => {
                let dnssec_ok = query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
                let pending = Pending {
                    response,
                    name,
                    record_type: question.query_type(),
                    dnssec_ok,
                };
                self.answer_from_cache(pending)
            }
        }
    }

    /// The answer after asking upstream.
    pub(crate) async fn answer(&self, pending: Pending) -> Message {
        let Pending {
            mut response,
            name,
            record_type,
            dnssec_ok,
        } = pending;
        let servers = self
            .upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .servers(Instant::now());
        match forward::ask(&servers, &name, record_type, dnssec_ok).await {
            Ok(message) => {
                let found = Answer::of(message);
                if !dnssec_ok {
                    let key = (plain(&name), record_type);
                    self.cache().put(key, found.clone(), Instant::now());
                }
                merge(&mut response, found);
            }
            Err(error) => {
                tracing::debug!(name = %name, error = report(&error), "a name cannot be looked up");
                set_code(&mut response, ResponseCode::ServFail);
            }
        }
        response
    }

    fn answer_from_cache(&self, mut pending: Pending) -> Result<Message, Pending> {
        // Signatures are not kept.
        if pending.dnssec_ok {
            return Err(pending);
        }
        let key = (plain(&pending.name), pending.record_type);
        match self.cache().get(&key, Instant::now()) {
            Some(found) => {
                merge(&mut pending.response, found);
                Ok(pending.response)
            }
            None => Err(pending),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the records have to the answer.
    fn find(&self, question: &Query, response: &mut Message) -> Found {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let zone = Zone {
            domain: records.domain(),
            serial: records.serial(),
        };
        let kind = kind_of(question.query_type());
        let mut owner = question.name().clone();
        for _ in 0..ALIASES_MAX {
            match records.lookup(&plain(&owner), kind) {
                Lookup::Foreign => return Found::Upstream(owner),
                Lookup::Unknown => set_code(response, ResponseCode::ServFail),
                Lookup::Missing => {
                    response.metadata.authoritative = true;
                    set_code(response, ResponseCode::NXDomain);
                    response.add_authorities(zone.authority());
                }
                Lookup::Alias(target) => {
                    response.metadata.authoritative = true;
                    response.add_answers(answer::alias(&owner, &target));
                    match answer::name(&target) {
                        Some(next) if question.query_type() != RecordType::CNAME => {
                            owner = next;
                            continue;
                        }
                        _ => {}
                    }
                }
                Lookup::Found { mut values, extras } => {
                    response.metadata.authoritative = true;
                    if values.is_empty() {
                        response.add_authorities(zone.authority());
                    } else {
                        // Each client another first one: the usual way of spreading them.
                        let first = rand::random_range(0..values.len());
                        values.rotate_left(first);
                    }
                    response.add_answers(values.iter().filter_map(|value| zone.record(&owner, value)));
                    let extras = extras
                        .iter()
                        .filter_map(|(name, address)| answer::extra(name, *address));
                    response.add_additionals(extras);
                }
            }
            return Found::Whole;
        }
        set_code(response, ResponseCode::ServFail);
        Found::Whole
    }
}

/// A query that upstream has to be asked about.
pub(crate) struct Pending {
    response: Message,
    name: Name,
    record_type: RecordType,
    dnssec_ok: bool,
}

impl Pending {
    /// The answer when nobody can be asked.
    pub(crate) fn failed(mut self) -> Message {
        set_code(&mut self.response, ResponseCode::ServFail);
        self.response
    }
}

fn merge(response: &mut Message, found: Answer) {
    set_code(response, found.code);
    response.add_answers(found.answers);
    response.add_authorities(found.authorities);
}
