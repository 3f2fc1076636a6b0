//! What is called: a page of six bytes, and a sink that counts what is poured in. One thread each.
//!
//! `bench page-server PAGE-PORT SINK-PORT`, in any network namespace: listens on all its addresses,
//! prints `ready`, and goes on until it is killed. The page keeps a connection unless the request says
//! `Connection: close`; then it closes first, as web servers do.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub(crate) const WORD: &str = "page-server";
const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
const LISTENER: u64 = u64::MAX;

pub(crate) fn run(words: &[String]) -> Result<()> {
    let [page, sink] = words else { bail!("{WORD} PAGE-PORT SINK-PORT") };
    let listen = |port: &String| -> Result<TcpListener> {
        let port: u16 = port.parse().context("a port")?;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("listen on port {port}"))
    };
    let (page, sink) = (listen(page)?, listen(sink)?);
    thread::spawn(move || swallow(&sink));
    println!("ready");
    serve(&page)
}

/// Takes what comes, and answers how many bytes that were when the other side has ended.
fn swallow(listener: &TcpListener) {
    let mut buffer = vec![0; 1 << 18];
    for mut stream in listener.incoming().flatten() {
        let mut total = 0_u64;
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            total += length as u64;
        }
        // who is not there any more does not want to know
        stream.write_all(&total.to_be_bytes()).ok();
    }
}

struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
}

fn serve(listener: &TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut callers: HashMap<u64, Caller> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.context("wait for calls")?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                accept(listener, &epoll, &mut callers)?;
            } else if callers.get_mut(&event.data()).is_some_and(|caller| !caller.answer()) {
                // closing takes it out of the epoll as well
                callers.remove(&event.data());
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, callers: &mut HashMap<u64, Caller>) -> Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // none left, or one that has gone again
            Err(_) => return Ok(()),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let id = stream.as_fd().as_raw_fd().unsigned_abs().into();
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        callers.insert(id, Caller { stream, request: Vec::with_capacity(256) });
    }
}

impl Caller {
    /// Reads, and answers a whole request. False: the connection is over.
    fn answer(&mut self) -> bool {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => self.request.extend_from_slice(&buffer[..length]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        if !self.request.ends_with(b"\r\n\r\n") {
            return self.request.len() < 4096;
        }
        let close = self.request.ends_with(b"close\r\n\r\n");
        self.request.clear();
        let answer = if close { CLOSED } else { KEPT };
        self.stream.write_all(answer).is_ok() && !close
    }
}
