//! The kernel calls on a TUN device, its socket and the helper that have no safe wrapper, and nothing else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Length of the header before each packet: `struct virtio_net_hdr` (`linux/virtio_net.h`).
pub(crate) const VNET_HDR_LEN: usize = 10;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel lets us leave for later on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Several UDP packets in one (Linux 6.2).
    pub(crate) udp: bool,
}

/// Takes the TUN device `name` of this thread's network namespace, or makes it, with a header of
/// [`VNET_HDR_LEN`] before each packet. `EBUSY` if a process has it.
pub(crate) fn attach(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: all zero is a valid ifreq; the pointer is good for the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        check(libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw const request))?;
        let length: libc::c_int = 10;
        check(libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length))
    }
}

/// Lets the device live on without a process.
pub(crate) fn persist(tun: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: an ioctl whose argument is a number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(on)) })
}

/// Asks for packets that are not yet cut to size and have no checksums yet.
pub(crate) fn offload(tun: BorrowedFd<'_>) -> io::Result<Offload> {
    let set = |flags: libc::c_uint| {
        // SAFETY: an ioctl whose argument is a number.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
    };
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    if set(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok() {
        return Ok(Offload { udp: true });
    }
    set(tcp)?;
    Ok(Offload { udp: false })
}

/// Lets the kernel cut what is larger than the underlay carries, instead of refusing it: a tunnel whose `mtu`
/// is too large is slow then, not deaf.
pub(crate) fn allow_fragments(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    let set = |level: libc::c_int, option: libc::c_int, value: libc::c_int| {
        let length =
            libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the value is an int, as both options want, and lives until the call is done.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
        })
    };
    set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if is_v6 {
        set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    Ok(())
}

/// A descriptor that came over a socket.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A handle of a process; readable once it has ended.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(received(RawFd::try_from(fd).map_err(io::Error::other)?))
}

/// Kills the process behind a handle.
pub(crate) fn pidfd_kill(process: BorrowedFd<'_>) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open and the siginfo may be null.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
