//! Published ports as Docker's tables print them.

use swarm_types::endpoint::{Port, Protocol, PublishMode};

/// `service ls`: ingress ports alone, those that follow each other as a range.
pub(crate) fn ingress(ports: &[Port]) -> String {
    let mut ports: Vec<&Port> = ports.iter().filter(|p| p.mode == PublishMode::Ingress).collect();
    ports.sort_by_key(|p| (p.protocol.as_str(), p.host_ip, p.published, p.target));
    let mut runs: Vec<Run> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some(run) if run.takes(port) => {
                run.published.1 = port.published;
                run.target.1 = port.target;
            }
            _ => runs.push(Run::new(port)),
        }
    }
    runs.iter().map(Run::text).collect::<Vec<_>>().join(", ")
}

/// `service ps`: the ports that a node opened for a task.
pub(crate) fn host(ports: &[Port]) -> String {
    ports.iter().map(|port| Run::new(port).text()).collect::<Vec<_>>().join(",")
}

/// One port, whatever its mode: `*:8080->80/tcp`.
pub(crate) fn one(port: &Port) -> String {
    Run::new(port).text()
}

/// Ports that follow each other.
struct Run {
    published: (u16, u16),
    target: (u16, u16),
    protocol: Protocol,
    host_ip: Option<std::net::IpAddr>,
}

impl Run {
    fn new(port: &Port) -> Run {
        let (published, target) = ((port.published, port.published), (port.target, port.target));
        Run { published, target, protocol: port.protocol, host_ip: port.host_ip }
    }
    /// Both numbers go on by one, or several published ones lead to one target.
    fn takes(&self, port: &Port) -> bool {
        let follows = |last: u16, next: u16| last.checked_add(1) == Some(next);
        let target = match self.published.0 == self.published.1 {
            true => port.target == self.target.1 || follows(self.target.1, port.target),
            false if self.target.0 == self.target.1 => port.target == self.target.1,
            false => follows(self.target.1, port.target),
        };
        (self.protocol, self.host_ip) == (port.protocol, port.host_ip)
            && follows(self.published.1, port.published)
            && target
    }
    fn text(&self) -> String {
        let range = |(first, last): (u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let ip = match self.host_ip {
            None => "*".to_owned(),
            Some(ip) if ip.is_ipv6() => format!("[{ip}]"),
            Some(ip) => ip.to_string(),
        };
        format!("{ip}:{}->{}/{}", range(self.published), range(self.target), self.protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::publish;

    fn ports(texts: &[&str]) -> Vec<Port> {
        texts.iter().flat_map(|t| publish::parse(t).unwrap().0).collect()
    }

    #[test]
    fn ranges_are_merged() {
        for (texts, shown) in [
            (&["8080:80"][..], "*:8080->80/tcp"),
            (&["82:82", "80:80", "81:81"], "*:80-82->80-82/tcp"),
            (&["8000-8002:80"], "*:8000-8002->80/tcp"),
            (&["80:80", "81:81", "82:81", "90:90"], "*:80-81->80-81/tcp, *:82->81/tcp, *:90->90/tcp"),
            (&["80:80/udp", "80:80"], "*:80->80/tcp, *:80->80/udp"),
            (&["published=80,target=80,mode=host"], ""),
            (&["10.0.0.1:80:80", "[fd00::1]:81:81"], "10.0.0.1:80->80/tcp, [fd00::1]:81->81/tcp"),
        ] {
            assert_eq!(ingress(&ports(texts)), shown);
        }
        assert_eq!(
            host(&ports(&["published=80,target=80,mode=host", "81:81/udp"])),
            "*:80->80/tcp,*:81->81/udp"
        );
    }
}
