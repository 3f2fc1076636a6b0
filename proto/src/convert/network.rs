//! Networks, and what services and tasks have on them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use swarm_types::endpoint::{Balance, Endpoint, EndpointMode, EndpointSpec, Port, Protocol, PublishMode};
use swarm_types::id::NetworkId;
use swarm_types::network::{
    Attachment, AttachmentSpec, Network, NetworkDriver, NetworkSpec, Subnet, SubnetSpec,
};
use swarm_types::node::NetworkDescription;
use swarm_types::site::{SiteKind, SitePrefix};
use swarm_types::time::Timestamp;

use super::{Malformed, id, nested, required};
use crate::v1;
use v1::endpoint_spec::{Balance as WireBalance, Mode as WireMode};
use v1::network_spec::Driver as WireDriver;
use v1::port::{Mode as WirePublish, Protocol as WireProtocol};

/// An address.
pub(super) fn addr(text: &str, field: &str) -> Result<IpAddr, Malformed> {
    text.parse().map_err(|e| Malformed::new(field, format!("`{text}`: {e}")))
}

/// An address, or nothing.
pub(super) fn maybe_addr(text: &str, field: &str) -> Result<Option<IpAddr>, Malformed> {
    if text.is_empty() { Ok(None) } else { addr(text, field).map(Some) }
}

/// A subnet.
pub(super) fn net(text: &str, field: &str) -> Result<IpNet, Malformed> {
    text.parse().map_err(|e| Malformed::new(field, format!("`{text}`: {e}")))
}

pub(super) fn addrs(texts: &[String], field: &str) -> Result<Vec<IpAddr>, Malformed> {
    texts.iter().map(|text| addr(text, field)).collect()
}

pub(super) fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A number of at most 16 bits.
pub(super) fn short(number: u32, field: &str) -> Result<u16, Malformed> {
    u16::try_from(number).map_err(|_| Malformed::new(field, format!("{number} is more than 65535")))
}

pub(super) fn maybe_text(addr: Option<IpAddr>) -> String {
    addr.map(|addr| addr.to_string()).unwrap_or_default()
}

impl From<NetworkDriver> for WireDriver {
    fn from(d: NetworkDriver) -> Self {
        match d {
            NetworkDriver::Overlay => WireDriver::Overlay,
            NetworkDriver::Bridge => WireDriver::Bridge,
            NetworkDriver::Macvlan => WireDriver::Macvlan,
        }
    }
}

pub(super) fn driver(number: i32, field: &str) -> Result<NetworkDriver, Malformed> {
    Ok(match WireDriver::try_from(number).map_err(|e| Malformed::new(field, e))? {
        WireDriver::Overlay => NetworkDriver::Overlay,
        WireDriver::Bridge => NetworkDriver::Bridge,
        WireDriver::Macvlan => NetworkDriver::Macvlan,
    })
}

impl From<&NetworkSpec> for v1::NetworkSpec {
    fn from(s: &NetworkSpec) -> Self {
        v1::NetworkSpec {
            annotations: Some((&s.annotations).into()),
            driver: WireDriver::from(s.driver).into(),
            subnets: s.subnets.iter().map(Into::into).collect(),
            ipv6: s.ipv6,
            internal: s.internal,
            attachable: s.attachable,
            not_encrypted: !s.encrypted,
            ingress: s.ingress,
            mtu: s.mtu,
            options: s.options.clone(),
        }
    }
}

impl TryFrom<v1::NetworkSpec> for NetworkSpec {
    type Error = Malformed;
    fn try_from(s: v1::NetworkSpec) -> Result<Self, Malformed> {
        let subnets = s.subnets.into_iter().map(SubnetSpec::try_from).collect::<Result<_, _>>();
        Ok(NetworkSpec {
            annotations: required(s.annotations, "annotations")?.into(),
            driver: driver(s.driver, "driver")?,
            subnets: subnets.map_err(|e: Malformed| e.within("subnets"))?,
            ipv6: s.ipv6,
            internal: s.internal,
            attachable: s.attachable,
            encrypted: !s.not_encrypted,
            ingress: s.ingress,
            mtu: s.mtu,
            options: s.options,
        })
    }
}

impl From<&SubnetSpec> for v1::SubnetSpec {
    fn from(s: &SubnetSpec) -> Self {
        v1::SubnetSpec {
            subnet: s.subnet.to_string(),
            gateway: maybe_text(s.gateway),
            range: s.range.map(|range| range.to_string()).unwrap_or_default(),
            reserved: s.reserved.iter().map(|(name, addr)| (name.clone(), addr.to_string())).collect(),
        }
    }
}

impl TryFrom<v1::SubnetSpec> for SubnetSpec {
    type Error = Malformed;
    fn try_from(s: v1::SubnetSpec) -> Result<Self, Malformed> {
        let reserved = s.reserved.into_iter().map(|(name, text)| Ok((name, addr(&text, "reserved")?)));
        Ok(SubnetSpec {
            subnet: net(&s.subnet, "subnet")?,
            gateway: maybe_addr(&s.gateway, "gateway")?,
            range: if s.range.is_empty() { None } else { Some(net(&s.range, "range")?) },
            reserved: reserved.collect::<Result<_, Malformed>>()?,
        })
    }
}

impl From<&Network> for v1::Network {
    fn from(n: &Network) -> Self {
        v1::Network {
            id: n.id.to_string(),
            meta: Some(n.meta.into()),
            spec: Some((&n.spec).into()),
            vni: n.vni,
            subnets: n.subnets.iter().map(Into::into).collect(),
            released: n.released.iter().map(|(addr, at)| (addr.to_string(), at.0)).collect(),
        }
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = Malformed;
    fn try_from(n: v1::Network) -> Result<Self, Malformed> {
        let subnets = n.subnets.into_iter().map(Subnet::try_from).collect::<Result<_, _>>();
        let released = n.released.iter().map(|(text, at)| Ok((addr(text, "released")?, Timestamp(*at))));
        Ok(Network {
            id: id(&n.id, "id")?,
            meta: required(n.meta, "meta")?.into(),
            spec: nested(n.spec, "spec")?,
            vni: n.vni,
            subnets: subnets.map_err(|e: Malformed| e.within("subnets"))?,
            released: released.collect::<Result<_, Malformed>>()?,
        })
    }
}

impl From<&Subnet> for v1::Subnet {
    fn from(s: &Subnet) -> Self {
        v1::Subnet {
            net: s.net.to_string(),
            gateway: s.gateway.to_string(),
            range: s.range.to_string(),
            reserved: texts(&s.reserved),
        }
    }
}

impl TryFrom<v1::Subnet> for Subnet {
    type Error = Malformed;
    fn try_from(s: v1::Subnet) -> Result<Self, Malformed> {
        Ok(Subnet {
            net: net(&s.net, "net")?,
            gateway: addr(&s.gateway, "gateway")?,
            range: net(&s.range, "range")?,
            reserved: addrs(&s.reserved, "reserved")?,
        })
    }
}

impl From<&AttachmentSpec> for v1::AttachmentSpec {
    fn from(s: &AttachmentSpec) -> Self {
        v1::AttachmentSpec {
            network_id: s.network.to_string(),
            aliases: s.aliases.clone(),
            options: s.options.clone(),
        }
    }
}

impl TryFrom<v1::AttachmentSpec> for AttachmentSpec {
    type Error = Malformed;
    fn try_from(s: v1::AttachmentSpec) -> Result<Self, Malformed> {
        let network = id(&s.network_id, "network_id")?;
        Ok(AttachmentSpec { network, aliases: s.aliases, options: s.options })
    }
}

impl From<&Attachment> for v1::Attachment {
    fn from(a: &Attachment) -> Self {
        let addrs = texts(&a.addrs);
        v1::Attachment { network_id: a.network.to_string(), addrs, aliases: a.aliases.clone() }
    }
}

impl TryFrom<v1::Attachment> for Attachment {
    type Error = Malformed;
    fn try_from(a: v1::Attachment) -> Result<Self, Malformed> {
        let network = id(&a.network_id, "network_id")?;
        Ok(Attachment { network, addrs: addrs(&a.addrs, "addrs")?, aliases: a.aliases })
    }
}

impl From<EndpointMode> for WireMode {
    fn from(m: EndpointMode) -> Self {
        match m {
            EndpointMode::Vip => WireMode::Vip,
            EndpointMode::Dnsrr => WireMode::Dnsrr,
        }
    }
}

pub(super) fn endpoint_mode(number: i32, field: &str) -> Result<EndpointMode, Malformed> {
    Ok(match WireMode::try_from(number).map_err(|e| Malformed::new(field, e))? {
        WireMode::Vip => EndpointMode::Vip,
        WireMode::Dnsrr => EndpointMode::Dnsrr,
    })
}

impl From<Balance> for WireBalance {
    fn from(b: Balance) -> Self {
        match b {
            Balance::Random => WireBalance::Random,
            Balance::Sticky => WireBalance::Sticky,
        }
    }
}

pub(super) fn balance(number: i32, field: &str) -> Result<Balance, Malformed> {
    Ok(match WireBalance::try_from(number).map_err(|e| Malformed::new(field, e))? {
        WireBalance::Random => Balance::Random,
        WireBalance::Sticky => Balance::Sticky,
    })
}

impl From<&EndpointSpec> for v1::EndpointSpec {
    fn from(s: &EndpointSpec) -> Self {
        v1::EndpointSpec {
            mode: WireMode::from(s.mode).into(),
            balance: WireBalance::from(s.balance).into(),
            weight_label: s.weight_label.clone(),
            ports: s.ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::EndpointSpec> for EndpointSpec {
    type Error = Malformed;
    fn try_from(s: v1::EndpointSpec) -> Result<Self, Malformed> {
        Ok(EndpointSpec {
            mode: endpoint_mode(s.mode, "mode")?,
            balance: balance(s.balance, "balance")?,
            weight_label: s.weight_label,
            ports: ports(s.ports)?,
        })
    }
}

pub(super) fn ports(ports: Vec<v1::Port>) -> Result<Vec<Port>, Malformed> {
    let ports: Result<_, Malformed> = ports.into_iter().map(Port::try_from).collect();
    ports.map_err(|e| e.within("ports"))
}

impl From<&Port> for v1::Port {
    fn from(p: &Port) -> Self {
        let protocol = match p.protocol {
            Protocol::Tcp => WireProtocol::Tcp,
            Protocol::Udp => WireProtocol::Udp,
            Protocol::Sctp => WireProtocol::Sctp,
        };
        let mode = match p.mode {
            PublishMode::Ingress => WirePublish::Ingress,
            PublishMode::Host => WirePublish::Host,
        };
        v1::Port {
            protocol: protocol.into(),
            target: p.target.into(),
            published: p.published.into(),
            mode: mode.into(),
            host_ip: maybe_text(p.host_ip),
        }
    }
}

impl TryFrom<v1::Port> for Port {
    type Error = Malformed;
    fn try_from(p: v1::Port) -> Result<Self, Malformed> {
        let protocol = WireProtocol::try_from(p.protocol).map_err(|e| Malformed::new("protocol", e))?;
        let mode = WirePublish::try_from(p.mode).map_err(|e| Malformed::new("mode", e))?;
        Ok(Port {
            protocol: match protocol {
                WireProtocol::Tcp => Protocol::Tcp,
                WireProtocol::Udp => Protocol::Udp,
                WireProtocol::Sctp => Protocol::Sctp,
            },
            target: short(p.target, "target")?,
            published: short(p.published, "published")?,
            mode: match mode {
                WirePublish::Ingress => PublishMode::Ingress,
                WirePublish::Host => PublishMode::Host,
            },
            host_ip: maybe_addr(&p.host_ip, "host_ip")?,
        })
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(e: &Endpoint) -> Self {
        let vips = e
            .vips
            .iter()
            .map(|(network, addrs)| v1::Addresses { network_id: network.to_string(), addrs: texts(addrs) });
        v1::Endpoint { ports: e.ports.iter().map(Into::into).collect(), vips: vips.collect() }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = Malformed;
    fn try_from(e: v1::Endpoint) -> Result<Self, Malformed> {
        let vip = |a: v1::Addresses| Ok((id::<NetworkId>(&a.network_id, "vips")?, addrs(&a.addrs, "vips")?));
        let vips = e.vips.into_iter().map(vip).collect::<Result<BTreeMap<_, _>, Malformed>>()?;
        Ok(Endpoint { ports: ports(e.ports)?, vips })
    }
}

impl From<&NetworkDescription> for v1::NetworkDescription {
    fn from(d: &NetworkDescription) -> Self {
        v1::NetworkDescription {
            keys: d.keys.clone(),
            tunnel_port: d.tunnel_port.into(),
            encryption: d.encryption.clone(),
            data_addr: maybe_text(d.data_addr),
            site: d.site.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::NetworkDescription> for NetworkDescription {
    type Error = Malformed;
    fn try_from(d: v1::NetworkDescription) -> Result<Self, Malformed> {
        Ok(NetworkDescription {
            keys: d.keys,
            tunnel_port: short(d.tunnel_port, "tunnel_port")?,
            encryption: d.encryption,
            data_addr: maybe_addr(&d.data_addr, "data_addr")?,
            site: d.site.into_iter().map(SitePrefix::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&SitePrefix> for v1::SitePrefix {
    fn from(p: &SitePrefix) -> Self {
        let kind = match p.kind {
            SiteKind::Address => v1::site_prefix::Kind::Address,
            SiteKind::Resolver => v1::site_prefix::Kind::Resolver,
            SiteKind::Route => v1::site_prefix::Kind::Route,
        };
        v1::SitePrefix { kind: kind.into(), net: p.net.to_string() }
    }
}

impl TryFrom<v1::SitePrefix> for SitePrefix {
    type Error = Malformed;
    fn try_from(p: v1::SitePrefix) -> Result<Self, Malformed> {
        let kind = v1::site_prefix::Kind::try_from(p.kind).map_err(|e| Malformed::new("site", e))?;
        let kind = match kind {
            v1::site_prefix::Kind::Address => SiteKind::Address,
            v1::site_prefix::Kind::Resolver => SiteKind::Resolver,
            v1::site_prefix::Kind::Route => SiteKind::Route,
        };
        Ok(SitePrefix { kind, net: net(&p.net, "site")? })
    }
}
