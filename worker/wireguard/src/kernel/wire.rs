//! The kernel's WireGuard over generic netlink: one device, its key and its peers
//! (`include/uapi/linux/wireguard.h` of Linux).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::Moment;
use crate::key::{KEY_LEN, KeyPair, PublicKey};
use crate::netlink::{GENERIC, Message, Netlink, attributes, octets, u16_at};

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const VERSION: u8 = 1;

const DEVICE_NAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_HANDSHAKE: u16 = 6;
const PEER_ALLOWED: u16 = 9;

const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_BITS: u16 = 3;

const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;

const NESTED: u16 = 1 << 15;
/// Of an attribute's kind, without what says how its content is laid out.
const KIND: u16 = 0x3fff;

/// What a device has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Device {
    pub(super) own: Option<PublicKey>,
    pub(super) port: u16,
    pub(super) peers: BTreeMap<PublicKey, PeerState>,
}

/// A key of a peer's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PeerState {
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) handshake: Moment,
    /// With the lengths of their prefixes.
    pub(super) addrs: Vec<(IpAddr, u8)>,
}

impl PeerState {
    pub(super) fn has_exactly(&self, addrs: &[IpAddr]) -> bool {
        let single = |(addr, bits): &(IpAddr, u8)| *bits == bits_of(*addr) && addrs.contains(addr);
        self.addrs.len() == addrs.len() && self.addrs.iter().all(single)
    }
}

/// What is to be different of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerChange {
    pub(super) key: PublicKey,
    pub(super) remove: bool,
    pub(super) is_new: bool,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) addrs: Option<Vec<IpAddr>>,
    /// Seconds.
    pub(super) keepalive: Option<u16>,
}

impl PeerChange {
    pub(super) fn of(key: PublicKey) -> Self {
        Self { key, remove: false, is_new: false, endpoint: None, addrs: None, keepalive: None }
    }

    pub(super) fn says_anything(&self) -> bool {
        *self != Self::of(self.key)
    }
}

/// A conversation about devices.
pub(super) struct Wire {
    netlink: Netlink,
    family: u16,
}

impl Wire {
    pub(super) fn open(family: u16) -> io::Result<Self> {
        Ok(Self { netlink: Netlink::generic()?, family })
    }

    fn message(&self, command: u8, flags: libc::c_int, device: &str) -> Message {
        let message = Message::new(self.family, flags).raw(&[command, VERSION, 0, 0]);
        message.attribute(DEVICE_NAME, &[device.as_bytes(), &[0]].concat())
    }

    /// A large device comes in parts.
    pub(super) fn device(&self, name: &str) -> io::Result<Device> {
        let parts = self.netlink.ask(self.message(GET_DEVICE, libc::NLM_F_DUMP, name))?;
        let mut device = Device::default();
        parts.iter().filter_map(|part| part.get(GENERIC..)).for_each(|part| read(part, &mut device));
        Ok(device)
    }

    pub(super) fn set_device(&self, name: &str, own: &KeyPair, port: u16) -> io::Result<()> {
        let message = self.message(SET_DEVICE, 0, name);
        let message = message.attribute(DEVICE_PRIVATE_KEY, own.secret().as_slice());
        self.netlink.ask(message.attribute(DEVICE_LISTEN_PORT, &port.to_ne_bytes())).map(drop)
    }

    pub(super) fn set_peer(&self, name: &str, change: &PeerChange) -> io::Result<()> {
        let peers = Message::part().attribute(NESTED, peer(change).content());
        let message = self.message(SET_DEVICE, 0, name);
        self.netlink.ask(message.attribute(DEVICE_PEERS | NESTED, peers.content())).map(drop)
    }
}

fn peer(change: &PeerChange) -> Message {
    let mut flags = 0;
    flags |= if change.remove { REMOVE } else { 0 };
    flags |= if change.is_new { 0 } else { UPDATE_ONLY };
    flags |= if change.addrs.is_some() { REPLACE_ALLOWED } else { 0 };
    let mut message = Message::part().attribute(PEER_PUBLIC_KEY, &change.key.0);
    message = message.attribute(PEER_FLAGS, &flags.to_ne_bytes());
    if let Some(endpoint) = change.endpoint {
        message = message.attribute(PEER_ENDPOINT, &socket_address(endpoint));
    }
    if let Some(seconds) = change.keepalive {
        message = message.attribute(PEER_KEEPALIVE, &seconds.to_ne_bytes());
    }
    if let Some(addrs) = &change.addrs {
        let mut all = Message::part();
        for addr in addrs {
            let (family, value) = match addr {
                IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
                IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
            };
            let family = u16::try_from(family).unwrap_or(0).to_ne_bytes();
            let one = Message::part().attribute(ALLOWED_FAMILY, &family).attribute(ALLOWED_ADDRESS, &value);
            all = all.attribute(NESTED, one.attribute(ALLOWED_BITS, &[bits_of(*addr)]).content());
        }
        message = message.attribute(PEER_ALLOWED | NESTED, all.content());
    }
    message
}

fn bits_of(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(addr: SocketAddr) -> Vec<u8> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut octets = u16::try_from(family).unwrap_or(0).to_ne_bytes().to_vec();
    octets.extend_from_slice(&addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(v4) => {
            octets.extend_from_slice(&v4.ip().octets());
            octets.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(v6) => {
            octets.extend_from_slice(&v6.flowinfo().to_ne_bytes());
            octets.extend_from_slice(&v6.ip().octets());
            octets.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    octets
}

fn read_socket_address(value: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(octets(value, 2));
    match value.len() {
        16 => Some((IpAddr::from(octets::<4>(value, 4)), port).into()),
        28 => {
            let (flow, scope) = (u32::from_ne_bytes(octets(value, 4)), u32::from_ne_bytes(octets(value, 24)));
            Some(SocketAddrV6::new(Ipv6Addr::from(octets::<16>(value, 8)), port, flow, scope).into())
        }
        _ => None,
    }
}

fn key(value: &[u8]) -> Option<PublicKey> {
    (value.len() == KEY_LEN).then(|| PublicKey(octets(value, 0)))
}

fn read(part: &[u8], device: &mut Device) {
    for (kind, value) in attributes(part) {
        match kind & KIND {
            DEVICE_PUBLIC_KEY => device.own = key(value),
            DEVICE_LISTEN_PORT => device.port = u16_at(value, 0),
            DEVICE_PEERS => attributes(value).for_each(|(_, peer)| read_peer(peer, device)),
            _ => {}
        }
    }
}

/// A peer that comes in parts has its key in each.
fn read_peer(value: &[u8], device: &mut Device) {
    let mut keys = attributes(value).filter(|(kind, _)| kind & KIND == PEER_PUBLIC_KEY);
    let Some(key) = keys.next().and_then(|(_, value)| key(value)) else { return };
    let state = device.peers.entry(key).or_default();
    for (kind, value) in attributes(value) {
        match kind & KIND {
            PEER_ENDPOINT => state.endpoint = read_socket_address(value),
            PEER_HANDSHAKE => {
                state.handshake =
                    (i64::from_ne_bytes(octets(value, 0)), i64::from_ne_bytes(octets(value, 8)));
            }
            PEER_ALLOWED => state.addrs.extend(attributes(value).filter_map(|(_, one)| read_allowed(one))),
            _ => {}
        }
    }
}

fn read_allowed(value: &[u8]) -> Option<(IpAddr, u8)> {
    let (mut addr, mut bits) = (None, 0);
    for (kind, value) in attributes(value) {
        match (kind & KIND, value.len()) {
            (ALLOWED_ADDRESS, 4) => addr = Some(IpAddr::from(octets::<4>(value, 0))),
            (ALLOWED_ADDRESS, 16) => addr = Some(IpAddr::from(octets::<16>(value, 0))),
            (ALLOWED_BITS, 1) => bits = value[0],
            _ => {}
        }
    }
    Some((addr?, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we say of a peer is read as the kernel's words are.
    #[test]
    fn what_is_written_is_read() {
        let key = KeyPair::from_secret(&[7; KEY_LEN]).public();
        for endpoint in ["192.0.2.7:4790", "[fd00::7]:4790"] {
            let endpoint = endpoint.parse().unwrap();
            let addrs = vec!["100.127.0.2".parse().unwrap(), "fd00:1::2".parse().unwrap()];
            let change = PeerChange {
                is_new: true,
                endpoint: Some(endpoint),
                addrs: Some(addrs.clone()),
                keepalive: Some(25),
                ..PeerChange::of(key)
            };
            assert!(change.says_anything() && !PeerChange::of(key).says_anything());
            let peers = Message::part().attribute(NESTED, peer(&change).content());
            let part = Message::part().attribute(DEVICE_PEERS | NESTED, peers.content());
            let mut device = Device::default();
            read(part.content(), &mut device);
            let state = &device.peers[&key];
            assert_eq!((state.endpoint, state.handshake), (Some(endpoint), (0, 0)));
            assert!(state.has_exactly(&addrs) && !state.has_exactly(&addrs[..1]));
        }
    }

    #[test]
    fn broken_words_are_left_aside() {
        let mut device = Device::default();
        for length in 0..64_u8 {
            let octets: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37)).collect();
            read(&octets, &mut device);
            read_peer(&octets, &mut device);
            read_allowed(&octets);
            read_socket_address(&octets);
        }
        assert_eq!(device.peers.len(), 0);
    }
}
