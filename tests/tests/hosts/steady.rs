//! A light load of requests that all have to be answered, beside whatever else a test does.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use swarm_tests::hosts::{Hosts, until};

use super::probe::Probe;

/// Asks the ports in turn, one new connection each time, until its input is closed. A line a request:
/// where, how long it took in milliseconds, and what was wrong, if anything.
const ASK: &str = r#"
import json, select, socket, sys, time
ports = [place.rsplit(":", 1) for place in sys.argv[1:]]
number = 0
while not select.select([sys.stdin], [], [], 0.05)[0]:
    host, port = ports[number % len(ports)]
    number += 1
    began, wrong = time.monotonic(), ""
    try:
        s = socket.create_connection((host, int(port)), 5)
        s.settimeout(5)
        s.sendall(b"GET /who HTTP/1.0\r\n\r\n")
        said = b""
        while part := s.recv(4096):
            said += part
        s.close()
        if b"200 OK" not in said:
            wrong = repr(said)
    except OSError as e:
        wrong = repr(e)
    took = round((time.monotonic() - began) * 1000)
    print(json.dumps({"at": time.strftime("%H:%M:%S"), "to": f"{host}:{port}", "ms": took, "wrong": wrong}), flush=True)
"#;

/// Somebody who asks; stops when this is dropped.
pub(super) struct Steady {
    child: Child,
    lines: PathBuf,
}

impl Steady {
    /// From a host's network, ports of these hosts.
    pub(super) fn at_ports(h: &Hosts, from: &str, places: &[(Ipv4Addr, u16)]) -> Steady {
        let argv = ["python3", "-c", ASK].map(String::from).into_iter();
        let argv = argv.chain(places.iter().map(|(addr, port)| format!("{addr}:{port}")));
        let command = h.cluster.command(from, &argv.map(Into::into).collect::<Vec<_>>()).unwrap();
        Steady::start(command, h.scratch().join("steady-ports"))
    }

    /// From a task's network, a virtual address.
    pub(super) fn at_address(h: &Hosts, from: &Probe, addr: Ipv4Addr) -> Steady {
        let mut command = Command::new("nsenter");
        command.args(["-t", from.pid(), "-n", "python3", "-c", ASK, &format!("{addr}:80")]);
        Steady::start(command, h.scratch().join("steady-address"))
    }

    fn start(mut command: Command, lines: PathBuf) -> Steady {
        let out = File::create(&lines).unwrap();
        let steady = Steady { child: command.stdin(Stdio::piped()).stdout(out).spawn().unwrap(), lines };
        until("the first answer", || !read(&steady.lines).is_empty());
        steady
    }

    /// Stops asking; all that was asked has to have been answered. Says how many there were.
    pub(super) fn all_answered(mut self, who: &str) -> usize {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        let lines = read(&self.lines);
        let millis = |line: &Value| line["ms"].as_u64().unwrap_or(0);
        let longest = Duration::from_millis(lines.iter().map(millis).max().unwrap_or(0));
        let slow = lines.iter().filter(|line| millis(line) >= 900).count();
        println!("{who}: {} requests, the longest took {longest:?}, {slow} took 0.9 s or more", lines.len());
        let wrong: Vec<_> = lines.iter().filter(|line| line["wrong"] != "").collect();
        assert!(wrong.is_empty(), "{who}: {} of {} requests failed: {wrong:#?}", wrong.len(), lines.len());
        lines.len()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
