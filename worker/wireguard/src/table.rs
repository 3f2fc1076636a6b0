//! Who is reached by which address, and whose the packets of which session are: made anew with every change
//! of the settings, read by the threads without waiting.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::key::{KeyPair, PublicKey};
use crate::netlink::Prefix;
use crate::pair::{Keys, OwnKey, Pair};
use crate::peer::{Entry, Peer};

/// How long a pair that was taken out still receives what is on its way.
const DRAINS: Duration = Duration::from_secs(5);
const ID_MASK: u32 = 0x00ff_ffff;

/// Why peers or keys are refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TableError {
    #[error("set own keys: there has to be at least one")]
    NoOwnKey,
    #[error("set own keys: {0} is there twice")]
    OwnKeyTwice(PublicKey),
    #[error("set peers: {0} has no key")]
    NoKey(std::net::SocketAddr),
    #[error("set peers: {0} is no key")]
    BadKey(PublicKey),
    #[error("set peers: the key {0} belongs to two peers")]
    KeyTwice(PublicKey),
    #[error("set peers: the key {0} is one of our own")]
    OwnKeyOfPeer(PublicKey),
    #[error("set peers: the tunnel address {0} belongs to two peers")]
    AddressTwice(IpAddr),
    #[error("set peers: the tunnel address {0} is our own")]
    OwnAddress(IpAddr),
    #[error("set peers: the endpoint {0} is inside of the tunnel")]
    EndpointInside(std::net::SocketAddr),
    #[error("set peers: {0} is no address of a node")]
    BadEndpoint(std::net::SocketAddr),
}

/// All that the threads look up.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) own: Vec<Arc<OwnKey>>,
    pub(crate) entries: Vec<Entry>,
    by_address: HashMap<IpAddr, usize>,
    by_keys: HashMap<Keys, usize>,
    by_id: HashMap<u32, (Arc<Pair>, usize)>,
    /// Pairs that only receive, until then.
    retired: Vec<(Arc<Pair>, usize, Instant)>,
}

impl Table {
    /// The peer with this tunnel address.
    pub(crate) fn to(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(*self.by_address.get(&address)?)
    }

    /// The pair that a session belongs to.
    pub(crate) fn session(&self, index: u32) -> Option<(&Arc<Pair>, &Entry)> {
        let (pair, at) = self.by_id.get(&(index >> 8))?;
        Some((pair, self.entries.get(*at)?))
    }

    /// The pair of these keys, if handshakes between them are taken.
    pub(crate) fn pair(&self, keys: Keys) -> Option<(&Arc<Pair>, &Entry)> {
        let entry = self.entries.get(*self.by_keys.get(&keys)?)?;
        Some((entry.pairs.iter().find(|pair| pair.keys() == keys)?, entry))
    }

    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.retired.iter().any(|(_, _, until)| now >= *until)
    }
}

/// What the caller wants, and the ids that were given out.
pub(crate) struct Wanted {
    networks: Vec<Prefix>,
    own: Vec<KeyPair>,
    peers: Vec<Peer>,
    next_id: u32,
}

impl Wanted {
    /// `first_id`: where to begin with ids; another one in each process, so that packets of sessions before are
    /// not taken for those of new ones.
    pub(crate) fn new(networks: Vec<Prefix>, own: Vec<KeyPair>, first_id: u32) -> Result<Self, TableError> {
        check_own(&own)?;
        Ok(Wanted { networks, own, peers: Vec::new(), next_id: first_id & ID_MASK })
    }

    pub(crate) fn set_own(&mut self, own: Vec<KeyPair>) -> Result<(), TableError> {
        check_own(&own)?;
        check_peers(&self.peers, &own, &self.networks)?;
        self.own = own;
        Ok(())
    }

    pub(crate) fn set_peers(&mut self, peers: Vec<Peer>) -> Result<(), TableError> {
        check_peers(&peers, &self.own, &self.networks)?;
        self.peers = peers;
        Ok(())
    }

    /// The table of it, with all that is still wanted of the one before.
    pub(crate) fn table(&mut self, before: &Table, now: Instant) -> Table {
        let mut table = Table::default();
        for pair in &self.own {
            let known = before.own.iter().find(|own| own.pair.public() == pair.public());
            table.own.push(known.map_or_else(|| Arc::new(OwnKey::new(pair)), Arc::clone));
        }
        // a peer is the same if it has a key that it had
        let places = before.entries.iter().enumerate();
        let places: HashMap<PublicKey, usize> =
            places.flat_map(|(at, entry)| entry.peer.keys.iter().map(move |key| (*key, at))).collect();
        let mut place_before: HashMap<usize, usize> = HashMap::new();
        for (at, peer) in self.peers.clone().into_iter().enumerate() {
            let old_at = peer.keys.iter().find_map(|key| places.get(key).copied());
            if let Some(old_at) = old_at {
                place_before.entry(old_at).or_insert(at);
            }
            let keys = table.own.iter().flat_map(|own| peer.keys.iter().map(move |theirs| (own, *theirs)));
            let mut pairs = Vec::new();
            for (own, theirs) in keys {
                let known = before.pair((own.pair.public(), theirs)).map(|(pair, _)| Arc::clone(pair));
                pairs.push(known.unwrap_or_else(|| {
                    Arc::new(Pair::new(free_id(&mut self.next_id, before), Arc::clone(own), theirs))
                }));
            }
            for pair in &pairs {
                table.by_keys.insert(pair.keys(), at);
                table.by_id.insert(pair.id, (Arc::clone(pair), at));
            }
            table.by_address.extend(peer.tunnel_addrs.iter().map(|address| (*address, at)));
            table.entries.push(Entry::new(peer, pairs, old_at.and_then(|at| before.entries.get(at))));
        }
        retire(&mut table, before, &place_before, now);
        table
    }
}

/// Pairs that were taken out receive for a while longer, if their peer is still one.
fn retire(table: &mut Table, before: &Table, place: &HashMap<usize, usize>, now: Instant) {
    let kept = before.retired.iter().filter(|(_, _, until)| now < *until);
    let kept = kept.map(|(pair, at, until)| (pair, *at, *until));
    let fresh = before.entries.iter().enumerate().flat_map(|(at, entry)| {
        entry.pairs.iter().filter(|pair| pair.is_ready()).map(move |pair| (pair, at, now + DRAINS))
    });
    for (pair, at, until) in kept.chain(fresh) {
        if table.by_id.contains_key(&pair.id) {
            continue;
        }
        let Some(at) = place.get(&at) else { continue };
        table.by_id.insert(pair.id, (Arc::clone(pair), *at));
        table.retired.push((Arc::clone(pair), *at, until));
    }
}

fn free_id(next: &mut u32, before: &Table) -> u32 {
    loop {
        let id = *next;
        *next = (id + 1) & ID_MASK;
        if !before.by_id.contains_key(&id) {
            return id;
        }
    }
}

pub(crate) fn check_own(own: &[KeyPair]) -> Result<(), TableError> {
    let mut seen = HashSet::new();
    match own.iter().find(|pair| !seen.insert(pair.public())) {
        _ if own.is_empty() => Err(TableError::NoOwnKey),
        Some(twice) => Err(TableError::OwnKeyTwice(twice.public())),
        None => Ok(()),
    }
}

fn check_peers(peers: &[Peer], own: &[KeyPair], networks: &[Prefix]) -> Result<(), TableError> {
    let mut keys = HashSet::new();
    let mut addresses = HashSet::new();
    for peer in peers {
        let endpoint = peer.endpoint;
        if endpoint.ip().is_unspecified() || endpoint.ip().is_multicast() || endpoint.port() == 0 {
            return Err(TableError::BadEndpoint(endpoint));
        }
        if networks.iter().any(|network| holds(*network, endpoint.ip())) {
            return Err(TableError::EndpointInside(endpoint));
        }
        if peer.keys.is_empty() {
            return Err(TableError::NoKey(endpoint));
        }
        for key in &peer.keys {
            if !key.is_valid() {
                return Err(TableError::BadKey(*key));
            }
            if own.iter().any(|own| own.public() == *key) {
                return Err(TableError::OwnKeyOfPeer(*key));
            }
            if !keys.insert(*key) {
                return Err(TableError::KeyTwice(*key));
            }
        }
        for address in &peer.tunnel_addrs {
            if networks.iter().any(|(own, _)| own == address) {
                return Err(TableError::OwnAddress(*address));
            }
            if !addresses.insert(*address) {
                return Err(TableError::AddressTwice(*address));
            }
        }
    }
    Ok(())
}

/// Whether the network of this address holds another one.
pub(crate) fn holds((own, bits): Prefix, other: IpAddr) -> bool {
    let differ = match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests;
