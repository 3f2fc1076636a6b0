//! The kernel calls of the supervisor that have no safe wrapper, and nothing else.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_string(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The two sides of a fork.
pub(crate) enum Fork {
    Parent,
    Child,
}

/// Splits this process. It must have one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the supervisor has one thread, so the child may do all that the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        _ => Ok(Fork::Parent),
    }
}

/// The container's first process as its parent sees it.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Splits this process; the child lives in the new namespaces `flags`, and in the version 2 control
/// group whose directory is given. `None` in the child.
pub(crate) fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Child>> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: all zero is a valid clone_args; with no stack given the call behaves as fork, and
    // this process has one thread. `pidfd` lives until the call is done.
    let pid = unsafe {
        let mut args: libc::clone_args = mem::zeroed();
        args.flags = u64::from((flags | libc::CLONE_PIDFD).cast_unsigned());
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        check(libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<libc::clone_args>()))?
    };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel put a descriptor that is ours there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).expect("a pid fits in 32 bits");
    Ok(Some(Child { pid, pidfd }))
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) {
    // SAFETY: called before any descriptor from `first` on is owned by a value of this process.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// A detached copy of the mount at `path`.
pub(crate) fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = c_string(path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the path is a C string; a returned descriptor is ours.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor fits in 32 bits")))
    }
}

/// Attaches a detached mount at `target`.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    const MOVE_MOUNT_T_SYMLINKS: libc::c_uint = 0x10;
    let target = c_string(target)?;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: both paths are C strings and `tree` is open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Makes a detached mount, and those below it, read-only.
pub(crate) fn make_tree_read_only(tree: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns_fd: 0 };
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attr` has the kernel's layout and lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            &raw const attr,
            mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// One `prctl` with one number.
pub(crate) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only options that take numbers are passed by the callers in this crate.
    check(libc::c_long::from(unsafe { libc::prctl(option, value, 0, 0, 0) })).map(drop)
}

/// Sets this process's effective and permitted capabilities; inheritable ones become none.
pub(crate) fn set_capabilities(mask: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let half = |shift: u32| u32::try_from(mask >> shift & 0xffff_ffff).expect("32 bits");
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [half(0), half(32)].map(|m| Data { effective: m, permitted: m, inheritable: 0 });
    // SAFETY: header and the two data words have the kernel's layout for version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Puts a filter on this process's system calls.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads `program` and what it points to; both live through the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Switches the loopback device of this network namespace on.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid; the name fits; the socket is closed by its owner.
    unsafe {
        let socket =
            check(libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))?;
        let socket = OwnedFd::from_raw_fd(i32::try_from(socket).expect("a descriptor fits"));
        let mut request: libc::ifreq = mem::zeroed();
        request.ifr_name[0] = libc::c_char::try_from(b'l').expect("ascii");
        request.ifr_name[1] = libc::c_char::try_from(b'o').expect("ascii");
        let flags = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("small flags");
        check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))
            .map(drop)
    }
}

/// Sets one resource limit of this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives through the call.
    check(libc::c_long::from(unsafe { libc::setrlimit(resource, &raw const limit) })).map(drop)
}

/// Sends SIGKILL to a process by number.
pub(crate) fn kill(pid: i32) {
    // SAFETY: sending a signal touches no memory of ours.
    let _ = unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Leaves the process at once, without running anything that was registered for its end.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default meaning and lets all through, as a new program expects.
pub(crate) fn reset_signals() {
    // SAFETY: an all-zero sigaction is SIG_DFL with no flags; the sets live through the calls.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            let action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Lets no signal interrupt this process.
pub(crate) fn block_signals() {
    // SAFETY: the set lives through the calls.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}
