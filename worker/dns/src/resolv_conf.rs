//! Whom the host asks for names: the `nameserver` lines of its resolv.conf, read again when it changed.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// As many as libc takes (resolv.conf(5)).
const MAX_SERVERS: usize = 3;
/// A change is seen after so long at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The file, as last read.
#[derive(Debug)]
pub(crate) struct ResolvConf {
    path: PathBuf,
    port: u16,
    looked: Option<Instant>,
    stamp: Option<(SystemTime, u64)>,
    servers: Vec<SocketAddr>,
}

impl ResolvConf {
    /// The file at `path`; its servers are asked at `port`.
    pub(crate) fn new(path: PathBuf, port: u16) -> Self {
        Self { path, port, looked: None, stamp: None, servers: Vec::new() }
    }

    /// The servers, in the file's order. None if it names none or cannot be read.
    pub(crate) fn servers(&mut self, now: Instant) -> &[SocketAddr] {
        if self.looked.is_none_or(|at| now.duration_since(at) >= LOOK_EVERY) {
            self.looked = Some(now);
            let stamp = fs::metadata(&self.path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
            if stamp.is_none() || stamp != self.stamp {
                self.stamp = stamp;
                self.servers = self.read().unwrap_or_default();
            }
        }
        &self.servers
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(parse(&fs::read_to_string(&self.path)?, self.port))
    }
}

/// The addresses of the servers that a file names, in its order; none if it cannot be read.
pub fn resolvers(path: &Path) -> Vec<IpAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    parse(&text, 53).iter().map(SocketAddr::ip).collect()
}

fn parse(text: &str, port: u16) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace());
    let servers = words.filter_map(|mut words| match words.next() {
        Some("nameserver") => server(words.next()?, port),
        _ => None,
    });
    servers.take(MAX_SERVERS).collect()
}

fn server(word: &str, port: u16) -> Option<SocketAddr> {
    match word.split_once('%') {
        None => Some(SocketAddr::new(word.parse().ok()?, port)),
        Some((addr, device)) => {
            let index = match device.parse() {
                Ok(index) => index,
                Err(_) => nix::net::if_::if_nametoindex(device).ok()?,
            };
            Some(SocketAddrV6::new(addr.parse().ok()?, port, 0, index).into())
        }
    }
}

/// An address at which Docker's resolver answers in a container: never one of the host's.
pub(crate) fn is_dockers(addr: IpAddr) -> bool {
    addr == IpAddr::from([127, 0, 0, 11])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_taken_in_order() {
        let text = "# a comment\nsearch a.example\nnameserver 10.0.0.1\n nameserver\t::1 # more\n\
                    options ndots:2\nnameserver nonsense\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let servers: Vec<String> = parse(text, 53).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"]);
        assert_eq!(parse("nameserver fe80::1%lo", 53)[0].to_string(), "[fe80::1%1]:53");
        assert!(parse("nameserver\nnameserver fe80::1%no-such-device\n;nameserver 10.0.0.1", 53).is_empty());
    }

    #[test]
    fn a_change_is_seen_and_a_lost_file_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut conf = ResolvConf::new(path.clone(), 53);
        let mut now = Instant::now();
        assert!(conf.servers(now).is_empty());
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        now += LOOK_EVERY;
        assert_eq!(conf.servers(now).len(), 1);
        fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").unwrap();
        assert_eq!(conf.servers(now).len(), 1, "looked at again only after a while");
        now += LOOK_EVERY;
        assert_eq!(conf.servers(now).len(), 2);
        fs::remove_file(&path).unwrap();
        now += LOOK_EVERY;
        assert!(conf.servers(now).is_empty());
    }
}
