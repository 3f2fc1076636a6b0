//! SCTP: led to tasks as TCP and UDP are, also where the kernel has no SCTP of its own; it says so then.

use std::io::Read;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use swarm_tests::hosts::{Hosts, Said, TaskRow, until};

use crate::network_update::{address, patient};

/// A packet of SCTP with the right sum, by a raw socket: the kernel need not know the protocol.
const PACKET: &str = r#"
import socket, struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
def packet(source, to, tag, chunk):
    head = struct.pack("!HHI", source, to, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk
def init(kind):
    # its tag, room, streams out and in, first number
    return struct.pack("!BBH", kind, 0, 20) + struct.pack("!IIHHI", 7, 65536, 1, 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
"#;

/// Answers the first INIT, and says to which port it came.
const TASK: &str = r#"
print("up", flush=True)
while True:
    data, peer = s.recvfrom(2000)
    source, to = struct.unpack("!HH", data[20:24])
    print(peer[0], to, flush=True)
    s.sendto(packet(to, source, 7, init(2)), peer)
"#;

/// Sends an INIT, and says from where its answer comes.
const CLIENT: &str = r#"
host, port = sys.argv[1], int(sys.argv[2])
s.settimeout(1)
s.sendto(packet(5555, port, 0, init(1)), (host, 0))
data, peer = s.recvfrom(2000)
print(peer[0], *struct.unpack("!HH", data[20:24]), data[32])
"#;

#[test]
fn sctp_is_led_to_tasks() {
    let mut hosts = patient(1, 1);
    let lacks = !std::path::Path::new("/proc/net/sctp").exists();
    if lacks {
        hosts.expect_log(&["port 8132/sctp"]);
    }
    let flags = "--name s --stop-grace-period 200ms --constraint node.hostname==w1 -p 8132:132/sctp";
    hosts.ok("m1", &format!("service create -d {flags} demo:1 sleep 1000"));
    let task = hosts.until_running("m1", "s", 1).remove(0);
    if lacks {
        until("the nodes say that their kernel has no SCTP", || {
            ["m1", "w1"].iter().all(|host| {
                let problems = &hosts.inspect("m1", &format!("node inspect {host}"))["Network"]["Problems"];
                problems.to_string().contains("the kernel of this node has no SCTP")
            })
        });
    }
    let mut answerer = answerer(&hosts, &task);
    for entry in ["m1", "w1"] {
        let to = address(&hosts, entry);
        let mut said = None;
        until(&format!("{entry} leads to the task"), || said.insert(init(&hosts, to)).code == 0);
        assert_eq!(said.unwrap().out.trim(), format!("{to} 8132 5555 2"));
    }
    answerer.0.kill().unwrap();
    let mut told = String::new();
    answerer.0.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    let seen = format!("{} 132", address(&hosts, "client"));
    assert!(told.lines().skip(1).all(|line| line == seen), "{told}");
    hosts.ok("m1", "service rm s");
    hosts.end();
}

/// Ends with this.
struct Answerer(Child);

impl Drop for Answerer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn answerer(h: &Hosts, task: &TaskRow) -> Answerer {
    let pid = h.pid_of("m1", &task.id).to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-n", "python3", "-c", &format!("{PACKET}{TASK}")]);
    Answerer(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

fn init(h: &Hosts, to: IpAddr) -> Said {
    let file = h.scratch().join("init.py");
    std::fs::write(&file, format!("{PACKET}{CLIENT}")).unwrap();
    h.sh("client", &format!("python3 {} {to} 8132", file.display()))
}
