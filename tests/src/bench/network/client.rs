//! Who calls: sixteen connections on one thread, each with one request after the other.
//!
//! `bench page-client ADDRESS:PORT kept|new MILLISECONDS` prints `REQUESTS FAILED SECONDS CPU-SECONDS`.
//! `kept` sends all requests of a connection over it, `new` makes a connection for each request, which
//! the server closes. `bench source ADDRESS:PORT MILLISECONDS` pours into a sink and prints
//! `BYTES SECONDS`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use nix::sys::time::TimeValLike;

pub(crate) const WORD: &str = "page-client";
pub(crate) const SOURCE: &str = "page-source";
const CONNECTIONS: u64 = 16;
const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
const CLOSED: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

pub(crate) fn run(words: &[String]) -> Result<()> {
    let [to, kind, millis] = words else { bail!("{WORD} ADDRESS:PORT kept|new MILLISECONDS") };
    let mut load = Load {
        to: to.parse().context("an address and a port")?,
        kept: kind == "kept",
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        answered: 0,
        failed: 0,
    };
    let lasts = Duration::from_millis(millis.parse().context("milliseconds")?);
    let seconds = load.run(lasts)?;
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("look at the own CPU time")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    println!("{} {} {seconds} {}", load.answered, load.failed, micros as f64 / 1e6);
    Ok(())
}

struct Load {
    to: SocketAddrV4,
    kept: bool,
    epoll: Epoll,
    answered: u64,
    failed: u64,
}

struct Connection {
    stream: TcpStream,
    /// A request is on its way; before that the connection is being made.
    sent: bool,
    answer: Vec<u8>,
}

/// What an event came to.
enum Next {
    Wait,
    Answered,
    Failed,
}

impl Load {
    fn run(&mut self, lasts: Duration) -> Result<f64> {
        let began = Instant::now();
        let mut connections = Vec::new();
        for id in 0..CONNECTIONS {
            connections.push(self.open(id)?);
        }
        let mut events = [EpollEvent::empty(); 32];
        while began.elapsed() < lasts {
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(20_u8)) {
                Err(Errno::EINTR) => continue,
                other => other.context("wait for answers")?,
            };
            for event in &events[..count] {
                let index = usize::try_from(event.data()).context("an index")?;
                self.step(&mut connections[index], event.data())?;
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn step(&mut self, connection: &mut Connection, id: u64) -> Result<()> {
        let next = if connection.sent { connection.read(self.kept) } else { self.send(connection, id)? };
        match next {
            Next::Wait => return Ok(()),
            Next::Answered => self.answered += 1,
            Next::Failed => self.failed += 1,
        }
        if matches!(next, Next::Answered) && self.kept {
            connection.answer.clear();
            if connection.stream.write_all(KEPT).is_ok() {
                return Ok(());
            }
            self.failed += 1;
        }
        // the old one is closed, and leaves the epoll by that
        *connection = self.open(id)?;
        Ok(())
    }

    /// Starts to connect; nothing has failed yet.
    fn open(&self, id: u64) -> Result<Connection> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let own = socket(AddressFamily::Inet, SockType::Stream, flags, None).context("make a socket")?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&own), &SockaddrIn::from(self.to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => bail!("connect to {}: {error}", self.to),
        }
        let stream = TcpStream::from(own);
        stream.set_nodelay(true)?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, id))?;
        Ok(Connection { stream, sent: false, answer: Vec::with_capacity(256) })
    }

    /// The connection is there, or it is not to be.
    fn send(&self, connection: &mut Connection, id: u64) -> Result<Next> {
        let request = if self.kept { KEPT } else { CLOSED };
        if connection.stream.write_all(request).is_err() {
            return Ok(Next::Failed);
        }
        connection.sent = true;
        self.epoll.modify(&connection.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        Ok(Next::Wait)
    }
}

impl Connection {
    /// With `kept` an answer ends with the page, without with the connection.
    fn read(&mut self, kept: bool) -> Next {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) if !kept && is_page(&self.answer) => Next::Answered,
            Ok(0) => Next::Failed,
            Ok(length) => {
                self.answer.extend_from_slice(&buffer[..length]);
                if kept && is_page(&self.answer) { Next::Answered } else { Next::Wait }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Wait,
            Err(_) => Next::Failed,
        }
    }
}

fn is_page(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\nhello\n")
}

/// Pours into a sink.
pub(crate) fn pour(words: &[String]) -> Result<()> {
    let [to, millis] = words else { bail!("{SOURCE} ADDRESS:PORT MILLISECONDS") };
    let lasts = Duration::from_millis(millis.parse().context("milliseconds")?);
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    let octets = vec![7; 1 << 17];
    let began = Instant::now();
    while began.elapsed() < lasts {
        stream.write_all(&octets).context("write")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("hear what came through")?;
    println!("{} {}", u64::from_be_bytes(total), began.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_page_is_none() {
        assert!(is_page(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"));
        assert!(!is_page(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhel"));
        assert!(!is_page(b"HTTP/1.1 503 No\r\nContent-Length: 6\r\n\r\nhello\n"));
    }
}
