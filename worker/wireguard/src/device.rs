//! The TUN device and the socket beneath it: made, taken over, removed.
//!
//! The device outlives the process. While nobody reads it, the kernel drops what is routed to it, so that
//! nothing leaves in clear when the daemon is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

use crate::netlink::{Netlink, Prefix};
use crate::socket::Socket;
use crate::sys::{self, Offload};

const TUN: &str = "/dev/net/tun";

/// Where a tunnel is and how it is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network namespace of device and socket; `None` is the one of the calling thread.
    pub netns: Option<PathBuf>,
    /// Name of the device, at most 15 octets.
    pub device: String,
    /// Address and UDP port on the underlay. All addresses (`[::]`, `0.0.0.0`) are fine; `[::]` takes IPv4, too.
    pub listen: SocketAddr,
    /// Addresses of this node inside the tunnel, each with the prefix length of the network that holds all
    /// peers, in bits. Addresses of these networks are never reached outside of the tunnel.
    pub addresses: Vec<Prefix>,
    /// Largest inner packet in octets: what the underlay carries, less 60 (IPv4) or 80 (IPv6).
    pub mtu: u16,
}

/// Why a device could not be opened or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum DeviceError {
    #[error("enter network namespace {}", path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("open {TUN}")]
    OpenTun { source: io::Error },
    #[error("take tunnel device {device}: another process has it")]
    Busy { device: String },
    #[error("take tunnel device {device}")]
    Take { device: String, source: io::Error },
    #[error("configure tunnel device {device}")]
    Configure { device: String, source: io::Error },
    #[error("bind UDP socket {listen} of tunnel device {device}")]
    Bind { device: String, listen: SocketAddr, source: io::Error },
    #[error("remove tunnel device {device}")]
    Remove { device: String, source: io::Error },
}

/// A device with its socket, both in their namespace.
pub(crate) struct Opened {
    pub(crate) tun: File,
    pub(crate) offload: Offload,
    pub(crate) socket: Socket,
}

/// Runs something on a thread inside a namespace: the threads of the caller stay where they are.
pub(crate) fn inside<T: Send>(
    netns: Option<&Path>,
    run: impl FnOnce() -> Result<T, DeviceError> + Send,
) -> Result<T, DeviceError> {
    let Some(path) = netns else { return run() };
    let failed = |source| DeviceError::Enter { path: path.to_owned(), source };
    let namespace = File::open(path).map_err(failed)?;
    let enter = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
        run()
    };
    thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes the device, or takes over one that was left, and binds the socket.
pub(crate) fn open(settings: &Settings) -> Result<Opened, DeviceError> {
    inside(settings.netns.as_deref(), || open_here(settings))
}

fn open_here(settings: &Settings) -> Result<Opened, DeviceError> {
    let device = || settings.device.clone();
    let take = |source: io::Error| match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
        Errno::EBUSY => DeviceError::Busy { device: device() },
        _ => DeviceError::Take { device: device(), source },
    };
    let configure = |source| DeviceError::Configure { device: device(), source };

    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN);
    let tun = options.map_err(|source| DeviceError::OpenTun { source })?;
    // the socket first: who cannot have the port shall not make a device
    let socket = Socket::bind(settings.listen).map_err(|source| DeviceError::Bind {
        device: device(),
        listen: settings.listen,
        source,
    })?;
    sys::attach(tun.as_fd(), &settings.device).map_err(take)?;
    sys::persist(tun.as_fd(), true).map_err(take)?;
    let offload = sys::offload(tun.as_fd()).map_err(configure)?;
    address(settings).map_err(configure)?;
    Ok(Opened { tun, offload, socket })
}

/// Gives the device of a running tunnel its addresses and size again and switches it on: somebody may have
/// changed it. Packets on their way through it are not touched.
///
/// # Errors
/// [`DeviceError::Enter`] and [`DeviceError::Configure`].
pub fn configure(settings: &Settings) -> Result<(), DeviceError> {
    let failed = |source| DeviceError::Configure { device: settings.device.clone(), source };
    inside(settings.netns.as_deref(), || address(settings).map_err(failed))
}

fn address(settings: &Settings) -> io::Result<()> {
    let netlink = Netlink::route()?;
    for prefix in settings.addresses.iter().filter(|prefix| is_network(prefix)) {
        netlink.add_backstop(*prefix)?;
    }
    let index = if_nametoindex(settings.device.as_str())?;
    netlink.set_addresses(index, &settings.addresses)?;
    netlink.set_up(index, settings.mtu)
}

/// Whether the prefix holds more than the one address.
fn is_network((address, bits): &Prefix) -> bool {
    *bits < if address.is_ipv4() { 32 } else { 128 }
}

/// Removes a device that no process has, and what keeps its networks from being reached without it. It is no
/// error if the device is not there.
///
/// # Errors
/// [`DeviceError::Enter`] and [`DeviceError::Remove`]. A device that a process has is removed, too, and the
/// process's tunnel ends.
pub fn remove(netns: Option<&Path>, device: &str) -> Result<(), DeviceError> {
    let failed = |source| DeviceError::Remove { device: device.to_owned(), source };
    inside(netns, || {
        let index = match if_nametoindex(device) {
            Ok(index) => index,
            Err(Errno::ENODEV | Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(failed(errno.into())),
        };
        let netlink = Netlink::route().map_err(failed)?;
        let addresses = netlink.addresses(index).map_err(failed)?;
        netlink.delete_link(index).map_err(failed)?;
        for prefix in addresses.into_iter().filter(is_network) {
            netlink.remove_backstop(prefix).map_err(failed)?;
        }
        Ok(())
    })
}
