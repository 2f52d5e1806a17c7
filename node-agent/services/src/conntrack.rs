//! Ends what the kernel remembers of UDP flows to services whose endpoints have changed.
//!
//! A UDP client that goes on sending keeps its flow alive, and with it the way to an endpoint that is gone, or to
//! nowhere. TCP connections are left alone: they end by themselves.

use std::net::Ipv4Addr;

use nix::errno::Errno;

use crate::{Frontend, Protocol};
use flotilla_nftables::{Attributes, Messages, Netlink, NetlinkError, attributes};

const fn conntrack(message: u16) -> u16 {
    1 << 8 | message
}
const GET: u16 = conntrack(1);
const DELETE: u16 = conntrack(2);
const DUMP: u16 = 0x300;
const IPV4: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;

/// Where a flow comes from and goes to, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    protocol: u8,
}

/// Ends every UDP flow to a frontend that `is_stale` says is, by what the client connected to and what answers it.
/// Returns how many there were.
pub(crate) fn clear(
    netlink: &mut Netlink,
    is_stale: impl Fn(Frontend, (Ipv4Addr, u16)) -> bool,
) -> Result<usize, NetlinkError> {
    let mut request = Messages::default();
    request.add("the flows", GET, DUMP, IPV4, |_| {});
    let (mut deletions, mut count) = (Messages::default(), 0);
    netlink.dump(request, |flow| {
        if let Some((frontend, backend)) = udp_flow(flow)
            && is_stale(frontend, backend)
        {
            count += 1;
            deletions.add("a flow", DELETE, 0, IPV4, |attributes| {
                name_flow(flow, attributes)
            });
        }
    })?;
    // One that has ended meanwhile is what is wanted.
    netlink.request_all(deletions, Errno::ENOENT)?;
    Ok(count)
}

fn udp_flow(flow: &[u8]) -> Option<(Frontend, (Ipv4Addr, u16))> {
    let tuple = |wanted| {
        attributes(flow)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| tuple(value))
    };
    let (original, reply) = (tuple(TUPLE_ORIGINAL)?, tuple(TUPLE_REPLY)?);
    let (address, port) = original.destination;
    let frontend = Frontend {
        address,
        protocol: Protocol::Udp,
        port,
    };
    (original.protocol == Protocol::Udp.number()).then_some((frontend, reply.source))
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let part = |of: &'static [u16]| {
        let found = of.iter().try_fold(bytes, |bytes, wanted| {
            attributes(bytes)
                .find(|(kind, _)| kind == wanted)
                .map(|(_, value)| value)
        });
        found.map(<[u8]>::to_vec)
    };
    let address = |of| Some(Ipv4Addr::from(<[u8; 4]>::try_from(part(of)?).ok()?));
    let port = |of| Some(u16::from_be_bytes(part(of)?.try_into().ok()?));
    Some(Tuple {
        protocol: *part(&[2, 1])?.first()?,
        source: (address(&[1, 1])?, port(&[2, 2])?),
        destination: (address(&[1, 2])?, port(&[2, 3])?),
    })
}

/// What the kernel finds the flow by: its first direction and its zone, as it told them.
fn name_flow(flow: &[u8], to: &mut Attributes<'_>) {
    for (kind, value) in attributes(flow) {
        match kind {
            TUPLE_ORIGINAL => to.nest(kind, |tuple| {
                for (kind, value) in attributes(value) {
                    tuple.nest(kind, |part| {
                        attributes(value).for_each(|(kind, value)| part.bytes(kind, value))
                    });
                }
            }),
            ZONE => to.bytes(kind, value),
            _ => {}
        }
    }
}
