//! The program that tests of networks run in containers: a web server that keeps connections and stops
//! gracefully, and answers datagrams. The demo image's busybox can do none of that.
//!
//! `server [late-ms]` waits so long and then listens on port 80 (TCP, HTTP/1.1) and 9000 (UDP). `/` says who
//! answers and whom it sees; `/slow?ms=N` says so after N milliseconds. A datagram is answered the same way.
//! On SIGTERM every connection gets the answer to its next request, told to close, and those that have none
//! for [`LINGER`] end. New connections should not come any more: for [`LATE`] they are taken, and told that
//! they are late.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a stopping server waits for the next request of a connection: longer than any client of the
/// tests pauses on a loaded machine, shorter than the grace period.
const LINGER: Duration = Duration::from_secs(5);

/// How long new connections are taken after SIGTERM, which is how those that should not come are found.
const LATE: Duration = Duration::from_millis(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let late = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(late)).await;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    // also of a version that the machine lacks
    let listener = match TcpListener::bind("[::]:80").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("0.0.0.0:80").await?,
    };
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut answerer = JoinSet::new();
    answerer.spawn(datagrams(name.clone()));
    loop {
        tokio::select! {
            biased;
            taken = listener.accept() => {
                if let Ok((stream, peer)) = taken {
                    connections.spawn(serve(stream, peer, name.clone(), stopped.clone()));
                }
            }
            _ = stop.recv() => break,
        }
        while connections.try_join_next().is_some() {}
    }
    // `biased`: whatever waited was accepted before the signal was looked at
    stopping.send_replace(true);
    let late = async {
        while let Ok((stream, peer)) = listener.accept().await {
            connections.spawn(serve(stream, peer, format!("late:{name}"), stopped.clone()));
        }
    };
    timeout(LATE, late).await.ok();
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn datagrams(name: String) -> io::Result<()> {
    let socket = match UdpSocket::bind("[::]:9000").await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind("0.0.0.0:9000").await?,
    };
    let mut buffer = vec![0; 65536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        let said = format!("{name} sees {} {length}", peer.ip().to_canonical());
        // who has gone meanwhile needs no answer
        socket.send_to(said.as_bytes(), peer).await.ok();
    }
}

/// Answers what comes on one connection, until either end has had enough.
async fn serve(stream: TcpStream, peer: SocketAddr, name: String, mut stopped: watch::Receiver<bool>) {
    stream.set_nodelay(true).ok();
    let mut stream = BufReader::new(stream);
    loop {
        let head = tokio::select! {
            head = request(&mut stream) => head,
            () = lingered(&mut stopped) => None,
        };
        let Some(head) = head else { return };
        if let Some(wait) = head.wait {
            tokio::time::sleep(wait).await;
        }
        let close = head.close || *stopped.borrow();
        let page = format!("{name} sees {}\n", peer.ip().to_canonical());
        let kept = if close { "close" } else { "keep-alive" };
        let length = page.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {kept}\r\n\r\n{page}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if close {
            // the client ends first: what was said to it cannot be lost to a reset
            stream.shutdown().await.ok();
            let mut rest = [0; 512];
            let end = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
            timeout(LINGER, end).await.ok();
            return;
        }
    }
}

/// Returns when the server has been stopping for [`LINGER`].
async fn lingered(stopped: &mut watch::Receiver<bool>) {
    // the sender lives as long as the server
    stopped.wait_for(|stopped| *stopped).await.ok();
    tokio::time::sleep(LINGER).await;
}

struct Head {
    wait: Option<Duration>,
    close: bool,
}

/// The next request; none at the end of the connection.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut head = Head { wait: None, close: false };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some(head);
        }
        if let Some(path) = line.strip_prefix("GET ") {
            let ms = path.split_once("ms=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            head.wait = ms.map(Duration::from_millis);
        }
        head.close |= line.eq_ignore_ascii_case("connection: close");
    }
}
