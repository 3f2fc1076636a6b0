//! Where the helper of a node is found, and how it is started.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::server::READY;

/// For the helper to start, and for an answer. Milliseconds where the machine is not busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// A log that is longer is begun anew, in octets.
const LONG_LOG: u64 = 1 << 20;

/// A folder for one helper, and its program.
#[derive(Debug, Clone)]
pub struct Place {
    /// Holds the socket and the log. Nobody else may look into it.
    pub dir: PathBuf,
    /// The program of the helper.
    pub program: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
}

impl Place {
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The socket by a name that is short whatever the folder is called: such names end at 108 octets.
    fn address(&self) -> io::Result<(File, UnixAddr)> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.dir)?;
        let short = format!("/proc/self/fd/{}/socket", dir.as_raw_fd());
        Ok((dir, UnixAddr::new(short.as_str())?))
    }

    /// A connection to whoever listens; none if nobody does.
    pub(crate) fn connect(&self) -> io::Result<Option<UnixStream>> {
        let (_dir, address) = match self.address() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let socket = unix_socket()?;
        let patience = TimeVal::milliseconds(i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Ok(Some(socket.into())),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Starts the program and waits until it is ready, or says why it is not.
    pub(crate) fn launch(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let socket = self.bind()?;
        let (mut reply, answer) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/");
        command.stdin(Stdio::from(socket)).stdout(Stdio::from(answer)).stderr(Stdio::from(self.log()?));
        let mut child = command.spawn()?;
        drop(command); // it holds our copies of the socket and of the pipe's other end
        child.wait()?; // the helper has left its parent, which is done
        let said = last_words(&mut reply)?;
        if said == READY { Ok(()) } else { Err(io::Error::other(self.complaint(&said))) }
    }

    fn complaint(&self, said: &str) -> String {
        let log = self.dir.join("log");
        let text =
            if said.is_empty() { fs::read_to_string(&log).unwrap_or_default() } else { said.to_owned() };
        let last = text.trim().lines().next_back().unwrap_or("it said nothing").to_owned();
        format!("{last} (its log: {})", log.display())
    }

    /// The socket that the helper is to listen on; nobody can connect before it does.
    fn bind(&self) -> io::Result<OwnedFd> {
        self.forget()?;
        let (_dir, address) = self.address()?;
        let socket = unix_socket()?;
        bind(socket.as_raw_fd(), &address)?;
        fs::set_permissions(self.socket(), fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    /// Removes the socket of a helper that is no more.
    pub(crate) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.socket()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn log(&self) -> io::Result<File> {
        let path = self.dir.join("log");
        let long = fs::metadata(&path).is_ok_and(|m| m.len() > LONG_LOG);
        if long {
            fs::remove_file(&path)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// All that is said until the other end closes.
fn last_words(from: &mut (impl Read + AsFd)) -> io::Result<String> {
    let mut said = Vec::new();
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    loop {
        if poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], patience)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut some = [0; 512];
        match from.read(&mut some)? {
            0 => return Ok(String::from_utf8_lossy(&said).into_owned()),
            length => said.extend_from_slice(&some[..length]),
        }
    }
}

/// Where it is, for people.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path: &Path = &self.dir;
        path.display().fmt(f)
    }
}
