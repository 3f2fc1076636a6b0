//! `--publish`, in Docker's grammar: `[IP:][published:]target[/protocol]` with ranges, or
//! `published=8080,target=80,protocol=tcp,mode=host,ip=10.0.0.1`. Docker's refuses an address for services;
//! here it is kept.

use std::net::IpAddr;

use swarm_types::endpoint::{Port, Protocol, PublishMode};

/// The ports that one flag names: several if it is a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published(pub(crate) Vec<Port>);

/// What `--publish-rm` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removal {
    ports: Vec<Port>,
    /// The long form says it; the short one means both.
    with_mode: bool,
}

/// Reads one flag.
pub(crate) fn parse(text: &str) -> Result<Published, String> {
    let ports = if text.contains('=') { long(text).map(|port| vec![port]) } else { short(text) };
    ports.map(Published)
}

/// Reads a target port, or a port in one of the forms of `--publish`.
pub(crate) fn removal(text: &str) -> Result<Removal, String> {
    Ok(Removal { ports: parse(text)?.0, with_mode: text.contains("mode=") })
}

impl Removal {
    fn fits(&self, port: &Port) -> bool {
        self.ports.iter().any(|p| {
            (p.target, p.protocol) == (port.target, port.protocol)
                && (p.published == 0 || p.published == port.published)
                && (!self.with_mode || p.mode == port.mode)
        })
    }
}

/// Removes first, then adds. An added port takes the place of the one that it changes: the same target and
/// protocol under the same number, or under a number that was left to the managers. What is there already
/// is not added again.
pub(crate) fn change(ports: &mut Vec<Port>, add: &[Published], remove: &[Removal]) {
    ports.retain(|port| !remove.iter().any(|r| r.fits(port)));
    let mut new: Vec<Port> = Vec::new();
    for port in add.iter().flat_map(|published| &published.0) {
        if ports.contains(port) || new.contains(port) {
            continue;
        }
        let same = |p: &Port| (p.target, p.protocol) == (port.target, port.protocol);
        let place = ports.iter().position(|p| same(p) && p.published == port.published);
        let place = place.or_else(|| ports.iter().position(|p| same(p) && p.published == 0));
        match place {
            Some(place) => ports[place] = *port,
            None => new.push(*port),
        }
    }
    ports.extend(new);
}

fn long(text: &str) -> Result<Port, String> {
    let mut port = Port::default();
    for field in text.split(',') {
        let pair = field.split_once('=').filter(|(_, value)| !value.is_empty());
        let (key, value) =
            pair.ok_or_else(|| format!("invalid field: `{field}` must be a key=value pair"))?;
        let number = |what: &str| {
            let number = value.parse::<u16>();
            number.map_err(|_| format!("invalid {what} port ({value}): value must be a number up to 65535"))
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "protocol" => port.protocol = protocol(value)?,
            "mode" => port.mode = mode(value)?,
            "target" => port.target = number("target")?,
            "published" => port.published = number("published")?,
            "ip" | "host_ip" => port.host_ip = address(value)?,
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if port.target == 0 {
        return Err("missing mandatory field `target`".into());
    }
    Ok(port)
}

/// Behind Docker's words, which do not say it.
const NUMBERS: &str = "a port is a number from 1 to 65535, or a range such as 8000-8010";

fn short(text: &str) -> Result<Vec<Port>, String> {
    let (rest, word) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(word)?;
    let (ip, published, target) = parts(rest)?;
    let host_ip = if ip.is_empty() { None } else { address(ip)? };
    let targets = range(target).ok_or_else(|| format!("invalid containerPort: {target} ({NUMBERS})"))?;
    let published = match published {
        "" => None,
        text => Some(range(text).ok_or_else(|| format!("invalid hostPort: {text} ({NUMBERS})"))?),
    };
    let port = |published: u16, target: u16| Port {
        protocol,
        target,
        published,
        mode: PublishMode::Ingress,
        host_ip,
    };
    match published {
        None => Ok(targets.map(|target| port(0, target)).collect()),
        Some(published) if published.len() == targets.len() => {
            Ok(published.zip(targets).map(|(p, t)| port(p, t)).collect())
        }
        // As in Docker: several numbers for one port.
        Some(published) if targets.len() == 1 => Ok(published.map(|p| port(p, *targets.start())).collect()),
        Some(_) => Err(format!("invalid ranges specified for container and host Ports: {rest}")),
    }
}

/// Address, published and target.
fn parts(text: &str) -> Result<(&str, &str, &str), String> {
    if text.is_empty() {
        return Err("no port specified".into());
    }
    let Some((before, target)) = text.rsplit_once(':') else { return Ok(("", "", text)) };
    match before.rsplit_once(':') {
        Some((ip, published)) if !ip.is_empty() => Ok((ip, published, target)),
        Some(_) => Err(format!("`{text}`: an address is expected before the first colon")),
        None if before.is_empty() => Err(format!("`{text}`: a published port is expected before the colon")),
        None => Ok(("", before, target)),
    }
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

fn address(text: &str) -> Result<Option<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip: IpAddr = bare.parse().map_err(|_| format!("invalid IP address: {text}"))?;
    // `0.0.0.0` is Docker's word for all addresses.
    Ok(Some(ip).filter(|ip| !ip.is_unspecified()))
}

/// Reads `tcp`, `udp` or `sctp`.
pub(crate) fn protocol(word: &str) -> Result<Protocol, String> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let found = all.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(word));
    found.ok_or_else(|| format!("invalid protocol: {word} (tcp, udp and sctp are there)"))
}

fn mode(word: &str) -> Result<PublishMode, String> {
    match word {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        _ => Err(format!("invalid publish mode value ({word}): must be either `ingress` or `host`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(port: &Port) -> String {
        let ip = port.host_ip.map(|ip| format!("{ip}:")).unwrap_or_default();
        let (protocol, mode) = (port.protocol.as_str(), port.mode.as_str());
        format!("{ip}{}->{}/{protocol} {mode}", port.published, port.target)
    }
    fn shown(text: &str) -> String {
        parse(text).unwrap().0.iter().map(show).collect::<Vec<_>>().join(", ")
    }
    fn all(texts: &[&str]) -> Vec<Published> {
        texts.iter().map(|t| parse(t).unwrap()).collect()
    }

    #[test]
    fn short_and_long() {
        for (text, ports) in [
            ("80", "0->80/tcp ingress"),
            ("8080:80", "8080->80/tcp ingress"),
            ("53:53/udp", "53->53/udp ingress"),
            ("10.0.0.1:8080:80/sctp", "10.0.0.1:8080->80/sctp ingress"),
            ("[fd00::1]:8080:80", "fd00::1:8080->80/tcp ingress"),
            ("fd00::1:8080:80", "fd00::1:8080->80/tcp ingress"),
            ("10.0.0.1::80", "10.0.0.1:0->80/tcp ingress"),
            ("0.0.0.0:80:80", "80->80/tcp ingress"),
            ("8000-8001:80-81", "8000->80/tcp ingress, 8001->81/tcp ingress"),
            ("80-81", "0->80/tcp ingress, 0->81/tcp ingress"),
            ("8000-8001:80", "8000->80/tcp ingress, 8001->80/tcp ingress"),
            ("target=80", "0->80/tcp ingress"),
            ("published=8080,target=80,protocol=udp,mode=host,ip=10.0.0.1", "10.0.0.1:8080->80/udp host"),
        ] {
            assert_eq!(shown(text), ports, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("", "no port specified"),
            ("x", "invalid containerPort: x"),
            ("0", "invalid containerPort: 0"),
            ("8080:65536", "invalid containerPort: 65536"),
            ("99999:80", "invalid hostPort: 99999 (a port is a number from 1 to 65535"),
            (
                "published=70000,target=80",
                "invalid published port (70000): value must be a number up to 65535",
            ),
            (":80", "a published port is expected"),
            ("80/icmp", "invalid protocol: icmp"),
            ("8000-8002:80-81", "invalid ranges"),
            ("81-80", "invalid containerPort"),
            ("host:80:80", "invalid IP address: host"),
            ("10.0.0.1:80", "invalid hostPort"),
            ("published=80", "missing mandatory field `target`"),
            ("target=80,mode=mesh", "invalid publish mode value (mesh)"),
            ("target=80,colour=red", "invalid field key colour"),
            ("target=x", "invalid target port (x)"),
            ("target=80,published", "must be a key=value pair"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn adding_twice_is_adding_once() {
        let changed = |before: &[&str], add: &[&str], remove: &[&str]| {
            let mut ports = all(before).into_iter().flat_map(|p| p.0).collect();
            let remove: Vec<_> = remove.iter().map(|r| removal(r).unwrap()).collect();
            change(&mut ports, &all(add), &remove);
            ports.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(changed(&["80:80"], &["80:80", "80:80"], &[]), ["80->80/tcp ingress"]);
        // D2: another number for the same port; the first goes on.
        let both = ["8080->80/tcp ingress", "9090->80/tcp ingress"];
        assert_eq!(changed(&["8080:80"], &["9090:80"], &[]), both);
        assert_eq!(changed(&["80:80"], &["target=80,published=80,mode=host"], &[]), ["80->80/tcp host"]);
        assert_eq!(
            changed(&["80", "81:81"], &["8080:80"], &[]),
            ["8080->80/tcp ingress", "81->81/tcp ingress"]
        );
        assert_eq!(changed(&["80:80"], &["80:80/udp"], &[]).len(), 2);
        assert_eq!(changed(&["80:80", "80:80/udp", "8080:80"], &[], &["80"]), ["80->80/udp ingress"]);
        assert_eq!(changed(&["80:80", "8080:80"], &[], &["80:80"]), ["8080->80/tcp ingress"]);
        let host = "target=80,published=81,mode=host";
        assert_eq!(changed(&["80:80", host], &[], &["target=80,mode=host"]), ["80->80/tcp ingress"]);
        assert_eq!(changed(&["80:80"], &["90:80"], &["80"]), ["90->80/tcp ingress"]);
    }
}
