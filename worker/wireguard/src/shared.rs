//! What the threads of a tunnel share.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::counter::Count;
use crate::netlink::Prefix;
use crate::socket::Socket;
use crate::sys::Offload;
use crate::table::Table;

pub(crate) struct Shared {
    pub(crate) tun: File,
    pub(crate) offload: Offload,
    pub(crate) socket: Socket,
    /// Our addresses inside the tunnel, with their networks.
    pub(crate) addresses: Vec<Prefix>,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) count: Count,
    /// Readable when the tunnel stops.
    pub(crate) stop: EventFd,
    pub(crate) stops: AtomicBool,
    /// Readable when the clock has something to do at once.
    pub(crate) hurry: EventFd,
    /// Readable when a thread has ended.
    pub(crate) ended: EventFd,
}

impl Shared {
    /// Waits until there is something to read; false when the tunnel stops.
    pub(crate) fn wait_for(&self, what: impl AsFd) -> io::Result<bool> {
        self.wait(what, PollTimeout::NONE)?;
        Ok(!self.stops.load(Ordering::Acquire))
    }

    /// Waits for something to read, for the end, or for time to pass.
    pub(crate) fn wait(&self, what: impl AsFd, timeout: PollTimeout) -> io::Result<()> {
        let stop = PollFd::new(self.stop.as_fd(), PollFlags::POLLIN);
        match poll(&mut [PollFd::new(what.as_fd(), PollFlags::POLLIN), stop], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
