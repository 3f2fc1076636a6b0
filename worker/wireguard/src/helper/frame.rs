//! Frames on the socket between daemon and helper: a length, so much JSON, and perhaps open files.
//!
//! Who is at the other end may be of another version, or broken: whatever comes, it is an error at worst.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::sys;

/// Octets of the largest message: some ten thousand peers.
const LONGEST: usize = 8 << 20;
/// Room that is taken before the octets are there. Messages with secrets are never longer, so that no copy of
/// one stays behind when a buffer grows.
const AT_FIRST: usize = 16 << 10;
/// Octets of the length.
const HEAD: usize = 4;
/// Open files that the kernel lets one message carry (`SCM_MAX_FD`).
const MOST_FILES: usize = 253;

/// Why no message was had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the other end has gone")]
    Gone,
    #[error("a message of {0} octets is too long")]
    TooLong(usize),
    #[error("a message cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Sends a message, with open files.
pub(crate) fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> Result<(), FrameError> {
    let mut frame = Zeroizing::new(Vec::with_capacity(AT_FIRST));
    frame.extend_from_slice(&[0; HEAD]);
    serde_json::to_writer(&mut *frame, message).map_err(FrameError::Unreadable)?;
    let length = frame.len() - HEAD;
    if length > LONGEST {
        return Err(FrameError::TooLong(length));
    }
    let head = u32::try_from(length).map_err(|_| FrameError::TooLong(length))?.to_le_bytes();
    frame[..HEAD].copy_from_slice(&head);
    let files: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let rights = if files.is_empty() { &[][..] } else { &rights[..] };
    let sent = loop {
        let octets = [IoSlice::new(&frame)];
        match sendmsg::<()>(stream.as_raw_fd(), &octets, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(FrameError::Gone),
            other => break other.map_err(io::Error::from)?,
        }
    };
    let mut stream = stream;
    Ok(stream.write_all(&frame[sent..])?)
}

/// Waits for a message, and takes the open files that come with it.
pub(crate) fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<(T, Vec<OwnedFd>), FrameError> {
    let mut arriving = Arriving { stream, files: Vec::new() };
    let text = read(&mut arriving)?;
    Ok((parse(&text)?, arriving.files))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(text).map_err(FrameError::Unreadable)
}

/// The octets of one frame.
fn read(from: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut head = [0; HEAD];
    exact(from, &mut head)?;
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(FrameError::TooLong(length));
    }
    // what is said is not believed before it is there
    let mut text = Zeroizing::new(vec![0; length.min(AT_FIRST)]);
    exact(from, &mut text)?;
    while text.len() < length {
        let at = text.len();
        text.resize(length.min(at * 2), 0);
        exact(from, &mut text[at..])?;
    }
    Ok(text)
}

fn exact(from: &mut impl Read, to: &mut [u8]) -> Result<(), FrameError> {
    from.read_exact(to).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => FrameError::Gone,
        _ => FrameError::Socket(e),
    })
}

/// The socket with the open files that came.
struct Arriving<'a> {
    stream: &'a UnixStream,
    files: Vec<OwnedFd>,
}

impl Read for Arriving<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut control = nix::cmsg_space!([RawFd; MOST_FILES]);
        control.resize(control.capacity(), 0);
        let mut into = [IoSliceMut::new(to)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(self.stream.as_raw_fd(), &mut into, Some(&mut control), flags)?;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(files) = message {
                self.files.extend(files.into_iter().map(sys::received));
            }
        }
        Ok(got.bytes)
    }
}

#[cfg(test)]
mod tests;
