//! The few netlink requests that a tunnel device needs, made on a socket of this thread's namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

const HEADER: usize = 16;
/// Marks the routes that we made: `ip route show proto 84`. Another number than that of the plans
/// (`swarm_worker_core::network::kernel::OURS`), whose keeper removes what no plan names.
const ROUTE_PROTOCOL: u8 = 84;
/// Worse than every other route, so that it counts only when the others are gone.
const WORST_METRIC: u32 = u32::MAX;

const IFA_F_NODAD: u32 = 0x02;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Where the attributes of a message of generic netlink begin.
pub(crate) const GENERIC: usize = HEADER + 4;

/// An address with the length of its network's prefix in bits.
pub(crate) type Prefix = (IpAddr, u8);

/// A request under construction.
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0);
        let mut octets = vec![0; HEADER];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets[6..8].copy_from_slice(&flags.to_ne_bytes());
        Message(octets)
    }

    pub(crate) fn raw(mut self, octets: &[u8]) -> Self {
        self.0.extend_from_slice(octets);
        self
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes of ours are short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// What is put into another message, as the content of an attribute.
    pub(crate) fn part() -> Self {
        Message(Vec::new())
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.0
    }

    fn done(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("requests of ours are short");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// A conversation with the kernel.
pub(crate) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    /// About links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// About what has names of its own.
    pub(crate) fn generic() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkGeneric)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd =
            socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(protocol))?;
        Ok(Netlink { fd })
    }

    /// Sends a request; the messages of the answer, header and all.
    pub(crate) fn ask(&self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        let fd = self.fd.as_raw_fd();
        socket::send(fd, &message.done(), MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = socket::recv(fd, &mut buffer, MsgFlags::empty())?;
            for answer in messages(&buffer[..length]) {
                match i32::from(u16_at(answer, 4)) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => {
                        let code = i32::from_ne_bytes(octets(answer, HEADER));
                        return if code == 0 {
                            Ok(answers)
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    _ => answers.push(answer.to_vec()),
                }
            }
        }
    }

    /// Sets the largest packet of a device in octets, turns off addresses that the kernel would invent, and
    /// sets it up.
    pub(crate) fn set_up(&self, index: u32, mtu: u16) -> io::Result<()> {
        let gen_mode = nested(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        let inet6 = nested(u16::try_from(libc::AF_INET6).unwrap_or(0), &gen_mode);
        let quiet = link(index, 0).attribute(libc::IFLA_AF_SPEC, &inet6);
        match self.ask(quiet) {
            // a machine without IPv6 has nothing to turn off
            Err(err) if err.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            other => drop(other?),
        }
        let up = libc::IFF_UP.cast_unsigned();
        self.ask(link(index, up).attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes())).map(drop)
    }

    /// Gives a device exactly these addresses.
    pub(crate) fn set_addresses(&self, index: u32, wanted: &[Prefix]) -> io::Result<()> {
        for stale in self.addresses(index)?.iter().filter(|has| !wanted.contains(has)) {
            self.ask(address(libc::RTM_DELADDR, 0, index, *stale))?;
        }
        for prefix in wanted {
            let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
            self.ask(address(libc::RTM_NEWADDR, flags, index, *prefix))?;
        }
        Ok(())
    }

    /// The addresses of a device, without those of its link.
    pub(crate) fn addresses(&self, index: u32) -> io::Result<Vec<Prefix>> {
        let dump = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP).raw(&[0; 8]);
        let answers = self.ask(dump)?;
        let ours = answers.iter().filter(|answer| {
            answer.len() >= HEADER + 8 && u32::from_ne_bytes(octets(answer, HEADER + 4)) == index
        });
        let found = ours.filter_map(|answer| {
            let value = attributes(&answer[HEADER + 8..]).find(|(kind, _)| *kind == libc::IFA_ADDRESS)?.1;
            let address = match value.len() {
                4 => IpAddr::from(octets::<4>(value, 0)),
                16 => IpAddr::from(octets::<16>(value, 0)),
                _ => return None,
            };
            let of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            (!of_link).then_some((address, answer[HEADER + 1]))
        });
        Ok(found.collect())
    }

    /// Makes addresses of this network unreachable for the case that the device is gone.
    pub(crate) fn add_backstop(&self, prefix: Prefix) -> io::Result<()> {
        self.ask(backstop(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, prefix)).map(drop)
    }

    /// Undoes [`Self::add_backstop`], also if it was never done.
    pub(crate) fn remove_backstop(&self, prefix: Prefix) -> io::Result<()> {
        match self.ask(backstop(libc::RTM_DELROUTE, 0, prefix)) {
            Err(err) if matches!(err.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes a device of a kind that needs nothing else to be said. It is no error if it is there.
    pub(crate) fn make_link(&self, name: &str, kind: &str) -> io::Result<()> {
        let info = nested(libc::IFLA_INFO_KIND, kind.as_bytes());
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let message = Message::new(libc::RTM_NEWLINK, flags).raw(&link_body(0, 0));
        let message = message.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        match self.ask(message.attribute(libc::IFLA_LINKINFO, &info)) {
            Err(err) if err.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes a device.
    pub(crate) fn delete_link(&self, index: u32) -> io::Result<()> {
        let body = link_body(index, 0);
        self.ask(Message::new(libc::RTM_DELLINK, 0).raw(&body)).map(drop)
    }
}

/// The number by which the kernel answers to this name of generic netlink; asking makes it load the module.
pub(crate) fn family_id(name: &str) -> io::Result<Option<u16>> {
    let text = [name.as_bytes(), &[0]].concat();
    let request = Message::new(u16::try_from(libc::GENL_ID_CTRL).unwrap_or(0), 0)
        .raw(&[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .attribute(CTRL_ATTR_FAMILY_NAME, &text);
    let answers = match Netlink::generic()?.ask(request) {
        Ok(answers) => answers,
        Err(err) if err.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(err) => return Err(err),
    };
    let of_answer = |answer: &Vec<u8>| {
        let attributes = attributes(answer.get(GENERIC..)?);
        let mut ids = attributes.filter(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        ids.next().map(|(_, value)| u16_at(value, 0))
    };
    Ok(answers.iter().find_map(of_answer))
}

/// `struct ifinfomsg`.
fn link_body(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

fn link(index: u32, flags: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, 0).raw(&link_body(index, flags))
}

/// `struct ifaddrmsg` and the address.
fn address(kind: u16, flags: libc::c_int, index: u32, (address, bits): Prefix) -> Message {
    let message = Message::new(kind, flags).raw(&[family(address), bits, 0, 0]).raw(&index.to_ne_bytes());
    let value = value(address);
    // nobody else answers on a tunnel: waiting whether the address is taken would only delay it
    let flags = IFA_F_NODAD.to_ne_bytes();
    let message = message.attribute(libc::IFA_LOCAL, &value).attribute(libc::IFA_ADDRESS, &value);
    message.attribute(libc::IFA_FLAGS, &flags)
}

/// `struct rtmsg`, the network and the metric.
fn backstop(kind: u16, flags: libc::c_int, (address, bits): Prefix) -> Message {
    let head = [family(address), bits, 0, 0, libc::RT_TABLE_MAIN, ROUTE_PROTOCOL, 0, libc::RTN_UNREACHABLE];
    let message = Message::new(kind, flags).raw(&head).raw(&[0; 4]);
    let message = message.attribute(libc::RTA_DST, &network(address, bits));
    message.attribute(libc::RTA_PRIORITY, &WORST_METRIC.to_ne_bytes())
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn value(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address with all bits after the prefix cleared.
fn network(address: IpAddr, bits: u8) -> Vec<u8> {
    let mut octets = value(address);
    for (at, octet) in octets.iter_mut().enumerate() {
        let kept = usize::from(bits).saturating_sub(at * 8).min(8);
        *octet &= !u8::MAX.checked_shr(u32::try_from(kept).unwrap_or(8)).unwrap_or(0);
    }
    octets
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    Message::part().attribute(kind, value).0
}

/// Octets that are known to be there, zero if they are not.
pub(crate) fn octets<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..at + N).and_then(|octets| octets.try_into().ok()).unwrap_or([0; N])
}

pub(crate) fn u16_at(from: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(octets(from, at))
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(octets(rest, 0)) as usize;
        let message = rest.get(..length).filter(|_| length >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0));
        let value = rest.get(4..length)?;
        let kind = u16_at(rest, 2);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_no_bits_of_the_host() {
        assert_eq!(network("10.199.3.4".parse().unwrap(), 16), [10, 199, 0, 0]);
        assert_eq!(network("10.199.3.4".parse().unwrap(), 23), [10, 199, 2, 0]);
        assert_eq!(network("10.199.3.4".parse().unwrap(), 32), [10, 199, 3, 4]);
        assert_eq!(network("10.199.3.4".parse().unwrap(), 0), [0; 4]);
        let v6 = network("fd00::ffff:1".parse().unwrap(), 64);
        assert_eq!((v6[0], v6[13], v6[15]), (0xfd, 0, 0));
    }

    #[test]
    fn broken_answers_end() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[255; 40]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn families_are_asked_by_name() {
        assert_eq!(family_id("nlctrl").unwrap(), Some(u16::try_from(libc::GENL_ID_CTRL).unwrap()));
        assert_eq!(family_id("no-such-family").unwrap(), None);
    }
}
