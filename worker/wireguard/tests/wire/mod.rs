//! Watches the switch between the hosts: everything that a host sends passes there.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::net::{Net, PORT};

/// What must not be seen.
pub(crate) const MARK: &[u8] = b"<this is not for everybody>";

#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Octets in frames with the tunnel's UDP port, which did not show the mark.
    pub(crate) octets: u64,
    /// What else there was, but the neighbour discovery of the underlay.
    pub(crate) clear: Vec<String>,
    /// Frames in all.
    frames: u64,
}

pub(crate) struct Wire {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn tap(net: &Net) -> Self {
        let fd = net.inside(0, || {
            let kind = (AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC);
            socket(kind.0, kind.1, kind.2, Some(SockProtocol::EthAll)).expect("packet socket")
        });
        setsockopt(&fd, sockopt::RcvBufForce, &(256 << 20)).expect("a large buffer");
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).expect("a timeout");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, stops) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 70_000];
            while !stops.load(Ordering::Relaxed) {
                if let Ok(length) = recv(fd.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                    look(&frame[..length], &mut kept.lock().expect("no panic"));
                }
            }
        });
        Wire { seen, stop, thread: Some(thread) }
    }

    /// What was seen, once nothing more comes.
    pub(crate) fn seen(&self) -> Seen {
        let read = || self.seen.lock().expect("no panic").clone();
        let mut before = read();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = read();
            // the tunnels speak now and then, but not all the time
            if now.frames < before.frames + 10 {
                return now;
            }
            before = now;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn look(frame: &[u8], seen: &mut Seen) {
    seen.frames += 1;
    let shown = || format!("{} octets: {:02x?}", frame.len(), &frame[..frame.len().min(70)]);
    let is_clear = frame.windows(MARK.len()).any(|part| part == MARK);
    if is_clear {
        return seen.clear.push(shown());
    }
    let word = |at: usize| frame.get(at..at + 2).map(|w| u16::from_be_bytes([w[0], w[1]]));
    let (protocol, ports) = match word(12) {
        Some(0x0800) => (frame.get(23).copied(), 34),
        Some(0x86dd) => (frame.get(20).copied(), 54),
        // ARP
        _ => return,
    };
    let of_tunnel = word(ports) == Some(PORT) && word(ports + 2) == Some(PORT);
    match protocol {
        Some(17) if of_tunnel => seen.octets += frame.len() as u64,
        // nobody has the port while a daemon is away, says the host to the sender of a tunnelled packet
        Some(1) if frame.get(34) == Some(&3) && word(62) == Some(PORT) && word(64) == Some(PORT) => {}
        // IGMP of the switch itself
        Some(2) if word(12) == Some(0x0800) => {}
        // ICMPv6 and hop by hop: neighbours and their groups, on the underlay
        Some(58 | 0) if word(12) == Some(0x86dd) => {}
        _ => seen.clear.push(shown()),
    }
}
