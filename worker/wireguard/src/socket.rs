//! The UDP socket of the underlay: many datagrams of one size in one call, both ways.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, setsockopt, sockopt,
};

use crate::sys;

/// Datagrams in one call; the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Octets in one call, below what fits in a UDP packet of either family.
pub(crate) const MAX_BATCH: usize = 65_000;
/// Octets that wait in the kernel, either way.
const BUFFER: usize = 8 << 20;

pub(crate) struct Socket {
    udp: UdpSocket,
    is_v6: bool,
    /// Whether the kernel and the device cut batches; found out when sending.
    cuts: AtomicBool,
}

/// What came in one call: datagrams of `segment` octets each, the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) length: usize,
    pub(crate) segment: usize,
    pub(crate) from: SocketAddr,
}

impl Socket {
    pub(crate) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(listen)?;
        sys::allow_fragments(udp.as_fd(), listen.is_ipv6())?;
        // wishes: without them it is slower
        let _ = setsockopt(&udp, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&udp, sockopt::SndBufForce, &BUFFER);
        let _ = setsockopt(&udp, sockopt::UdpGroSegment, &true);
        Self::adopt(udp)
    }

    /// A socket that was bound by [`Self::bind`], in another process.
    pub(crate) fn adopt(udp: UdpSocket) -> io::Result<Self> {
        let is_v6 = udp.local_addr()?.is_ipv6();
        Ok(Socket { udp, is_v6, cuts: AtomicBool::new(true) })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Sends datagrams of `segment` octets each, the last may be shorter. Waits while the kernel's buffer is
    /// full.
    pub(crate) fn send(&self, to: SocketAddr, octets: &[u8], segment: usize) -> io::Result<()> {
        let to = SockaddrStorage::from(self.reachable(to));
        if octets.len() > segment && self.cuts.load(Ordering::Relaxed) {
            let size = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
            match self.send_one(&to, octets, &[ControlMessage::UdpGsoSegments(&size)]) {
                Err(Errno::EIO | Errno::EOPNOTSUPP) => {
                    self.cuts.store(false, Ordering::Relaxed);
                    tracing::info!("the device cannot cut batches: datagrams are sent one by one");
                }
                // larger than what this way carries: alone, they may be fragmented
                Err(Errno::EINVAL | Errno::EMSGSIZE) => {}
                other => return Ok(other?),
            }
        }
        octets.chunks(segment).try_for_each(|datagram| Ok(self.send_one(&to, datagram, &[])?))
    }

    fn send_one(
        &self,
        to: &SockaddrStorage,
        octets: &[u8],
        control: &[ControlMessage<'_>],
    ) -> nix::Result<()> {
        let fd = self.udp.as_raw_fd();
        loop {
            match socket::sendmsg(fd, &[IoSlice::new(octets)], control, MsgFlags::empty(), Some(to)) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// An IPv6 socket reaches IPv4 by addresses that say so.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(v4) if self.is_v6 => (v4.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        }
    }

    /// Takes what is there; `None` if nothing is. `control` is room for what the kernel says about it.
    pub(crate) fn receive(&self, octets: &mut [u8], control: &mut [u8]) -> io::Result<Option<Arrived>> {
        let fd = self.udp.as_raw_fd();
        let mut into = [IoSliceMut::new(octets)];
        let got = socket::recvmsg::<SockaddrStorage>(fd, &mut into, Some(control), MsgFlags::MSG_DONTWAIT);
        let got = match got {
            Err(Errno::EAGAIN) => return Ok(None),
            other => other?,
        };
        let mut segment = got.bytes;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = message {
                segment = usize::try_from(size).unwrap_or(segment);
            }
        }
        let from = got.address.as_ref().and_then(plain).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(Arrived { length: got.bytes, segment: segment.max(1), from }))
    }
}

/// The address without the disguise that an IPv6 socket gives to IPv4.
fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => Some(SocketAddr::from((v4, v6.port()))),
        // kept whole: an address of the link says which one
        None => Some(std::net::SocketAddrV6::from(*v6).into()),
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(socket: &Socket, count: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut octets = vec![0; 1 << 16];
        let mut control = nix::cmsg_space!(i32);
        control.resize(control.capacity(), 0);
        while found.len() < count {
            let Some(arrived) = socket.receive(&mut octets, &mut control).unwrap() else {
                std::thread::yield_now();
                continue;
            };
            found.extend(octets[..arrived.length].chunks(arrived.segment).map(<[u8]>::to_vec));
        }
        found
    }

    #[test]
    fn batches_arrive_as_the_datagrams_they_are() {
        for (listen, to_host) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let to = Socket::bind(listen.parse().unwrap()).unwrap();
            let from = Socket::bind(listen.parse().unwrap()).unwrap();
            let target = SocketAddr::new(to_host.parse().unwrap(), to.local_addr().unwrap().port());
            let octets: Vec<u8> = (0..1050_u32).map(|n| n.to_le_bytes()[0]).collect();
            for cuts in [true, false] {
                from.cuts.store(cuts, Ordering::Relaxed);
                from.send(target, &octets, 100).unwrap();
                let found = receive_all(&to, 11);
                assert_eq!(found.concat(), octets, "{listen} {cuts}");
                assert_eq!((found[0].len(), found[10].len()), (100, 50), "{listen} {cuts}");
            }
        }
    }

    #[test]
    fn nothing_there_is_none() {
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(socket.receive(&mut [0; 100], &mut [0; 64]).unwrap().is_none());
    }
}
