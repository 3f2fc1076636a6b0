//! Endpoint: the published ports and virtual addresses of a service.
//!
//! Reads:   services, the networks that they are on.
//! Writes:  Service.endpoint.
//! Never:   changes a port or address that is still wanted (C13, D2).
//! Start:   [`Allocator::look_at_service`].

use std::net::IpAddr;

use swarm_types::defaults::DYNAMIC_PORTS;
use swarm_types::endpoint::{Endpoint, EndpointMode, Port, PublishMode};
use swarm_types::id::{NetworkId, ServiceId};
use swarm_types::network::{Network, NetworkDriver};
use swarm_types::service::Service;

use super::address::{Owner, Releases};
use super::waiting::Blocker;
use super::{Allocator, Full, port, task};
use crate::context::Context;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::store::{Key, View};

/// Every virtual address with its network.
pub(super) fn held(endpoint: &Endpoint) -> Vec<(NetworkId, IpAddr)> {
    endpoint.vips.iter().flat_map(|(id, addrs)| addrs.iter().map(|addr| (*id, *addr))).collect()
}

/// The service has something of us, or wants something.
pub(super) fn concerns_us(service: &Service) -> bool {
    let spec = &service.spec;
    !spec.endpoint.ports.is_empty()
        || !spec.task.networks.is_empty()
        || service.endpoint != Endpoint::default()
}

/// A service has a virtual address there.
fn has_vip(service: &Service, network: &Network) -> bool {
    let vip = service.spec.endpoint.mode == EndpointMode::Vip;
    vip && network.spec.driver == NetworkDriver::Overlay && !network.spec.ingress
}

/// Why a service cannot have a port (Docker Swarm's words).
pub(crate) fn taken(port: &Port, by: Option<&Service>, mode: PublishMode) -> String {
    match by {
        Some(other) => format!(
            "port '{}' is already in use by service '{}' ({}) as {}",
            port.published,
            other.spec.annotations.name,
            other.id,
            match mode {
                PublishMode::Ingress => "an ingress port",
                PublishMode::Host => "a host-published port",
            }
        ),
        None => format!(
            "all ports from {} to {} are in use ({})",
            DYNAMIC_PORTS.start(),
            DYNAMIC_PORTS.end(),
            port.protocol.as_str()
        ),
    }
}

fn taken_by(view: &View, port: &Port, by: Option<ServiceId>) -> String {
    let by = by.and_then(|id| view.service(&id));
    let theirs = |s: &Service| s.endpoint.ports.iter().find(|p| port::collide(p, port)).map(|p| p.mode);
    let mode = by.and_then(|s| theirs(s)).unwrap_or_default();
    taken(port, by.map(AsRef::as_ref), mode)
}

impl Allocator {
    /// Gives a service what it wants and does not have, and takes what it does not want any more.
    pub(super) fn look_at_service(
        &mut self,
        plan: &mut Plan,
        ctx: &Context<'_>,
        id: ServiceId,
    ) -> Result<(), Full> {
        let Some(service) = plan.service(&id).cloned() else { return Ok(()) };
        if plan.is_full() {
            return Err(Full);
        }
        let had = &service.endpoint;
        let chosen = port::choose(&self.ports, &id, &had.ports, &service.spec.endpoint.ports);
        let mut problem = chosen.denied.map(|(port, by)| taken_by(plan, &port, by));
        let mut endpoint = Endpoint { ports: chosen.ports, ..Endpoint::default() };
        for attachment in &service.spec.task.networks {
            let Some(network) = plan.network(&attachment.network).cloned() else { continue };
            if !has_vip(&service, &network) {
                continue;
            }
            let before = had.vips.get(&network.id).filter(|addrs| addrs.len() == network.subnets.len());
            let addrs = before.cloned().map_or_else(|| self.addresses.free(&network), Ok);
            match addrs {
                Ok(addrs) => drop(endpoint.vips.insert(network.id, addrs)),
                Err(subnet) => problem = problem.or(Some(task::exhausted(&network, &subnet))),
            }
        }
        for network in endpoint.vips.keys().filter(|id| !had.vips.contains_key(id)) {
            plan.require_unchanged(Key::Network(*network));
        }
        match problem {
            Some(problem) => drop(self.blocked.insert(id, problem)),
            None => {
                self.blocked.remove(&id);
                self.waiting.open(Blocker::Service(id));
            }
        }
        if endpoint != *had {
            self.put_endpoint(plan, ctx, &service, endpoint);
        }
        Ok(())
    }

    fn put_endpoint(&mut self, plan: &mut Plan, ctx: &Context<'_>, service: &Service, endpoint: Endpoint) {
        let mut releases = Releases::default();
        for (network, addrs) in &service.endpoint.vips {
            if endpoint.vips.get(network) != Some(addrs) {
                releases.add(*network, addrs, ctx.now);
            }
        }
        self.release(plan, ctx, releases);
        self.dirty.ports |= self.ports.put(service.id, &endpoint.ports);
        self.addresses.put(Owner::Service(service.id), held(&endpoint));
        plan.put_service(Service { endpoint, ..service.clone() }, Reason::EndpointGiven);
    }
}
