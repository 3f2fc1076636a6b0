//! Connections that the kernel tracks (ctnetlink): counting them, forgetting them, and noticing that there
//! is no room for more.

use std::net::IpAddr;

use nix::errno::Errno;

use crate::kernel::Connections;
use crate::netlink::{Buffer, Writer, attributes, attributes_after, be32, find};
use crate::route;
use crate::socket::{Refusal, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const GET_STATS_CPU: u16 = SUBSYSTEM | 4;
const GET_STATS: u16 = SUBSYSTEM | 5;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// A connection that is tracked: enough to find it again.
#[derive(Debug, Default)]
struct Entry {
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    is_established: bool,
}

fn head(addr: IpAddr) -> [u8; 4] {
    [if addr.is_ipv4() { 2 } else { 10 }, 0, 0, 0]
}

/// Connections whose answers come from `addr`. The kernel picks them, if it can; we look anyway.
fn of(socket: &mut Socket, addr: IpAddr) -> Result<Vec<Entry>, Refusal> {
    let ask = |w: &mut Writer<'_>| {
        const SOURCE: u32 = 1;
        w.fixed(&head(addr));
        w.nest(REPLY, |w| {
            w.nest(1, |w| match addr {
                IpAddr::V4(addr) => w.bytes(1, &addr.octets()),
                IpAddr::V6(addr) => w.bytes(3, &addr.octets()),
            });
        });
        w.nest(FILTER, |w| {
            w.u32(1, 0);
            w.u32(2, SOURCE);
        });
    };
    match socket.dump(GET, ask, |body| read(body, addr)) {
        // kernels before 5.8 do not pick
        Err(why) if matches!(why.errno, Errno::EINVAL | Errno::EOPNOTSUPP) => {
            socket.dump(GET, |w| w.fixed(&head(addr)), |body| read(body, addr))
        }
        other => other,
    }
}

fn read(body: &[u8], addr: IpAddr) -> Option<Entry> {
    const ANSWERED: u32 = 2;
    const TCP_ESTABLISHED: u8 = 3;
    let (mut entry, mut source, mut is_answered, mut tcp) = (Entry::default(), None, false, None);
    for (kind, value) in attributes_after(body, 4) {
        match kind {
            ORIGINAL => entry.original = value.to_vec(),
            REPLY => source = find(value, 1).and_then(reply_source),
            STATUS => is_answered = be32(value) & ANSWERED != 0,
            PROTOCOL_STATE => {
                tcp = find(value, 1).and_then(|tcp| find(tcp, 1)).and_then(|s| s.first().copied())
            }
            ID => entry.id = Some(value.to_vec()),
            ZONE => entry.zone = Some(value.to_vec()),
            _ => {}
        }
    }
    entry.is_established = tcp.map_or(is_answered, |state| state == TCP_ESTABLISHED);
    (source == Some(addr)).then_some(entry)
}

fn reply_source(addresses: &[u8]) -> Option<IpAddr> {
    attributes(addresses).find(|(kind, _)| matches!(kind, 1 | 3)).and_then(|(_, value)| route::addr(value))
}

/// Counts connections whose answers come from `addr`.
pub(crate) fn count(socket: &mut Socket, addr: IpAddr) -> Result<Connections, Refusal> {
    let entries = of(socket, addr)?;
    let established = entries.iter().filter(|entry| entry.is_established).count();
    Ok(Connections { established: established as u64, all: entries.len() as u64 })
}

/// Forgets connections whose answers come from `addr`; how many there were.
pub(crate) fn forget(socket: &mut Socket, addr: IpAddr) -> std::io::Result<u64> {
    let mut requests = Buffer::default();
    for entry in of(socket, addr)? {
        requests.message(DELETE, 0, |w| {
            w.fixed(&head(addr));
            w.nest(ORIGINAL, |w| w.raw(&entry.original));
            entry.zone.iter().for_each(|zone| w.bytes(ZONE, zone));
            // the id makes sure that it is the same one, not one that has taken its place
            entry.id.iter().for_each(|id| w.bytes(ID, id));
        });
    }
    let refused = socket.send_all(&mut requests)?;
    let gone = refused.iter().filter(|(_, why)| why.errno == Errno::ENOENT).count();
    match refused.into_iter().find(|(_, why)| why.errno != Errno::ENOENT) {
        Some((_, why)) => Err(why.into()),
        None => Ok((requests.len() - gone) as u64),
    }
}

/// How full the table of connections of a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) entries: u64,
    pub(crate) most: u64,
    /// Packets dropped for want of an entry, since the namespace was made.
    pub(crate) dropped: u64,
}

pub(crate) fn load(socket: &mut Socket) -> Result<Load, Refusal> {
    const DROP: u16 = 10;
    let mut load = Load::default();
    socket.ask(
        GET_STATS,
        0,
        |w| w.fixed(&[0; 4]),
        |message| {
            for (kind, value) in attributes_after(message.body, 4) {
                match kind {
                    1 => load.entries = u64::from(be32(value)),
                    2 => load.most = u64::from(be32(value)),
                    _ => {}
                }
            }
        },
    )?;
    let drops = socket.dump(
        GET_STATS_CPU,
        |w| w.fixed(&[0; 4]),
        |body| {
            attributes_after(body, 4).find(|(kind, _)| *kind == DROP).map(|(_, value)| u64::from(be32(value)))
        },
    )?;
    load.dropped = drops.iter().sum();
    Ok(load)
}

impl Load {
    /// Whether there is no room; `before`: packets that had been dropped when last looked.
    pub(crate) fn is_full(&self, before: Option<u64>) -> bool {
        let is_dropping = before.is_some_and(|before| self.dropped > before);
        is_dropping || (self.most > 0 && self.entries >= self.most)
    }

    /// What is wrong with it, if something is; `full`: there was no room for a connection just now. The
    /// words stay the same as long as the trouble does: each change of them is told to the managers.
    pub(crate) fn complaint(&self, full: bool) -> Option<String> {
        const NEARLY: u64 = 95;
        let Load { entries, most, .. } = *self;
        let advice = "raise net.netfilter.nf_conntrack_max on the machine (it is one limit for each of its \
                      network namespaces), or lower net.netfilter.nf_conntrack_tcp_timeout_time_wait";
        if full {
            return Some(format!(
                "the table of tracked connections is full (it has room for {most}): packets of new connections \
                 are dropped; {advice}"
            ));
        }
        let is_nearly_full = most > 0 && entries * 100 >= most * NEARLY;
        is_nearly_full.then(|| {
            format!(
                "the table of tracked connections is nearly full ({NEARLY} % of {most} or more); {advice}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&body, IpAddr::from([1, 2, 3, 4])));
        }
    }

    #[test]
    fn a_full_table_is_a_complaint() {
        let load = Load { entries: 10, most: 100, dropped: 5 };
        assert!(!load.is_full(None) && !load.is_full(Some(5)) && load.is_full(Some(3)));
        assert_eq!(load.complaint(false), None);
        assert!(load.complaint(true).is_some_and(|text| text.contains("is full")));
        let nearly = Load { entries: 96, ..load };
        assert!(!nearly.is_full(Some(5)) && nearly.complaint(false).is_some_and(|t| t.contains("nearly")));
        assert!(Load { entries: 100, ..load }.is_full(None));
    }
}
