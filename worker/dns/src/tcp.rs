//! Questions over TCP (RFC 7766): several on their way in one connection, answered as each is ready.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use swarm_types::id::NetworkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::flood::Flood;
use crate::message::Transport;
use crate::server::{Shared, Step, count, lock};
use crate::shuffle::Shuffle;

/// Longest question; whoever sends more is cut off.
const MAX_QUESTION: usize = 4096;
/// Questions on their way in one connection; more are not read until one is answered.
const PIPELINE: usize = 32;
/// Rest of who asks too fast, and after an error of the socket.
const REST: Duration = Duration::from_millis(20);

/// What the connections of one listener share.
struct Room {
    shared: Arc<Shared>,
    network: NetworkId,
    flood: Mutex<Flood>,
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts.
struct Seat {
    room: Arc<Room>,
    source: IpAddr,
}

/// Answers connections until somebody else closes the socket (`ss -K`), which then never works again.
pub(crate) async fn serve(shared: Arc<Shared>, network: NetworkId, listener: TcpListener) {
    let flood = Flood::new(shared.settings.questions_per_second, shared.settings.burst);
    let room = Room { shared, network, flood: Mutex::new(flood), by_source: Mutex::default() };
    let room = Arc::new(room);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, from)) => match Seat::take(&room, from.ip().to_canonical()) {
                Some(seat) => drop(connections.spawn(converse(seat, stream))),
                None => count(&room.shared.tally.connections_refused),
            },
            Err(error) if is_closed(&error) => {
                warn!(network.id = %network, %error, "somebody closed the socket for names over TCP");
                return;
            }
            Err(error) => {
                warn!(network.id = %network, %error, "no connections for names on this network");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// What is said of a listener that does not listen any more.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

impl Seat {
    fn take(room: &Arc<Room>, source: IpAddr) -> Option<Self> {
        let settings = &room.shared.settings;
        let mut by_source = lock(&room.by_source);
        let own = by_source.get(&source).copied().unwrap_or(0);
        let all: usize = by_source.values().sum();
        if own >= settings.connections_per_source || all >= settings.connections {
            return None;
        }
        by_source.insert(source, own + 1);
        Some(Self { room: room.clone(), source })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_source = lock(&self.room.by_source);
        if let Some(own) = by_source.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

async fn converse(seat: Seat, stream: TcpStream) {
    // both ends wait for each other's message: never hold one back
    let _best_effort = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = mpsc::channel(PIPELINE);
    let idle = seat.room.shared.settings.idle;
    let write = write(writer, waiting, idle);
    tokio::pin!(write);
    tokio::select! {
        // the reader ends when all is answered, and takes its end of the channel with it
        () = read(&seat, reader, answers) => write.await,
        () = &mut write => {}
    }
}

/// Reads questions until the other side ends, is silent for too long or sends what is no question.
async fn read(seat: &Seat, mut reader: OwnedReadHalf, answers: mpsc::Sender<Vec<u8>>) {
    let room = &seat.room;
    let mut shuffle = Shuffle::default();
    let mut buffer = vec![0; MAX_QUESTION];
    let mut forwards: JoinSet<()> = JoinSet::new();
    loop {
        let Ok(Ok(len)) = timeout(room.shared.settings.idle, question(&mut reader, &mut buffer)).await else {
            break;
        };
        while !lock(&room.flood).admit(seat.source, Instant::now()) {
            count(&room.shared.tally.flooded);
            room.shared.note_flood(room.network, seat.source, Instant::now());
            tokio::time::sleep(REST).await;
        }
        let bytes = &buffer[..len];
        let answer = match room.shared.handle(room.network, seat.source, bytes, Transport::Tcp, &mut shuffle)
        {
            Step::Send(bytes) => bytes,
            Step::Nothing => break,
            Step::Forward(request) => match room.shared.forward(seat.source, request) {
                Err(error) => error,
                Ok(answer) => {
                    while forwards.len() >= PIPELINE {
                        forwards.join_next().await;
                    }
                    let answers = answers.clone();
                    // who does not read its answers any more has no use for this one
                    forwards.spawn(async move { answers.send(answer.await).await.unwrap_or_default() });
                    continue;
                }
            },
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    while forwards.join_next().await.is_some() {}
}

/// Reads one question, and says how long it is.
async fn question(reader: &mut OwnedReadHalf, buffer: &mut [u8]) -> io::Result<usize> {
    let len = usize::from(reader.read_u16().await?);
    let Some(bytes) = buffer.get_mut(..len) else {
        return Err(io::Error::other("longer than any question"));
    };
    reader.read_exact(bytes).await?;
    Ok(len)
}

/// Sends answers; ends when there will be no more, or the other side does not take them.
async fn write(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>, patience: Duration) {
    while let Some(answer) = waiting.recv().await {
        let Ok(len) = u16::try_from(answer.len()) else { return };
        let framed = [&len.to_be_bytes()[..], &answer].concat();
        let Ok(Ok(())) = timeout(patience, writer.write_all(&framed)).await else { return };
    }
}
