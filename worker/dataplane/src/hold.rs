//! The ports of this node that services have, held with sockets: no other program gets one of them by
//! mistake, and one that has it already is found out.
//!
//! The rules of the firewall lead what comes to a published port to tasks before any socket sees it. What
//! they cannot lead is `[::1]:port`, and IPv6 at all if the ingress network has none: what comes to the
//! sockets of IPv6 is carried to the same port of 127.0.0.1 ([`crate::proxy`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen,
    setsockopt, socket, sockopt,
};
use swarm_types::endpoint::{Protocol, PublishMode};
use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::port::{Holder, PortKey};
use tokio::task::JoinSet;

use crate::proxy;

/// The sockets of one port; dropping them gives it back.
struct Held {
    _sockets: Vec<OwnedFd>,
    _carriers: JoinSet<()>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Holds {
    held: BTreeMap<PortKey, Held>,
    failed: BTreeMap<PortKey, NetworkProblem>,
    /// Ports of addresses that this node does not have (now): other nodes may.
    absent: BTreeSet<PortKey>,
}

impl Holds {
    /// Holds these ports and no others.
    pub(crate) fn update(&mut self, wanted: &BTreeMap<PortKey, Holder>) {
        self.held.retain(|key, _| wanted.contains_key(key));
        self.failed.retain(|key, _| wanted.contains_key(key));
        self.absent.clear();
        for (key, holder) in wanted.iter().filter(|(key, _)| !self.held.contains_key(key)).collect::<Vec<_>>()
        {
            match hold(key) {
                Ok(held) => {
                    self.failed.remove(key);
                    self.held.insert(*key, held);
                }
                Err(e) if key.host_ip.is_some() && e.kind() == io::ErrorKind::AddrNotAvailable => {
                    self.failed.remove(key);
                    self.absent.insert(*key);
                }
                Err(e) => drop(self.failed.insert(*key, problem(key, holder, &e))),
            }
        }
    }

    /// Whether a port of this node can be had: it is held, or nobody has it.
    pub(crate) fn is_free(&self, key: &PortKey) -> io::Result<()> {
        if self.held.contains_key(key) {
            return Ok(());
        }
        match hold(key) {
            // nobody can have it, and a program that brings its own SCTP needs none of the kernel's
            Err(e) if is_unknown(&e) => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty() || !self.absent.is_empty()
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = NetworkProblem> {
        self.failed.values().cloned()
    }
}

fn problem(key: &PortKey, holder: &Holder, error: &io::Error) -> NetworkProblem {
    let service = &holder.name;
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let mode = match holder.mode {
                PublishMode::Ingress => "publishes it on every node",
                PublishMode::Host => "publishes it here",
            };
            format!(
                "another program of this node has the port that service `{service}` has too ({mode}): what \
                 comes to it goes to the service; stop the program, or publish another port"
            )
        }
        _ if is_unknown(error) => format!(
            "the kernel of this node has no SCTP (service `{service}` publishes it): packets are led to its tasks, \
             which can answer only if they bring an SCTP of their own; load the kernel's module sctp"
        ),
        _ => format!("cannot be held for service `{service}`: {error}"),
    };
    NetworkProblem { subject: format!("port {key}"), text }
}

/// The kernel does not have the protocol.
fn is_unknown(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT))
}

/// A port that nobody has, for a host-mode port without a number.
pub(crate) fn any_free(protocol: Protocol) -> io::Result<u16> {
    match protocol {
        Protocol::Tcp | Protocol::Sctp => {
            Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
        }
        Protocol::Udp => Ok(std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port()),
    }
}

fn hold(key: &PortKey) -> io::Result<Held> {
    let (mut sockets, mut carriers) = (Vec::new(), JoinSet::new());
    let v4 = match key.host_ip {
        None => Some(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(addr)) => Some(addr),
        Some(IpAddr::V6(_)) => None,
    };
    let v6 = match key.host_ip {
        None if has_v6() => Some(Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V6(addr)) => Some(addr),
        None | Some(IpAddr::V4(_)) => None,
    };
    let inward = SocketAddr::from((Ipv4Addr::LOCALHOST, key.port));
    match key.protocol {
        Protocol::Tcp => {
            if let Some(addr) = v4 {
                sockets.push(hold_tcp((addr, key.port).into())?);
            }
            if let Some(addr) = v6 {
                let socket = tcp((addr, key.port).into())?;
                listen(&socket, Backlog::new(128)?)?;
                carriers.spawn(proxy::tcp(std::net::TcpListener::from(socket), inward));
            }
        }
        Protocol::Udp => {
            if let Some(addr) = v4 {
                sockets.push(hold_udp((addr, key.port).into())?);
            }
            if let Some(addr) = v6 {
                let socket = udp((addr, key.port).into())?;
                carriers.spawn(proxy::udp(std::net::UdpSocket::from(socket), inward));
            }
        }
        Protocol::Sctp => {
            let addrs = [v4.map(IpAddr::from), v6.map(IpAddr::from)];
            for addr in addrs.into_iter().flatten() {
                sockets.push(hold_sctp((addr, key.port).into())?);
            }
        }
    }
    Ok(Held { _sockets: sockets, _carriers: carriers })
}

fn has_v6() -> bool {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    off.is_ok_and(|text| text.trim() == "0")
}

fn open(addr: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    open_as(addr, kind, None)
}

fn open_as(addr: SocketAddr, kind: SockType, protocol: Option<SockProtocol>) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, protocol)?;
    if addr.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(socket)
}

fn tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(addr, SockType::Stream)?;
    // Connections that are over for a while are in nobody's way.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket)
}

/// Bound and not listening: who comes here is refused, as if there were nothing.
fn hold_tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(addr)?;
    // A program that says it may share the address fails at the latest when it listens.
    setsockopt(&socket, sockopt::ReuseAddr, &false)?;
    Ok(socket)
}

fn udp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(addr, SockType::Datagram)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket)
}

/// Bound, and for one sender that does not exist: all others are told that nobody is here.
fn hold_udp(addr: SocketAddr) -> io::Result<OwnedFd> {
    const DISCARD: u16 = 9;
    let socket = udp(addr)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, DISCARD))))?;
    Ok(socket)
}

/// Bound and not listening, as with TCP.
fn hold_sctp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open_as(addr, SockType::Stream, Some(SockProtocol::Sctp))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(protocol: Protocol, port: u16) -> PortKey {
        PortKey { protocol, port, host_ip: None }
    }
    fn wants(key: PortKey) -> BTreeMap<PortKey, Holder> {
        let mode = PublishMode::Ingress;
        let holder = Holder { service: "s".into(), name: "web".into(), mode, target: 80, serving: true };
        [(key, holder)].into()
    }

    #[tokio::test]
    async fn a_held_port_is_nobody_elses_and_refuses() {
        let mut holds = Holds::default();
        let tcp = key(Protocol::Tcp, any_free(Protocol::Tcp).unwrap());
        holds.update(&wants(tcp));
        assert!(!holds.has_failed());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, tcp.port));
        assert_eq!(std::net::TcpListener::bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let refused = std::net::TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        holds.update(&BTreeMap::new());
        drop(std::net::TcpListener::bind(addr).unwrap());

        let udp = key(Protocol::Udp, any_free(Protocol::Udp).unwrap());
        holds.update(&wants(udp));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, udp.port));
        assert_eq!(std::net::UdpSocket::bind(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(addr).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_program_that_has_the_port_is_found_out_until_it_goes() {
        let program = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let key = key(Protocol::Tcp, program.local_addr().unwrap().port());
        let mut holds = Holds::default();
        holds.update(&wants(key));
        let problem = holds.problems().next().unwrap();
        assert_eq!(problem.subject, format!("port {}/tcp", key.port));
        assert!(problem.text.contains("another program") && problem.text.contains("`web`"), "{problem:?}");
        assert!(holds.is_free(&key).is_err());
        drop(program);
        holds.update(&wants(key));
        assert!(!holds.has_failed() && holds.is_free(&key).is_ok());
    }

    #[tokio::test]
    async fn a_kernel_without_sctp_is_a_problem_to_be_told() {
        let key = key(Protocol::Sctp, 9);
        let mut holds = Holds::default();
        holds.update(&wants(key));
        let known = open_as(([0, 0, 0, 0], 0).into(), SockType::Stream, Some(SockProtocol::Sctp)).is_ok();
        let problem = holds.problems().next();
        assert_eq!(problem.is_none(), known, "{problem:?}");
        assert!(known || problem.is_some_and(|p| p.subject == "port 9/sctp" && p.text.contains("no SCTP")));
        assert!(holds.is_free(&key).is_ok());
    }
}
