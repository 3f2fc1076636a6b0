//! [`Socket`]: a netlink socket of one namespace.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send,
    setsockopt, socket, sockopt,
};

use crate::netlink::{self, Buffer, Message, Writer};
use crate::sys;

/// Bytes of requests of which none needs another's answer that go to the kernel at once.
const CHUNK: usize = 256 * 1024;
/// Bytes of answers that may wait to be read.
const RECEIVE: usize = 8 * 1024 * 1024;
/// Bytes that the kernel puts into one answer at most, and more.
const READ: usize = 128 * 1024;

/// What the kernel says against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// In its own words, if it has some.
    pub(crate) said: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.errno.desc();
        match &self.said {
            Some(said) => write!(f, "{errno} ({said})"),
            None => f.write_str(errno),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, said: None }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.said {
            None => refusal.errno.into(),
            Some(_) => io::Error::new(io::Error::from(refusal.errno).kind(), refusal.to_string()),
        }
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    number: u32,
    space: usize,
    read: Vec<u8>,
    /// Time in system calls so far.
    spent: Duration,
}

impl Socket {
    /// Opens one in the namespace that the calling thread is in; it stays there.
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        Self::with_groups(protocol, 0)
    }

    /// One that news come to; `groups` is a set of bits, group 1 being the lowest.
    pub(crate) fn with_groups(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        const CAP_ACK: libc::c_int = 10;
        const EXT_ACK: libc::c_int = 11;
        const STRICT: libc::c_int = 12;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        sys::set_netlink_option(fd.as_fd(), CAP_ACK)?;
        sys::set_netlink_option(fd.as_fd(), EXT_ACK)?;
        sys::set_netlink_option(fd.as_fd(), STRICT)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let address: NetlinkAddr = getsockname(fd.as_raw_fd())?;
        Ok(Self { fd, port: address.pid(), number: 1, space: 0, read: Vec::new(), spent: Duration::ZERO })
    }

    /// What the kernel calls it: news of what it asked for carry this.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Time that requests of this socket took in the kernel, so far.
    pub(crate) fn spent(&self) -> Duration {
        self.spent
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends requests that do not depend on each other's success; says which ones were refused.
    pub(crate) fn send_all(&mut self, requests: &mut Buffer) -> io::Result<Vec<(usize, Refusal)>> {
        let (mut refused, mut first) = (Vec::new(), 0);
        while first < requests.len() {
            let (_, next) = requests.chunk(first, CHUNK);
            let errors = self.send_chunk(requests, first, next, next - 1)?;
            refused.extend(errors.into_iter().map(|(offset, why)| (first + offset, why)));
            first = next;
        }
        Ok(refused)
    }

    /// Sends requests that take effect together or not at all: `requests` starts with the message that
    /// begins a batch and ends with the one that ends it.
    pub(crate) fn send_batch(&mut self, requests: &mut Buffer) -> io::Result<Vec<(usize, Refusal)>> {
        let count = requests.len();
        let acked = count.saturating_sub(2);
        self.send_chunk(requests, 0, count, acked)
    }

    /// The kernel works while we send: when `send` returns, all answers are there.
    fn send_chunk(
        &mut self,
        requests: &mut Buffer,
        first: usize,
        next: usize,
        acked: usize,
    ) -> io::Result<Vec<(usize, Refusal)>> {
        let base = self.take_numbers(next - first);
        requests.number(first, next, base, acked);
        let (start, _) = requests.chunk(first, 0);
        let (last, _) = requests.chunk(next - 1, 0);
        self.write(requests.bytes(start.start..last.end))?;
        let (mut refused, mut confirmed) = (Vec::new(), false);
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => {
                    for message in netlink::messages(&self.read[..length]) {
                        let offset = message.number.wrapping_sub(base) as usize;
                        match refusal(&message) {
                            Some(Some(why)) if offset < next - first => refused.push((offset, why)),
                            Some(None) => confirmed |= first + offset == acked,
                            _ => {}
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        if refused.is_empty() && !confirmed {
            return Err(io::Error::other("the kernel did not confirm"));
        }
        Ok(refused)
    }

    /// One request, and all answers to it.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl Fn(&mut Writer<'_>),
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), Refusal> {
        let mut request = Buffer::default();
        request.message(kind, flags, fill);
        let number = self.take_numbers(1);
        request.number(0, 1, number, if flags & netlink::DUMP == netlink::DUMP { 1 } else { 0 });
        let (range, _) = request.chunk(0, 0);
        self.write(request.bytes(range)).map_err(|err| errno_of(&err))?;
        let mut interrupted = false;
        loop {
            let length = match self.receive(MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in netlink::messages(&self.read[..length]) {
                if message.number != number {
                    continue;
                }
                interrupted |= message.flags & netlink::DUMP_INTERRUPTED != 0;
                match refusal(&message) {
                    Some(Some(why)) => return Err(why),
                    Some(None) if interrupted => return Err(Errno::EINTR.into()),
                    Some(None) => return Ok(()),
                    None => each(message),
                }
            }
        }
    }

    /// As [`Socket::ask`] for all there is of something; asked again while it changes.
    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        fill: impl Fn(&mut Writer<'_>),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        const TRIES: usize = 20;
        let mut last = Refusal::from(Errno::EINTR);
        for _ in 0..TRIES {
            let mut found = Vec::new();
            match self.ask(kind, netlink::DUMP, &fill, |message| found.extend(read(message.body))) {
                Ok(()) => return Ok(found),
                Err(why) if why.errno == Errno::EINTR => last = why,
                Err(why) => return Err(why),
            }
        }
        Err(last)
    }

    /// The news that have come. `false`: some were lost.
    pub(crate) fn news(&mut self, mut each: impl FnMut(Message<'_>)) -> bool {
        let mut complete = true;
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => return complete,
                Ok(length) => netlink::messages(&self.read[..length]).for_each(&mut each),
                Err(Errno::EINTR) => {}
                // ENOBUFS, and whatever else may become of a socket: look at everything
                Err(Errno::ENOBUFS) => complete = false,
                Err(_) => return false,
            }
        }
    }

    fn take_numbers(&mut self, count: usize) -> u32 {
        let base = self.number;
        self.number = base.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX)).max(1);
        base
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() + 4096 > self.space {
            self.space = (bytes.len() + 4096).max(2 * CHUNK);
            setsockopt(&self.fd, sockopt::SndBufForce, &self.space)?;
        }
        let start = Instant::now();
        let sent = send(self.fd.as_raw_fd(), bytes, MsgFlags::empty());
        self.spent += start.elapsed();
        let sent = sent?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<usize, Errno> {
        self.read.resize(READ, 0);
        let start = Instant::now();
        let received = recv(self.fd.as_raw_fd(), &mut self.read, flags);
        self.spent += start.elapsed();
        received
    }
}

pub(crate) fn errno_of(err: &io::Error) -> Refusal {
    match err.raw_os_error() {
        Some(number) => Errno::from_raw(number).into(),
        None => Refusal { errno: Errno::EIO, said: Some(err.to_string()) },
    }
}

/// None: no end of an answer. Otherwise its end, with what was refused.
fn refusal(message: &Message<'_>) -> Option<Option<Refusal>> {
    const WORDS: u16 = 1;
    let fixed = match message.kind {
        // only the header of the request comes back, see CAP_ACK
        netlink::ERROR => 20,
        netlink::DONE => 4,
        netlink::OVERRUN => return Some(Some(Errno::EOVERFLOW.into())),
        _ => return None,
    };
    let code = netlink::u32_at(message.body, 0).unwrap_or_default().cast_signed();
    if code == 0 {
        return Some(None);
    }
    let words = (message.flags & netlink::ACK_TLVS != 0)
        .then(|| netlink::attributes_after(message.body, fixed).find(|(kind, _)| *kind == WORDS))
        .flatten()
        .map(|(_, value)| netlink::text(value));
    Some(Some(Refusal { errno: Errno::from_raw(-code), said: words }))
}
