//! Answers from upstream, kept as long as they say. Pure: the time comes with each call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

/// Answers kept; some 300 bytes each.
const ENTRIES_MAX: usize = 4096;
/// Longer is not trusted.
const TTL_MAX: u32 = 3600;
/// That there is nothing is believed for a shorter time.
const NEGATIVE_TTL_MAX: u32 = 300;

/// What was asked: the name in lower case, and the type.
pub(crate) type Key = (String, RecordType);

/// What upstream said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
}

impl Answer {
    pub(crate) fn of(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            answers: message.answers,
            authorities: message.authorities,
        }
    }

    /// Seconds that it holds; none when it may not be kept.
    fn ttl(&self) -> Option<u32> {
        match self.code {
            ResponseCode::NoError if !self.answers.is_empty() => {
                let shortest = self.answers.iter().map(|record| record.ttl).min()?;
                Some(shortest.min(TTL_MAX))
            }
            // RFC 2308: as the zone's start says, and not at all without one.
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let ttls = self.authorities.iter().filter_map(|record| match &record.data {
                    RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                    _ => None,
                });
                ttls.min().map(|ttl| ttl.min(NEGATIVE_TTL_MAX))
            }
            _ => None,
        }
        .filter(|ttl| *ttl > 0)
    }

    fn aged(&self, seconds: u32) -> Self {
        let mut aged = self.clone();
        for record in aged.answers.iter_mut().chain(&mut aged.authorities) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        aged
    }
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    since: Instant,
    until: Instant,
}

/// Answers by question. Full, it lets the one go that would end first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Arc<Key>, Entry>,
    ends: BTreeSet<(Instant, Arc<Key>)>,
}

impl Cache {
    /// The answer if it still holds, with what is left of its times.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Answer> {
        let entry = self.entries.get(key).filter(|entry| now < entry.until)?;
        let age = now.saturating_duration_since(entry.since).as_secs();
        Some(entry.answer.aged(u32::try_from(age).unwrap_or(u32::MAX)))
    }

    pub(crate) fn put(&mut self, key: Key, answer: Answer, now: Instant) {
        let Some(ttl) = answer.ttl() else {
            return;
        };
        let key = Arc::new(key);
        let until = now + Duration::from_secs(ttl.into());
        let since = now;
        let entry = Entry { answer, since, until };
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.ends.remove(&(old.until, key.clone()));
        }
        self.ends.insert((until, key));
        while self.entries.len() > ENTRIES_MAX {
            let Some((_, first)) = self.ends.pop_first() else {
                return;
            };
            self.entries.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;
    use crate::answer::name;

    fn key(name: &str) -> Key {
        (name.to_owned(), RecordType::A)
    }

    fn address(ttl: u32) -> Answer {
        let record = Record::from_rdata(name("example.com").unwrap(), ttl, RData::A(A::new(1, 2, 3, 4)));
        Answer {
            code: ResponseCode::NoError,
            answers: vec![record],
            authorities: Vec::new(),
        }
    }

    fn nothing(code: ResponseCode, minimum: u32) -> Answer {
        let zone = name("example.com").unwrap();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, minimum);
        Answer {
            code,
            answers: Vec::new(),
            authorities: vec![Record::from_rdata(zone, 900, RData::SOA(soa))],
        }
    }

    #[test]
    fn answers_age_and_end() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.put(key("a"), address(30), start);
        let ttl = |cache: &Cache, now| cache.get(&key("a"), now).map(|found| found.answers[0].ttl);
        assert_eq!(ttl(&cache, at(10)), Some(20));
        assert_eq!(ttl(&cache, at(30)), None);
        cache.put(key("a"), address(60), at(40));
        assert_eq!(ttl(&cache, at(41)), Some(59));
    }

    #[test]
    fn that_there_is_nothing_is_kept_as_the_zone_says_and_trouble_not_at_all() {
        let start = Instant::now();
        for (answer, seconds) in [
            (nothing(ResponseCode::NXDomain, 60), 60),
            (nothing(ResponseCode::NoError, 9000), 300),
            (nothing(ResponseCode::NXDomain, 0), 0),
            (nothing(ResponseCode::ServFail, 60), 0),
            (
                Answer {
                    authorities: Vec::new(),
                    ..nothing(ResponseCode::NXDomain, 60)
                },
                0,
            ),
        ] {
            let mut cache = Cache::default();
            cache.put(key("a"), answer.clone(), start);
            let holds = |second| {
                cache
                    .get(&key("a"), start + Duration::from_secs(second))
                    .is_some()
            };
            assert_eq!(holds(seconds.max(1) - 1), seconds > 0, "{answer:?}");
            assert!(!holds(seconds), "{answer:?}");
        }
    }

    #[test]
    fn it_stays_small() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        for number in 0..ENTRIES_MAX + 10 {
            let ttl = u32::try_from(number).unwrap() % 1000 + 10;
            cache.put(key(&number.to_string()), address(ttl), start);
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert_eq!(cache.ends.len(), ENTRIES_MAX);
        assert!(cache.get(&key("0"), start).is_none(), "it would end first");
    }
}
