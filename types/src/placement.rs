//! Where tasks may run: [`Constraint`]s on nodes, and platforms.
//!
//! Semantics from Docker Swarm: all constraints must hold; values are compared without regard to
//! case; a label that a node does not have equals nothing.

use std::fmt;
use std::net::IpAddr;

use crate::node::Node;

/// Restricts where the tasks of a service may run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// Platforms that the image has; empty means "not known, try anywhere".
    pub platforms: Vec<Platform>,
    /// At most so many tasks of the service on one node; 0 means no limit.
    pub max_replicas_per_node: u64,
}

/// Operating system and processor architecture, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl Platform {
    /// True if a node of platform `node` can run what this one describes. Empty parts match all;
    /// `x86_64` and `aarch64` are other words for `amd64` and `arm64`.
    pub fn runs_on(&self, node: &Platform) -> bool {
        let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || normal(a) == normal(b);
        same(&self.os, &node.os) && same(&self.architecture, &node.architecture)
    }
}

fn normal(word: &str) -> &str {
    match word {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a constraint looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Subject {
    NodeId,
    Hostname,
    Role,
    Ip,
    PlatformOs,
    PlatformArch,
    NodeLabel(String),
    EngineLabel(String),
}

/// One condition on a node, e.g. `node.labels.zone==a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// What is looked at.
    pub subject: Subject,
    /// `==` (true) or `!=` (false).
    pub equal: bool,
    /// What it is compared with.
    pub value: String,
}

/// A text is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    /// Neither `==` nor `!=` in it.
    #[error("constraint expected one operator from ==, != in `{0}`")]
    NoOperator(String),
    /// The left side names nothing that we know.
    #[error(
        "unknown constraint key `{0}`: use node.id, node.hostname, node.role, node.ip, node.platform.os, \
         node.platform.arch, node.labels.KEY or engine.labels.KEY"
    )]
    UnknownKey(String),
    /// The right side is empty or has forbidden characters.
    #[error("constraint `{0}` has an invalid value: letters, digits, `-_.:/ *` are allowed")]
    BadValue(String),
    /// `node.role` is neither manager nor worker, `node.ip` is no address.
    #[error("constraint `{0}`: {1}")]
    Meaningless(String, &'static str),
}

impl Constraint {
    /// Reads `key==value` or `key!=value`; spaces around the parts are ignored.
    pub fn parse(text: &str) -> Result<Constraint, InvalidConstraint> {
        let (key, equal, value) = split(text).ok_or_else(|| InvalidConstraint::NoOperator(text.into()))?;
        let subject = subject(key).ok_or_else(|| InvalidConstraint::UnknownKey(key.into()))?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/ *".contains(c);
        if value.is_empty() || !value.chars().all(allowed) {
            return Err(InvalidConstraint::BadValue(text.into()));
        }
        let sense = match subject {
            Subject::Role if !is_one_of(value, &["manager", "worker"]) => {
                Some("the role is manager or worker")
            }
            Subject::Ip if parse_network(value).is_none() => Some("not an IP address or CIDR block"),
            _ => None,
        };
        match sense {
            Some(why) => Err(InvalidConstraint::Meaningless(text.into(), why)),
            None => Ok(Constraint { subject, equal, value: value.to_owned() }),
        }
    }

    /// True if `node` satisfies this.
    pub fn matches(&self, node: &Node) -> bool {
        let has = |actual: &str| actual.eq_ignore_ascii_case(&self.value);
        let found = match &self.subject {
            Subject::NodeId => has(node.id.as_str()),
            Subject::Hostname => has(&node.description.hostname),
            Subject::Role => has(node.spec.role.as_str()),
            Subject::Ip => ip_within(&node.status.addr, &self.value),
            Subject::PlatformOs => has(&node.description.platform.os),
            Subject::PlatformArch => {
                normal(&node.description.platform.architecture).eq_ignore_ascii_case(normal(&self.value))
            }
            Subject::NodeLabel(key) => node.spec.annotations.labels.get(key).is_some_and(|v| has(v)),
            Subject::EngineLabel(key) => node.description.engine_labels.get(key).is_some_and(|v| has(v)),
        };
        found == self.equal
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::NodeId => f.write_str("node.id")?,
            Subject::Hostname => f.write_str("node.hostname")?,
            Subject::Role => f.write_str("node.role")?,
            Subject::Ip => f.write_str("node.ip")?,
            Subject::PlatformOs => f.write_str("node.platform.os")?,
            Subject::PlatformArch => f.write_str("node.platform.arch")?,
            Subject::NodeLabel(key) => write!(f, "node.labels.{key}")?,
            Subject::EngineLabel(key) => write!(f, "engine.labels.{key}")?,
        }
        write!(f, "{}{}", if self.equal { "==" } else { "!=" }, self.value)
    }
}

fn split(text: &str) -> Option<(&str, bool, &str)> {
    let at = |op: &str| text.find(op).map(|i| (i, op == "=="));
    let (i, equal) = match (at("=="), at("!=")) {
        (Some(a), Some(b)) => a.min(b),
        (one, other) => one.or(other)?,
    };
    Some((text[..i].trim(), equal, text[i + 2..].trim()))
}

fn subject(key: &str) -> Option<Subject> {
    let label = |prefix: &str| key.strip_prefix(prefix).filter(|k| !k.is_empty()).map(str::to_owned);
    Some(match key.to_ascii_lowercase().as_str() {
        "node.id" => Subject::NodeId,
        "node.hostname" => Subject::Hostname,
        "node.role" => Subject::Role,
        "node.ip" => Subject::Ip,
        "node.platform.os" => Subject::PlatformOs,
        "node.platform.arch" => Subject::PlatformArch,
        _ => match label("node.labels.") {
            Some(k) => Subject::NodeLabel(k),
            None => Subject::EngineLabel(label("engine.labels.")?),
        },
    })
}

fn is_one_of(value: &str, words: &[&str]) -> bool {
    words.iter().any(|w| w.eq_ignore_ascii_case(value))
}

fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr.parse::<IpAddr>().ok()?, Some(len.parse::<u32>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let len = len.unwrap_or(width);
    (len <= width).then_some((addr, len))
}

fn ip_within(addr: &str, network: &str) -> bool {
    let (Ok(addr), Some((net, len))) = (addr.parse::<IpAddr>(), parse_network(network)) else { return false };
    match (addr, net) {
        (IpAddr::V4(a), IpAddr::V4(n)) => len == 0 || (a.to_bits() ^ n.to_bits()) >> (32 - len) == 0,
        (IpAddr::V6(a), IpAddr::V6(n)) => len == 0 || (a.to_bits() ^ n.to_bits()) >> (128 - len) == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Role;

    fn node() -> Node {
        let mut node = Node { id: "abc".into(), ..Node::default() };
        node.spec.role = Role::Manager;
        node.spec.annotations.labels.insert("zone".into(), "A".into());
        node.description.hostname = "m1".into();
        node.description.platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
        node.status.addr = "10.1.2.3".into();
        node
    }

    #[test]
    fn matching_follows_swarm() {
        let yes = [
            "node.id==ABC",
            "node.hostname == m1",
            "node.role!=worker",
            "node.labels.zone==a",
            "node.labels.other!=x",
            "node.ip==10.1.0.0/16",
            "node.ip!=10.2.0.0/16",
            "node.platform.arch==amd64",
            "node.platform.os==linux",
        ];
        let no = ["node.labels.other==x", "node.labels.zone!=a", "node.ip==10.1.2.4", "engine.labels.x==y"];
        for text in yes {
            assert!(Constraint::parse(text).unwrap().matches(&node()), "{text}");
        }
        for text in no {
            assert!(!Constraint::parse(text).unwrap().matches(&node()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "node.role",
            "node.role=manager",
            "node.role==boss",
            "node.labels.==x",
            "node.ip==300.1.1.1",
            "node.ip==10.0.0.0/33",
            "color==red",
            "node.hostname==",
            "node.hostname==a\u{7}b",
        ] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_it_read() {
        for text in ["node.id==abc", "node.labels.a.b!=c", "engine.labels.os==x y"] {
            assert_eq!(Constraint::parse(text).unwrap().to_string(), text);
        }
    }
}
