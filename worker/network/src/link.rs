//! Links: devices as rtnetlink has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use swarm_worker_core::network::kernel::{Link, LinkKind, Mac};

use crate::netlink::{self, Buffer, CREATE, EXCL, Writer, attributes_after, find, ne32, text};
use crate::socket::{Refusal, Socket};

pub(crate) const NEW: u16 = 16;
pub(crate) const DELETE: u16 = 17;
pub(crate) const GET: u16 = 18;

const UP: u32 = 1;
const HEAD: usize = 16;

mod attribute {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const MTU: u16 = 4;
    pub(crate) const LINK: u16 = 5;
    pub(crate) const INFO: u16 = 18;
    pub(crate) const GROUP: u16 = 27;
    pub(crate) const NAMESPACE: u16 = 28;
}

/// A device that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    /// `veth`, `vxlan`, … Empty for hardware.
    pub(crate) kind: String,
    /// The device below it or at its other end, perhaps in another namespace.
    pub(crate) below: u32,
    /// VXLAN.
    pub(crate) vni: u32,
    pub(crate) local: Option<IpAddr>,
    pub(crate) port: u16,
}

/// `struct ifinfomsg`.
fn head(index: u32, flags: u32, change: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..].copy_from_slice(&change.to_ne_bytes());
    head
}

/// All devices of a namespace, by name.
pub(crate) fn all(socket: &mut Socket) -> Result<BTreeMap<String, Device>, Refusal> {
    let devices = socket.dump(GET, |w| w.fixed(&head(0, 0, 0)), read)?;
    Ok(devices.into_iter().map(|device| (device.name.clone(), device)).collect())
}

/// One device.
pub(crate) fn one(socket: &mut Socket, name: &str) -> Result<Option<Device>, Refusal> {
    let ask = |w: &mut Writer<'_>| {
        w.fixed(&head(0, 0, 0));
        w.text(attribute::NAME, name);
    };
    let mut found = None;
    match socket.ask(GET, 0, ask, |message| found = read(message.body)) {
        Ok(()) => Ok(found),
        Err(why) if why.errno == Errno::ENODEV => Ok(None),
        Err(why) => Err(why),
    }
}

pub(crate) fn read(body: &[u8]) -> Option<Device> {
    let mut device = Device {
        index: netlink::u32_at(body, 4)?,
        is_up: netlink::u32_at(body, 8)? & UP != 0,
        ..Default::default()
    };
    for (kind, value) in attributes_after(body, HEAD) {
        match kind {
            attribute::ADDRESS => device.mac = value.try_into().ok().map(Mac),
            attribute::NAME => device.name = text(value),
            attribute::MTU => device.mtu = ne32(value),
            attribute::LINK => device.below = ne32(value),
            attribute::INFO => read_info(value, &mut device),
            _ => {}
        }
    }
    (!device.name.is_empty()).then_some(device)
}

fn read_info(info: &[u8], device: &mut Device) {
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    device.kind = find(info, KIND).map(text).unwrap_or_default();
    if device.kind != "vxlan" {
        return;
    }
    for (kind, value) in netlink::attributes(find(info, DATA).unwrap_or_default()) {
        match kind {
            1 => device.vni = ne32(value),
            4 | 17 => device.local = crate::route::addr(value),
            15 => device.port = value.try_into().map(u16::from_be_bytes).unwrap_or_default(),
            _ => {}
        }
    }
}

/// The other end of a pair that is to be made: its namespace, its name, and what the plan of that place
/// says of it.
pub(crate) struct Peer<'a> {
    pub(crate) namespace: RawFd,
    pub(crate) name: &'a str,
    pub(crate) link: Option<&'a Link>,
}

/// Makes a device, down. `namespace`: where it is born, seen from the socket's; `parent`: index of the
/// device below a macvlan, in the socket's namespace.
pub(crate) fn create(
    requests: &mut Buffer,
    name: &str,
    link: &Link,
    namespace: Option<&std::fs::File>,
    peer: Option<Peer<'_>>,
    parent: u32,
) {
    requests.message(NEW, CREATE | EXCL, |w| {
        w.fixed(&head(0, 0, 0));
        w.text(attribute::NAME, name);
        settings(w, link);
        if let Some(namespace) = namespace {
            w.u32(attribute::NAMESPACE, namespace.as_raw_fd().cast_unsigned());
        }
        if matches!(link.kind, LinkKind::Macvlan { .. }) {
            w.u32(attribute::LINK, parent);
        }
        w.nest(attribute::INFO, |w| info(w, &link.kind, peer));
    });
}

fn settings(w: &mut Writer<'_>, link: &Link) {
    if let Some(mac) = link.mac {
        w.bytes(attribute::ADDRESS, &mac.0);
    }
    if link.mtu > 0 {
        w.u32(attribute::MTU, link.mtu);
    }
}

fn info(w: &mut Writer<'_>, kind: &LinkKind, peer: Option<Peer<'_>>) {
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    match kind {
        LinkKind::Dummy => w.text(KIND, "dummy"),
        LinkKind::Veth { .. } => {
            w.text(KIND, "veth");
            let Some(peer) = peer else { return };
            w.nest(DATA, |w| {
                w.nest(1, |w| {
                    w.fixed(&head(0, 0, 0));
                    w.text(attribute::NAME, peer.name);
                    w.u32(attribute::NAMESPACE, peer.namespace.cast_unsigned());
                    peer.link.iter().for_each(|link| settings(w, link));
                });
            });
        }
        LinkKind::Vxlan { vni, local, port } => {
            w.text(KIND, "vxlan");
            w.nest(DATA, |w| {
                w.u32(1, *vni);
                match local {
                    IpAddr::V4(local) => w.bytes(4, &local.octets()),
                    IpAddr::V6(local) => w.bytes(17, &local.octets()),
                }
                // what it may learn from packets, anyone could teach it
                w.u8(7, 0);
                w.bytes(15, &port.to_be_bytes());
            });
        }
        LinkKind::Macvlan { .. } => {
            const BRIDGE: u32 = 4;
            w.text(KIND, "macvlan");
            w.nest(DATA, |w| w.u32(1, BRIDGE));
        }
    }
}

pub(crate) fn delete(requests: &mut Buffer, index: u32) {
    requests.message(DELETE, 0, |w| w.fixed(&head(index, 0, 0)));
}

/// Devices that go together: each that goes alone costs about 20 ms, in which the kernel waits until no
/// packet is on it any more; a group of them costs that once.
const LEAVING: u32 = 0x5377_0001;

/// Removes devices: as many requests as there are devices, and one more.
pub(crate) fn delete_all(requests: &mut Buffer, indexes: &[u32]) {
    for index in indexes {
        requests.message(NEW, 0, |w| {
            w.fixed(&head(*index, 0, 0));
            w.u32(attribute::GROUP, LEAVING);
        });
    }
    requests.message(DELETE, 0, |w| {
        w.fixed(&head(0, 0, 0));
        w.u32(attribute::GROUP, LEAVING);
    });
}

/// Changes what can be changed in place; brings it up if asked.
pub(crate) fn change(requests: &mut Buffer, index: u32, mac: Option<Mac>, mtu: Option<u32>, up: bool) {
    let flags = if up { UP } else { 0 };
    requests.message(NEW, 0, |w| {
        w.fixed(&head(index, flags, flags));
        if let Some(mac) = mac {
            w.bytes(attribute::ADDRESS, &mac.0);
        }
        if let Some(mtu) = mtu {
            w.u32(attribute::MTU, mtu);
        }
    });
}
