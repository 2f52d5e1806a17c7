//! From what was found to the message that goes back. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::question::RecordKind;
use crate::records::Value;

/// Seconds that an answer about the cluster may be kept: short, since services come and go.
pub(crate) const TTL_SECONDS: u32 = 5;
/// Bytes of an answer over UDP that every path carries whole.
pub(crate) const PAYLOAD_MAX: u16 = 1232;
/// Bytes of an answer to who does not say what it can take.
const PAYLOAD_PLAIN: u16 = 512;

/// The kind of records that a query asks for.
pub(crate) fn kind_of(record_type: RecordType) -> RecordKind {
    match record_type {
        // Of everything that a name has, its addresses (RFC 8482 allows a part).
        RecordType::A | RecordType::ANY => RecordKind::A,
        RecordType::AAAA => RecordKind::Aaaa,
        RecordType::SRV => RecordKind::Srv,
        RecordType::PTR => RecordKind::Ptr,
        RecordType::CNAME => RecordKind::Cname,
        RecordType::TXT => RecordKind::Txt,
        RecordType::NS => RecordKind::Ns,
        RecordType::SOA => RecordKind::Soa,
        _ => RecordKind::Other,
    }
}

/// The zone that answers are given for.
pub(crate) struct Zone<'a> {
    pub(crate) domain: &'a str,
    pub(crate) serial: u32,
}

impl Zone<'_> {
    /// Goes with every answer that there is nothing.
    pub(crate) fn authority(&self) -> Option<Record> {
        let apex = name(self.domain)?;
        Some(Record::from_rdata(apex, TTL_SECONDS, self.start()?))
    }

    fn start(&self) -> Option<RData> {
        let below = |label: &str| name(&format!("{label}.{}", self.domain));
        let (server, person) = (below("ns.dns")?, below("hostmaster")?);
        let soa = SOA::new(server, person, self.serial, 7200, 1800, 86_400, TTL_SECONDS);
        Some(RData::SOA(soa))
    }

    /// The record of a value; none where a name is too long for one.
    pub(crate) fn record(&self, owner: &Name, value: &Value) -> Option<Record> {
        let data = match value {
            Value::Address(address) => address_data(*address),
            Value::Service { port, target } => RData::SRV(SRV::new(0, 100, *port, name(target)?)),
            Value::Name(target) => RData::PTR(PTR(name(target)?)),
            Value::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
            Value::NameServer => RData::NS(NS(name(&format!("ns.dns.{}", self.domain))?)),
            Value::Zone => self.start()?,
        };
        Some(Record::from_rdata(owner.clone(), TTL_SECONDS, data))
    }
}

/// The record that says that a name stands for another one.
pub(crate) fn alias(owner: &Name, target: &str) -> Option<Record> {
    let data = RData::CNAME(CNAME(name(target)?));
    Some(Record::from_rdata(owner.clone(), TTL_SECONDS, data))
}

/// An address of a name that stands in another record.
pub(crate) fn extra(owner: &str, address: IpAddr) -> Option<Record> {
    Some(Record::from_rdata(
        name(owner)?,
        TTL_SECONDS,
        address_data(address),
    ))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// A name that ends with its dot.
pub(crate) fn name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name in lower case and without its last dot.
pub(crate) fn plain(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// An answer that repeats the question and says nothing else yet.
pub(crate) fn response(query: &Message) -> Message {
    let mut response = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_MAX).set_version(0);
        response.set_edns(edns);
    }
    response
}

/// Why a query is not looked at; none when it is.
pub(crate) fn refusal(query: &Message) -> Option<ResponseCode> {
    match query {
        _ if query.metadata.op_code != OpCode::Query => Some(ResponseCode::NotImp),
        _ if query.queries.len() != 1 => Some(ResponseCode::FormErr),
        Message { edns: Some(edns), .. } if edns.version() > 0 => Some(ResponseCode::BADVERS),
        _ => None,
    }
}

/// Sets the code, of which the upper bits travel with EDNS.
pub(crate) fn set_code(response: &mut Message, code: ResponseCode) {
    response.metadata.response_code = code;
    if let Some(edns) = &mut response.edns {
        edns.set_rcode_high(code.high());
    }
}

/// The bytes of an answer: over UDP at most as many as the client takes, else none and the wish to come by TCP.
pub(crate) fn encode(query: &Message, response: &Message, is_datagram: bool) -> Option<Vec<u8>> {
    let bytes = response.to_vec().ok()?;
    let asked = query.edns.as_ref().map_or(PAYLOAD_PLAIN, Edns::max_payload);
    let limit = asked.clamp(PAYLOAD_PLAIN, PAYLOAD_MAX);
    if !is_datagram || bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    response.truncate().to_vec().ok()
}
