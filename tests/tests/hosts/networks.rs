//! Networks between hosts: addresses, names, virtual addresses and published ports, as tasks and clients
//! see them, and while daemons and managers are not there.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use swarm_tests::hosts::{Hosts, Said, TaskRow, poll, until, until_in};

/// A page that says which task answers and whom it sees.
const WHO: &str = "demo:1 sh -c 'mkdir -p /w/cgi-bin; printf \"#!/bin/sh\\necho; echo $(hostname) sees \
                   \\$REMOTE_ADDR\\n\" > /w/cgi-bin/who; chmod +x /w/cgi-bin/who; head -c 20000000 /dev/zero > /w/big; \
                   exec httpd -f -p 80 -h /w'";

#[test]
fn ports_names_and_addresses() {
    let mut hosts = Hosts::patient(1, 2);
    // No host of these reaches a resolver of the world.
    hosts.expect_log(&["names of the world cannot be looked up", "no resolver of /etc/resolv.conf"]);
    hosts.ok("m1", "network create app");
    d1_d7_every_node_leads_to_the_task_which_sees_the_client(&hosts);
    d8_services_call_each_other_by_name(&hosts);
    d9_dnsrr(&hosts);
    packets_of_any_size_pass(&hosts);
    d26_nothing_is_readable_between_nodes(&hosts);
    d20_predefined_networks(&hosts);
    every_node_has_what_it_is_to_have(&hosts);
    hosts.end();
}

#[test]
fn daemons_and_managers_are_not_needed() {
    let mut hosts = Hosts::up(1, 2);
    hosts.expect_log(&["node is down", "what others changed was put right", "the device sw-wg0 was changed"]);
    hosts.expect_log(&["the tunnel's process has ended by itself"]);
    hosts.ok("m1", "network create app");
    let service = "service create -d --stop-grace-period 200ms --name web --replicas 2 --constraint node.role==worker --network app";
    hosts.ok("m1", &format!("{service} -p 8080:80 {WHO}"));
    let web = hosts.until_running("m1", "web", 2);
    until("the port leads to both", || {
        answers(&hosts, "client", "m1", 8080) && answers(&hosts, "client", "w1", 8080)
    });
    what_others_destroy_is_repaired(&hosts);
    connections_outlive_daemons(&hosts, &web);
    tasks_talk_while_all_daemons_are_dead(&hosts, &web);
    the_tunnels_process_is_replaced_at_once(&hosts, &web);
    all_goes_on_without_managers(&hosts, &web);
    hosts.end();
}

#[test]
fn the_dead_are_not_named() {
    let mut hosts = Hosts::up(1, 2);
    hosts.expect_log(&["node is down"]);
    hosts.ok("m1", "network create app");
    d10_a_dead_task_leaves_names_and_virtual_addresses(&hosts);
    a_node_that_leaves_keeps_nothing(&hosts);
    hosts.end();
}

fn addr(h: &Hosts, host: &str) -> Ipv4Addr {
    h.cluster.hosts().iter().find(|record| record.name == host).unwrap().address
}

fn who(h: &Hosts, from: &str, to: &str, port: u16) -> String {
    h.sh(from, &format!("curl -gs -m 5 http://{to}:{port}/cgi-bin/who")).out.trim().replace("::ffff:", "")
}

fn answers(h: &Hosts, from: &str, to: &str, port: u16) -> bool {
    who(h, from, &addr(h, to).to_string(), port).contains("sees")
}

/// A shell line in a task: its network and files, or its network only and the programs of this machine.
fn inside(h: &Hosts, task: &TaskRow, line: &str) -> Said {
    task_command(h, task, &["-n", "-m", "--root", "sh", "-c", line])
}
fn on_its_network(h: &Hosts, task: &TaskRow, line: &str) -> Said {
    task_command(h, task, &["-n", "sh", "-c", line])
}
fn task_command(h: &Hosts, task: &TaskRow, words: &[&str]) -> Said {
    let pid = h.pid_of("m1", &task.id).to_string();
    pid_command(&pid, words)
}
fn pid_command(pid: &str, words: &[&str]) -> Said {
    let output = Command::new("timeout").args(["20", "nsenter", "-t", pid]).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A task's address on a network, as its own devices say.
fn own_addr(h: &Hosts, task: &TaskRow, device: &str) -> Ipv4Addr {
    let said = on_its_network(h, task, &format!("ip -4 -o addr show {device}"));
    let net = said.out.split_whitespace().nth(3).unwrap_or_else(|| panic!("no {device}: {said}"));
    net.split('/').next().unwrap().parse().unwrap()
}

/// Addresses that a task is told for a name, in order.
fn names(h: &Hosts, task: &TaskRow, name: &str) -> Vec<Ipv4Addr> {
    addresses_of(&inside(h, task, &format!("nslookup {name}")))
}
fn addresses_of(said: &Said) -> Vec<Ipv4Addr> {
    let answer = said.out.split("Name:").skip(1);
    let addrs = answer.flat_map(|part| part.lines().filter_map(|line| line.strip_prefix("Address: ")));
    let mut addrs: Vec<_> = addrs.filter_map(|addr| addr.trim().parse().ok()).collect();
    addrs.sort();
    addrs
}

/// A program beside a task's, which ends with this.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn beside(h: &Hosts, task: &TaskRow, python: &str) -> Beside {
    let pid = h.pid_of("m1", &task.id).to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-n", "python3", "-c", python]).stdin(Stdio::null());
    Beside(command.stdout(Stdio::piped()).spawn().unwrap())
}

const UDP_WHO: &str = "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\ns.bind(('::',9000))\n\
                       while True:\n d,a=s.recvfrom(65535)\n s.sendto((a[0].replace('::ffff:','')+' %d'%len(d)).encode(),a)\n";

fn udp_who(h: &Hosts, from: &str, to: &str, port: u16, bytes: usize) -> String {
    let python = format!(
        "import socket\ns=socket.socket(socket.AF_INET6 if \":\" in \"{to}\" else socket.AF_INET,socket.SOCK_DGRAM)\n\
         s.settimeout(2)\ns.sendto(b\"x\"*{bytes},(\"{to}\",{port}))\nprint(s.recv(999).decode())"
    );
    h.sh(from, &format!("python3 -c '{python}' 2>&1")).out.trim().to_owned()
}

fn d1_d7_every_node_leads_to_the_task_which_sees_the_client(h: &Hosts) {
    let on = "--constraint node.hostname==w1 -p 8080:80 -p 9000:9000/udp";
    h.ok("m1", &format!("service create -d --stop-grace-period 200ms --name d1 {on} {WHO}"));
    let task = h.until_running("m1", "d1", 1).remove(0);
    let udp = beside(h, &task, UDP_WHO);
    until("the page is there", || answers(h, "client", "w1", 8080));
    let nodes = ["m1", "w1", "w2"];
    for entry in nodes {
        let to = addr(h, entry).to_string();
        until(&format!("{entry} knows"), || answers(h, "client", entry, 8080));
        for from in ["client", "m1", "w1", "w2"] {
            let seen = addr(h, from).to_string();
            let page = who(h, from, &to, 8080);
            assert!(page.ends_with(&format!("sees [{seen}]")), "{from} at {entry}: {page}");
            let said = udp_who(h, from, &to, 9000, 10);
            assert_eq!(said, format!("{seen} 10"), "udp: {from} at {entry}");
        }
        let own = h.inspect("m1", &format!("node inspect {entry}"))["Network"]["EntryAddrs"][0].clone();
        let own = own.as_str().unwrap();
        assert!(who(h, entry, "127.0.0.1", 8080).ends_with(&format!("sees [{own}]")));
        assert_eq!(udp_who(h, entry, "127.0.0.1", 9000, 10), format!("{own} 10"));
        assert!(who(h, entry, "[::1]", 8080).contains("sees"), "[::1] of {entry}");
        assert!(udp_who(h, entry, "::1", 9000, 10).ends_with(" 10"), "[::1] of {entry}, udp");
        let six = |host: &str| h.cluster.hosts().iter().find(|r| r.name == host).unwrap().address6;
        let page = who(h, "client", &format!("[{}]", six(entry)), 8080);
        assert!(page.ends_with(&format!("sees [{}]", six("client"))), "IPv6 at {entry}: {page}");
    }
    // A task that calls a published port, through another node and through its own.
    for entry in nodes {
        let page = inside(h, &task, &format!("wget -qO- http://{}:8080/cgi-bin/who", addr(h, entry)));
        assert!(page.out.contains("sees"), "from the task at {entry}: {page}");
    }
    h.refused(
        "m1",
        "service create -d --stop-grace-period 200ms --name d3 -p 8080:80 demo:1",
        "port '8080' is already in use by service",
    );
    drop(udp);
    h.ok("m1", "service rm d1");
    until("nobody answers", || nodes.iter().all(|entry| !answers(h, "client", entry, 8080)));
    h.until_no_containers();
}

fn d8_services_call_each_other_by_name(h: &Hosts) {
    h.ok("m1", "service create -d --stop-grace-period 200ms --name a --network app --constraint node.hostname==m1 demo:1 sleep 1000");
    h.ok("m1", &format!("service create -d --stop-grace-period 200ms --name b --replicas 2 --network name=app,alias=db --constraint node.role==worker {WHO}"));
    let a = h.until_running("m1", "a", 1).remove(0);
    let b = h.until_running("m1", "b", 2);
    let mut tasks: Vec<_> = b.iter().map(|task| own_addr(h, task, "eth0")).collect();
    tasks.sort();
    until("all tasks are named", || names(h, &a, "tasks.b") == tasks);
    let [vip] = names(h, &a, "b")[..] else { panic!("not one virtual address: {:?}", names(h, &a, "b")) };
    assert!(!tasks.contains(&vip));
    assert_eq!((names(h, &a, "db"), names(h, &a, "B")), (vec![vip], vec![vip]));
    assert!(names(h, &a, "nobody.invalid").is_empty());
    let page = || inside(h, &a, "wget -qO- http://b/cgi-bin/who").out;
    until("the page is there", || page().contains("sees"));
    let own = own_addr(h, &a, "eth0");
    let pages: Vec<String> = (0..30).map(|_| page()).collect();
    assert!(pages.iter().all(|page| page.contains(&format!("sees [::ffff:{own}]"))), "{pages:?}");
    for task in &b {
        assert!(pages.iter().any(|page| page.starts_with(&task.id[..12])), "{} never answers", task.id);
        // Its own virtual address too.
        assert!(inside(h, task, "wget -qO- http://b/cgi-bin/who").out.contains("sees"));
        let said = inside(h, &a, &format!("ping -c 1 -W 2 {}", own_addr(h, task, "eth0")));
        assert_eq!(said.code, 0, "{said}");
    }
    h.ok("m1", "service rm a b");
    h.until_no_containers();
}

fn d9_dnsrr(h: &Hosts) {
    h.ok(
        "m1",
        "service create -d --stop-grace-period 200ms --name rr --replicas 3 --network app --endpoint-mode dnsrr demo:1 sleep 1000",
    );
    let rr = h.until_running("m1", "rr", 3);
    let mut tasks: Vec<_> = rr.iter().map(|task| own_addr(h, task, "eth0")).collect();
    tasks.sort();
    until("its name is all its tasks", || names(h, &rr[0], "rr") == tasks);
    h.refused(
        "m1",
        "service create -d --stop-grace-period 200ms --name rrp --endpoint-mode dnsrr --network app -p 8085:80 demo:1",
        "dnsrr",
    );
    h.ok("m1", "service rm rr");
    h.until_no_containers();
}

fn packets_of_any_size_pass(h: &Hosts) {
    h.ok("m1", "network create --opt encrypted=false clear");
    for network in ["app", "clear"] {
        h.ok("m1", &format!("service create -d --stop-grace-period 200ms --name big --mode global --network {network} {WHO}"));
        let big = h.until_running("m1", "big", 3);
        let (one, two) = (&big[0], &big[1]);
        let to = own_addr(h, two, "eth0");
        let said = on_its_network(h, one, "ip -o link show eth0");
        let mtu = said.out.split_whitespace().skip_while(|w| *w != "mtu").nth(1).unwrap();
        let mtu: u32 = mtu.parse().unwrap();
        assert_eq!(mtu, if network == "app" { 1390 } else { 1450 });
        until("the first packet", || on_its_network(h, one, &format!("ping -c 1 -W 1 {to}")).code == 0);
        let ping = |flags: &str| on_its_network(h, one, &format!("ping -c 1 -W 2 {flags} {to}"));
        for flags in [format!("-M do -s {}", mtu - 28), "-s 1400".into(), "-s 8000".into(), "-s 60000".into()]
        {
            assert_eq!(ping(&flags).code, 0, "{network}: {flags}");
        }
        let said = ping(&format!("-M do -s {}", mtu - 27));
        assert!(said.code != 0 && said.out.contains("0 received"), "{said}");
        until("the page is there", || inside(h, two, "ls -l /w/big").out.contains("20000000"));
        let got = on_its_network(h, one, &format!("curl -s -m 20 http://{to}/big | wc -c"));
        assert_eq!(got.out.trim(), "20000000", "{network}: {got}");
        h.ok("m1", "service rm big");
        h.until_no_containers();
    }
    h.ok("m1", "network rm clear");
}

/// Counts, for as long as its input is open, the frames on the wire between the hosts: those that hold the
/// word, and packets of the tunnel.
const CAPTURE: &str = r#"
import socket, sys, select
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("up", flush=True)
clear = tunnel = 0
while sys.stdin not in (ready := select.select([s, sys.stdin], [], [])[0]):
    f = s.recv(65535)
    clear += b"a-word-to-look-for" in f
    tunnel += f[12:14] == b"\x08\x00" and f[23] == 17 and f[36:38] == (4790).to_bytes(2, "big")
print(clear, tunnel)
"#;

fn d26_nothing_is_readable_between_nodes(h: &Hosts) {
    use std::io::{BufRead, BufReader};
    h.ok("m1", "network create --opt encrypted=false clear");
    for (network, encrypted) in [("clear", false), ("app", true)] {
        h.ok(
            "m1",
            &format!(
                "service create -d --stop-grace-period 200ms --name s --mode global --network {network} {WHO}"
            ),
        );
        let tasks = h.until_running("m1", "s", 3);
        let to = own_addr(h, &tasks[1], "eth0");
        let call = || {
            on_its_network(h, &tasks[0], &format!("curl -s -m 5 http://{to}/cgi-bin/who?a-word-to-look-for"))
        };
        until("the page is there", || call().out.contains("sees"));
        let mut capture = Command::new("ip");
        capture.args(["netns", "exec", &format!("swarm-{}-sw", h.cluster.name()), "python3", "-c", CAPTURE]);
        let mut capture = capture.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(capture.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        for _ in 0..20 {
            assert!(call().out.contains("sees"));
        }
        drop(capture.stdin.take());
        let counts = lines.next().unwrap().unwrap();
        capture.wait().unwrap();
        let counts: Vec<u32> = counts.split(' ').map(|n| n.parse().unwrap()).collect();
        assert!((counts[0] == 0) == encrypted, "{network}: frames with the word, of the tunnel: {counts:?}");
        assert!(!encrypted || counts[1] > 20, "{network}: {counts:?}");
        h.ok("m1", "service rm s");
        h.until_no_containers();
    }
    h.ok("m1", "network rm clear");
}

fn d20_predefined_networks(h: &Hosts) {
    let on = "--constraint node.hostname==w1";
    h.ok(
        "m1",
        &format!(
            "service create -d --stop-grace-period 200ms --name host --network host {on} demo:1 sleep 1000"
        ),
    );
    h.ok(
        "m1",
        &format!(
            "service create -d --stop-grace-period 200ms --name none --network none {on} demo:1 sleep 1000"
        ),
    );
    h.ok("m1", &format!("service create -d --stop-grace-period 200ms --name bridge --network bridge {on} demo:1 sleep 1000"));
    let task = |name: &str| h.until_running("m1", name, 1).remove(0);
    let devices = |name: &str| inside(h, &task(name), "ls /sys/class/net").out.replace('\n', " ");
    let host = inside(h, &task("host"), "ip -4 -o addr show eth0").out;
    assert!(host.contains(&addr(h, "w1").to_string()), "{host}");
    assert_eq!(devices("none").trim(), "lo");
    assert_eq!(devices("bridge").trim(), "gw0 lo");
    // A way out, with the node's address.
    let said = inside(h, &task("bridge"), &format!("ping -c 1 -W 2 {}", addr(h, "client")));
    assert_eq!(said.code, 0, "{said}");
    h.ok("m1", "service rm host none bridge");
    h.until_no_containers();
}

fn every_node_has_what_it_is_to_have(h: &Hosts) {
    let mut said = None;
    let agree = poll(Duration::from_secs(10), || {
        let said = said.insert(h.ctl("m1", "network check"));
        said.code == 0 && (said.out.contains("agree") || said.out.contains("no node differs"))
    });
    assert!(agree, "{}", said.unwrap());
}

fn what_others_destroy_is_repaired(h: &Hosts) {
    let to = addr(h, "m1").to_string();
    for harm in [
        "nft flush ruleset",
        "ip link del sw-ing",
        "ip link set sw-wg0 down",
        "ip route flush proto 83",
        "sysctl -qw net.ipv4.ip_forward=0",
    ] {
        let said = h.sh("m1", harm);
        assert_eq!(said.code, 0, "{harm}: {said}");
        let began = Instant::now();
        let repaired = poll(Duration::from_secs(10), || who(h, "client", &to, 8080).contains("sees"));
        assert!(repaired && began.elapsed() < Duration::from_secs(4), "after {harm}: {:?}", began.elapsed());
    }
}

/// Speaks once every tenth of a second on one connection; says how often it got an answer.
const SPEAK: &str = "import socket,sys,time\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),5)\ns.settimeout(8)\n\
                     n=0\nwhile True:\n s.sendall(b\"x\")\n assert s.recv(1)==b\"x\"\n n+=1\n print(n,flush=True)\n time.sleep(0.1)\n";
const ECHO: &str = "import socket,threading\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"\",80+7000));s.listen()\n\
                    def f(c):\n while True:\n  d=c.recv(9)\n  if not d: return\n  c.sendall(d)\n\
                    while True: threading.Thread(target=f,args=(s.accept()[0],),daemon=True).start()\n";

fn speaker(h: &Hosts, pid: &str, to: &str, port: u16, file: &str) -> (Beside, std::path::PathBuf) {
    let path = h.scratch().join(file);
    let out = std::fs::File::create(&path).unwrap();
    let mut command = Command::new("nsenter");
    command.args(["-t", pid, "-n", "python3", "-c", SPEAK, to, &port.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(out).spawn().unwrap();
    (Beside(child), path)
}

fn count(path: &std::path::Path) -> u32 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

fn connections_outlive_daemons(h: &Hosts, web: &[TaskRow]) {
    let _echo: Vec<Beside> = web.iter().map(|task| beside(h, task, ECHO)).collect();
    let pids: Vec<String> = web.iter().map(|task| h.pid_of("m1", &task.id).to_string()).collect();
    // One from task to task, over the network's virtual address and straight, encrypted.
    let two = own_addr(h, &web[1], "eth0").to_string();
    let vip = names(h, &web[0], "web")[0].to_string();
    let mut all = vec![speaker(h, &pids[0], &two, 7080, "straight"), speaker(h, &pids[0], &vip, 7080, "vip")];
    until("all speak", || all.iter().all(|(_, path)| count(path) > 3));
    let said: Vec<u32> = all.iter().map(|(_, path)| count(path)).collect();
    let carriers = || ["w1", "w2"].map(|host| tunnel_of(h, host));
    let before = carriers();
    assert!(before.iter().all(|pids| pids.len() == 1), "one process carries each node's tunnel: {before:?}");
    for n in 0..20 {
        let host = ["w1", "w2", "m1"][n % 3];
        h.cluster.kill_daemon(host).unwrap();
        h.cluster.start(host).unwrap();
    }
    for ((child, path), before) in all.iter_mut().zip(said) {
        assert_eq!(child.0.try_wait().unwrap(), None, "the connection broke: {}", path.display());
        until_in(Duration::from_secs(15), "it goes on", || count(path) > before + 20);
    }
    assert_eq!(carriers(), before, "none of them was touched");
    until("all nodes are back", || h.rows("m1", "node ls").iter().all(|row| row["Status"] == "Ready"));
    let now = h.until_running("m1", "web", 2);
    assert_eq!(now.iter().map(|t| &t.id).collect::<Vec<_>>(), web.iter().map(|t| &t.id).collect::<Vec<_>>());
}

/// The processes that carry a host's tunnel: what they say goes to its log.
fn tunnel_of(h: &Hosts, host: &str) -> Vec<i32> {
    let log = h.cluster.state_dir(host).parent().unwrap().join("run/tunnel/log");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|path| path == log);
    pids.filter(ours).collect()
}

/// No daemon anywhere, so no manager either.
fn tasks_talk_while_all_daemons_are_dead(h: &Hosts, web: &[TaskRow]) {
    let _echo: Vec<Beside> = web.iter().map(|task| beside(h, task, ECHO)).collect();
    let pids: Vec<String> = web.iter().map(|task| h.pid_of("m1", &task.id).to_string()).collect();
    let two = own_addr(h, &web[1], "eth0").to_string();
    let vip = names(h, &web[0], "web")[0].to_string();
    let (mut old, old_path) = speaker(h, &pids[0], &two, 7080, "old");
    until("it speaks", || count(&old_path) > 3);
    let nodes = ["m1", "w1", "w2"];
    nodes.iter().for_each(|host| h.cluster.kill_daemon(host).unwrap());
    let ping = pid_command(&pids[0], &["-n", "ping", "-c", "50", "-i", "0.02", "-W", "5", &two]);
    assert!(ping.out.contains("50 received"), "while all daemons are dead: {ping}");
    // Connections of before, and new ones, straight and by the virtual address.
    let before = count(&old_path);
    let new = [(&two, "new"), (&vip, "new-vip")].map(|(to, file)| speaker(h, &pids[0], to, 7080, file));
    until("new ones speak", || new.iter().all(|(_, path)| count(path) > 20));
    until("the old one goes on", || count(&old_path) > before + 20);
    assert_eq!(old.0.try_wait().unwrap(), None, "the connection broke");
    nodes.iter().for_each(|host| h.cluster.start(host).unwrap());
    until("all nodes are back", || {
        h.try_rows("m1", "node ls").is_some_and(|rows| rows.iter().all(|row| row["Status"] == "Ready"))
    });
}

fn the_tunnels_process_is_replaced_at_once(h: &Hosts, web: &[TaskRow]) {
    let _echo = beside(h, &web[1], ECHO);
    let pid = h.pid_of("m1", &web[0].id).to_string();
    let two = own_addr(h, &web[1], "eth0").to_string();
    let (mut child, path) = speaker(h, &pid, &two, 7080, "replaced");
    until("it speaks", || count(&path) > 3);
    for host in ["w1", "w2", "w1"] {
        let [carrier] = tunnel_of(h, host)[..] else { panic!("not one: {:?}", tunnel_of(h, host)) };
        let before = count(&path);
        let said = h.sh(host, &format!("kill -9 {carrier}"));
        assert_eq!(said.code, 0, "{said}");
        let began = Instant::now();
        until_in(
            Duration::from_secs(10),
            "another one carries it",
            || matches!(tunnel_of(h, host)[..], [now] if now != carrier),
        );
        until_in(Duration::from_secs(10), "it goes on", || count(&path) > before + 10);
        println!("the tunnel of {host} was killed, and carried on after {:?}", began.elapsed());
    }
    assert_eq!(child.0.try_wait().unwrap(), None, "the connection broke");
}

fn all_goes_on_without_managers(h: &Hosts, web: &[TaskRow]) {
    let pid = h.pid_of("m1", &web[0].id).to_string();
    let workers = ["w1", "w2"];
    h.cluster.kill_daemon("m1").unwrap();
    let page = |entry: &str| who(h, "client", &addr(h, entry).to_string(), 8080).contains("sees");
    let lookup = || addresses_of(&pid_command(&pid, &["-n", "-m", "--root", "nslookup", "tasks.web"])).len();
    for again in [false, true] {
        if again {
            // Daemons that start without any manager to ask.
            for host in workers {
                h.cluster.kill_daemon(host).unwrap();
                h.cluster.start(host).unwrap();
            }
        }
        until("names are answered", || lookup() == 2);
        // Also through the node of the manager, whose daemon is dead.
        let entries = ["m1", "w1", "w2"];
        entries.iter().for_each(|entry| until(&format!("{entry} leads to a task"), || page(entry)));
        let said = h.sh("w1", "nft flush ruleset");
        assert_eq!(said.code, 0, "{said}");
        until_in(Duration::from_secs(4), "repaired without managers", || page("w1"));
    }
    h.cluster.start("m1").unwrap();
    until("all nodes are back", || {
        h.try_rows("m1", "node ls").is_some_and(|rows| rows.iter().all(|row| row["Status"] == "Ready"))
    });
    every_node_has_what_it_is_to_have(h);
}

fn d10_a_dead_task_leaves_names_and_virtual_addresses(h: &Hosts) {
    h.ok("m1", "service create -d --stop-grace-period 200ms --name a --network app --constraint node.hostname==m1 demo:1 sleep 1000");
    h.ok(
        "m1",
        &format!(
            "service create -d --stop-grace-period 200ms --name b --replicas 2 --network app --constraint node.role==worker {WHO}"
        ),
    );
    let a = h.until_running("m1", "a", 1).remove(0);
    let b = h.until_running("m1", "b", 2);
    let dead = b.iter().find(|task| task.node == "w2").unwrap();
    let gone = own_addr(h, dead, "eth0");
    until("both are named", || names(h, &a, "tasks.b").len() == 2);
    h.cluster.kill("w2").unwrap();
    until("it is Down", || h.node("m1", "w2").is_some_and(|row| row["Status"] == "Down"));
    until_in(Duration::from_secs(2), "its address is not answered", || {
        !names(h, &a, "tasks.b").contains(&gone)
    });
    let b = h.until_running("m1", "b", 2);
    // A task serves as soon as its container runs; this one's program may need a moment until it listens.
    for addr in b.iter().map(|task| own_addr(h, task, "eth0")) {
        let call = format!("wget -qO- http://{addr}/cgi-bin/who");
        until(&format!("{addr} answers"), || inside(h, &a, &call).out.contains("sees"));
    }
    for _ in 0..20 {
        assert!(!names(h, &a, "tasks.b").contains(&gone));
        let page = inside(h, &a, "wget -qO- http://b/cgi-bin/who");
        assert!(page.out.contains("sees"), "{page}");
    }
    h.ok("m1", "service rm a b");
    h.cluster.start("w2").unwrap();
    h.until_node("m1", "w2", "Status", "Ready");
    h.until_no_containers();
}

fn a_node_that_leaves_keeps_nothing(h: &Hosts) {
    h.ok("m1", &format!("service create -d --stop-grace-period 200ms --name c --mode global --network app -p 8080:80 {WHO}"));
    h.until_running("m1", "c", 3);
    until("w1 leads to a task", || answers(h, "client", "w1", 8080));
    h.ok("w1", "leave");
    let left = "ip -o link | grep -o 'sw-[^:@]*'; nft list tables; ip rule | grep -v 'lookup \\(local\\|main\\|default\\)'; \
                ip route show table all | grep 'proto 83\\|100.127'";
    until("nothing of ours is left on w1", || h.sh("w1", left).out.trim().is_empty());
    let run = h.cluster.state_dir("w1").parent().unwrap().join("run/netns");
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
    assert_eq!(tunnel_of(h, "w1"), Vec::<i32>::new());
    assert_eq!(tunnel_of(h, "w2").len(), 1);
    h.ok("m1", "service rm c");
    h.until_no_containers();
    let carried = || ["m1", "w2"].iter().any(|host| !tunnel_of(h, host).is_empty());
    until("no network needs a tunnel, and nobody has one", || !carried());
}
