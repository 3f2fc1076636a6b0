//! Questions over UDP: as many as are waiting are taken by one call, and answered by one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use swarm_types::id::NetworkId;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tracing::warn;

use crate::flood::Flood;
use crate::message::Transport;
use crate::server::{Shared, Step, count};
use crate::shuffle::Shuffle;

/// Messages taken at once.
const BATCH: usize = 32;
/// Longest question; a longer one is cut by the kernel and then not readable.
const MAX_QUESTION: usize = 2048;
/// Rest after an error of the socket that is not about one message.
const REST: Duration = Duration::from_millis(100);

/// Answers at a socket, for ever.
pub(crate) async fn serve(shared: Arc<Shared>, network: NetworkId, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut flood = Flood::new(shared.settings.questions_per_second, shared.settings.burst);
    let mut shuffle = Shuffle::default();
    let mut buffers = vec![[0; MAX_QUESTION]; BATCH];
    let mut answers = Vec::with_capacity(BATCH);
    let mut forwards = JoinSet::new();
    loop {
        // The kernel is asked until it says that there is nothing: to conclude so from a small batch would
        // put aside the event of a question that came meanwhile.
        let received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffers)).await;
        let messages = match received {
            Ok(messages) => messages,
            Err(error) => {
                warn!(network.id = %network, %error, "names cannot be asked for on this network");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let now = Instant::now();
        for ((len, from), buffer) in messages.into_iter().zip(&buffers) {
            let Some(from) = from else { continue };
            let source = from.ip().to_canonical();
            if !flood.admit(source, now) {
                count(&shared.tally.flooded);
                shared.note_flood(network, source, now);
                continue;
            }
            match shared.handle(network, source, &buffer[..len], Transport::Udp, &mut shuffle) {
                Step::Send(bytes) => answers.push((bytes, from)),
                Step::Nothing => {}
                Step::Forward(request) => match shared.forward(source, request) {
                    Ok(answer) => {
                        let (shared, socket) = (shared.clone(), socket.clone());
                        forwards.spawn(async move {
                            if socket.send_to(&answer.await, from).await.is_err() {
                                count(&shared.tally.unsent);
                            }
                        });
                    }
                    Err(error) => answers.push((error, from)),
                },
            }
        }
        send(&shared, &socket, &answers);
        answers.clear();
        while forwards.try_join_next().is_some() {}
    }
}

/// Takes the messages that are waiting: how long each is, and where it came from.
fn receive(
    socket: &UdpSocket,
    buffers: &mut [[u8; MAX_QUESTION]],
) -> io::Result<Vec<(usize, Option<SocketAddr>)>> {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(buffers.len(), None);
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let messages =
        recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    Ok(messages.map(|message| (message.bytes, message.address.and_then(address))).collect())
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddrV4::from(*addr).into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddrV6::from(*addr).into()))
}

/// Sends answers. What the kernel does not take is lost, as messages may be: who asked asks again.
fn send(shared: &Shared, socket: &UdpSocket, answers: &[(Vec<u8>, SocketAddr)]) {
    let mut rest = answers;
    while !rest.is_empty() {
        let sent = match rest {
            [(bytes, to)] => socket.try_send_to(bytes, *to).map(|_| 1),
            _ => send_many(socket, rest),
        };
        rest = match sent {
            Ok(sent) => &rest[sent.max(1)..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => rest,
            Err(_) => {
                count(&shared.tally.unsent);
                &rest[1..]
            }
        };
    }
}

/// How many of the answers were sent.
fn send_many(socket: &UdpSocket, answers: &[(Vec<u8>, SocketAddr)]) -> io::Result<usize> {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(answers.len(), None);
    let slices: Vec<_> = answers.iter().map(|(bytes, _)| [IoSlice::new(bytes)]).collect();
    let to: Vec<_> = answers.iter().map(|(_, to)| Some(SockaddrStorage::from(*to))).collect();
    let nothing: [ControlMessage<'_>; 0] = [];
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter(),
        to.as_slice(),
        nothing.as_slice(),
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(sent.count())
}
