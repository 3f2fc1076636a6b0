//! Tasks to look from: what one of them sees of networks, and whether all of them see the same.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use swarm_tests::hosts::{Hosts, Said, TaskRow, until_in};

/// A page that says which task answers: the first half of its id. It costs its node one small process.
pub(super) const PAGE: &str = "--stop-grace-period 200ms --restart-delay 200ms demo:1 \
                               sh -c 'mkdir -p /w; hostname > /w/who; exec httpd -f -p 80 -h /w'";
/// On a busy machine, and after managers that died, it takes a while until all nodes know all.
const SETTLING: Duration = Duration::from_secs(60);

/// One cluster, formed and Ready, with the demo image on every node. On a busy machine a node's session may
/// end while images are loaded: then they are loaded again.
pub(super) fn up(managers: usize, workers: usize) -> Hosts {
    let hosts = Hosts::bare(managers, workers);
    hosts.cluster.form(Instant::now(), &mut |_| {}).unwrap_or_else(|e| panic!("form: {e:#}"));
    let file = hosts.image_file("demo:1");
    let load = format!("image load -q -i {}", file.display());
    until_in(SETTLING, "all nodes have the image", || hosts.ctl("m1", &load).code == 0);
    hosts
}

/// A task whose network and files are looked at from there.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) task: TaskRow,
    pid: String,
}

impl Probe {
    pub(super) fn of(h: &Hosts, via: &str, task: TaskRow) -> Probe {
        let pid = h.pid_of(via, &task.id).to_string();
        Probe { task, pid }
    }

    /// All running tasks of a service.
    pub(super) fn all(h: &Hosts, via: &str, service: &str, count: usize) -> Vec<Probe> {
        h.until_running(via, service, count).into_iter().map(|task| Probe::of(h, via, task)).collect()
    }

    /// The process id of its container, as seen on this machine.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// A shell line in the task, with its own programs.
    pub(super) fn inside(&self, line: &str) -> Said {
        self.run(&["-n", "-m", "--root", "sh", "-c", line])
    }

    /// A shell line on the task's network, with this machine's programs.
    pub(super) fn on_its_network(&self, line: &str) -> Said {
        self.run(&["-n", "sh", "-c", line])
    }

    fn run(&self, words: &[&str]) -> Said {
        let output = Command::new("timeout").args(["20", "nsenter", "-t", &self.pid]).args(words).output();
        let output = output.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Its IPv4 addresses in the order of its networks, as its own devices say; without its way out.
    pub(super) fn addrs(&self) -> Vec<Ipv4Addr> {
        let said = self.on_its_network("ip -4 -o addr show");
        let nets = said.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let on_networks = nets.filter(|words| words.get(1).is_some_and(|device| device.starts_with("eth")));
        let addr = |words: Vec<&str>| {
            let addr: Ipv4Addr = words.get(3)?.split('/').next()?.parse().ok()?;
            Some(((*words.get(1)?).to_owned(), addr))
        };
        // they are listed as they were made, which is no order
        let mut found: Vec<(String, Ipv4Addr)> = on_networks.filter_map(addr).collect();
        found.sort();
        found.into_iter().map(|(_, addr)| addr).collect()
    }

    /// Addresses that it is told for a name.
    pub(super) fn names(&self, name: &str) -> BTreeSet<Ipv4Addr> {
        let said = self.inside(&format!("nslookup {name}"));
        let answer = said.out.split("Name:").skip(1);
        let addrs = answer.flat_map(|part| part.lines().filter_map(|line| line.strip_prefix("Address: ")));
        addrs.filter_map(|addr| addr.trim().parse().ok()).collect()
    }

    /// Who answers at an address, if somebody does.
    pub(super) fn page(&self, to: &str) -> Option<String> {
        answer(&self.on_its_network(&page_command(to)))
    }

    /// Who answers at a name, if somebody does.
    pub(super) fn page_of(&self, name: &str) -> Option<String> {
        answer(&self.inside(&format!("wget -qO- http://{name}/who")))
    }
}

/// Who answers at an address and port of a host's network, if somebody does.
pub(super) fn page_from(h: &Hosts, from: &str, to: &str) -> Option<String> {
    answer(&h.sh(from, &page_command(to)))
}

fn page_command(to: &str) -> String {
    format!("curl -sf -m 4 http://{to}/who")
}

fn answer(said: &Said) -> Option<String> {
    let who = said.out.trim();
    (said.code == 0 && !who.is_empty()).then(|| who.to_owned())
}

pub(super) fn addr(h: &Hosts, host: &str) -> Ipv4Addr {
    h.cluster.hosts().iter().find(|record| record.name == host).unwrap().address
}

/// Waits until every node says that it has what it is to have, and has no problem.
pub(super) fn until_all_agree(h: &Hosts, via: &str) {
    let mut said = None;
    until_in(SETTLING, "all nodes agree", || {
        let now = h.ctl(via, "network check");
        let agree = now.code == 0 && now.out.contains("agree");
        if !agree && said.as_ref() != Some(&now) {
            println!("network check: {now}");
        }
        said = Some(now);
        agree
    });
}

/// Addresses of a task on all networks but the ingress network, as managers have them.
pub(super) fn told_addrs(h: &Hosts, via: &str, task: &TaskRow) -> Vec<Ipv4Addr> {
    let inspected = h.inspect(via, &format!("task inspect {}", task.id));
    let on = inspected["NetworksAttachments"].as_array().cloned().unwrap_or_default();
    let on = on.iter().filter(|each| each["Network"]["Spec"]["Ingress"] != Value::Bool(true));
    let nets = on.flat_map(|each| each["Addresses"].as_array().cloned().unwrap_or_default());
    nets.filter_map(|net| net.as_str()?.split('/').next()?.parse().ok()).collect()
}

/// The problems that managers know of a node, as `subject: text`.
pub(super) fn problems(h: &Hosts, via: &str, host: &str) -> Vec<String> {
    let inspected = h.inspect(via, &format!("node inspect {host}"));
    let problems = inspected["Network"]["Problems"].as_array().cloned().unwrap_or_default();
    let text = |problem: &Value, field: &str| problem[field].as_str().unwrap_or_default().to_owned();
    problems.iter().map(|p| format!("{}: {}", text(p, "Subject"), text(p, "Text"))).collect()
}
