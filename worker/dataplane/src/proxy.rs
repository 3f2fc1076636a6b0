//! Carries what comes to `[::1]:port`, which no rule of the firewall can lead, to 127.0.0.1:port, from
//! where one leads it to a task. The client's address is lost on this way.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

/// Connections of one port at a time; more wait.
const CONNECTIONS: usize = 1024;
/// Senders of one UDP port at a time; more are not heard.
const FLOWS: usize = 1024;
/// A UDP flow that is silent for so long is forgotten, as the kernel's own are.
const IDLE: Duration = Duration::from_secs(30);
const DATAGRAM: usize = 65_535;

/// Carries TCP connections until it is dropped.
pub(crate) async fn tcp(listener: std::net::TcpListener, inward: SocketAddr) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((client, _)) => drop(connections.spawn(carry(client, inward))),
                // Out of descriptors, mostly: what ends meanwhile gives some back.
                Err(e) => {
                    debug!(error = %e, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(mut client: TcpStream, inward: SocketAddr) {
    // Refused inside is refused outside: the client's connection is reset.
    match TcpStream::connect(inward).await {
        Ok(mut task) => drop(tokio::io::copy_bidirectional(&mut client, &mut task).await),
        Err(_) => drop(client.set_zero_linger()),
    }
}

/// Carries datagrams until it is dropped.
pub(crate) async fn udp(socket: std::net::UdpSocket, inward: SocketAddr) {
    let Ok(socket) = UdpSocket::from_std(socket) else { return };
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let (ended_in, mut ended) = mpsc::channel(FLOWS);
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            Some(client) = ended.recv() => drop(flows.remove(&client)),
            Some(_) = answers.join_next(), if !answers.is_empty() => {}
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                if !flows.contains_key(&client) {
                    if flows.len() >= FLOWS {
                        continue;
                    }
                    let Ok(flow) = flow(inward).await else { continue };
                    flows.insert(client, Arc::clone(&flow));
                    let (socket, ended) = (Arc::clone(&socket), ended_in.clone());
                    answers.spawn(async move {
                        answer(&flow, &socket, client).await;
                        // The loop that hears it owns this task.
                        let _ = ended.send(client).await;
                    });
                }
                if let Some(flow) = flows.get(&client) {
                    drop(flow.send(&buffer[..length]).await);
                }
            }
        }
    }
}

async fn flow(inward: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    let flow = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    flow.connect(inward).await?;
    Ok(Arc::new(flow))
}

/// Carries the answers of one flow until it is silent.
async fn answer(flow: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, flow.recv(&mut buffer)).await {
        drop(socket.send_to(&buffer[..length], client).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_transports_are_carried_there_and_back() {
        let mut parts = JoinSet::new();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inward = server.local_addr().unwrap();
        let outer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        outer.set_nonblocking(true).unwrap();
        let outward = outer.local_addr().unwrap();
        parts.spawn(tcp(outer, inward));
        let mut client = TcpStream::connect(outward).await.unwrap();
        let (mut task, _) = server.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        task.read_exact(&mut four).await.unwrap();
        task.write_all(b"pong").await.unwrap();
        client.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"pong");
        drop((server, task));
        let mut refused = TcpStream::connect(outward).await.unwrap();
        assert!(refused.read(&mut four).await.is_err(), "reset, as it is refused inside");

        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inward = server.local_addr().unwrap();
        let outer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        outer.set_nonblocking(true).unwrap();
        let outward = outer.local_addr().unwrap();
        parts.spawn(udp(outer, inward));
        for _ in 0..2 {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"ping", outward).await.unwrap();
            let (_, from) = server.recv_from(&mut four).await.unwrap();
            server.send_to(b"pong", from).await.unwrap();
            assert_eq!(client.recv_from(&mut four).await.unwrap().1, outward);
        }
    }
}
