//! What users do, by chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::endpoint::{Port, PublishMode};
use swarm_types::meta::Annotations;
use swarm_types::network::{AttachmentSpec, NetworkSpec, SubnetSpec};
use swarm_types::node::{Availability, Role};
use swarm_types::policy::{FailureAction, RestartCondition, UpdateOrder};
use swarm_types::service::{Mode, ServiceSpec};
use swarm_types::task::TaskSpec;

use super::Sim;
use super::command::{Change, Command, NodeChange};
use super::event::What;
use super::user::Fate;
use crate::invariants::no_acknowledged_write_lost::service_of;

/// Names that services get.
const NAMES: [&str; 4] = ["web", "api", "db", "job"];
/// Networks, and the subnet that is asked for: one has few addresses.
const NETWORKS: [(&str, Option<&str>); 3] =
    [("small", Some("192.168.0.0/28")), ("back", None), ("front", Some("172.20.0.0/24"))];
const IMAGES: [&str; 8] =
    ["app:1", "app:2", "app:3", "app:4", "crash:1", "once:1", "missing:1", "stubborn:1"];

impl Sim {
    /// The user's next idea, and when the one after it comes.
    pub fn next_idea(&mut self) {
        if !self.faults.on {
            return;
        }
        let wait = 100 + self.dice.below(3000);
        self.after(wait, What::Idea);
        match self.dice.below(10) {
            0 | 1 => return self.idea_about_a_node(),
            2 => return self.idea_about_a_network(),
            _ => {}
        }
        let name = NAMES[self.pick(NAMES.len())];
        // One after the other, so that it is known what is expected.
        let busy =
            self.user.asked.values().any(|a| a.fate == Fate::Open && service_of(&a.command) == Some(name));
        if !busy {
            let command = self.idea_about(name);
            self.want(command);
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.dice.below(count as u64)).unwrap_or(0)
    }

    fn idea_about(&mut self, name: &str) -> Command {
        let name = name.to_owned();
        if self.view().service_by_name(&name).is_none() {
            return Command::Create(self.some_spec(&name));
        }
        match self.dice.below(10) {
            0..=3 => Command::Update { name, change: Change::Replicas(self.dice.below(9)) },
            4 | 5 => {
                let image = IMAGES[self.pick(IMAGES.len())].to_owned();
                Command::Update { name, change: Change::Task(|t, v| t.container.image = v.into(), image) }
            }
            6 if self.dice.below(2) == 0 => {
                let change = Change::Spec(
                    |spec, v| {
                        let published = v.parse().unwrap_or(0);
                        spec.endpoint.ports = vec![Port { published, target: 80, ..Port::default() }];
                    },
                    [0, 8080, 8082][self.pick(3)].to_string(),
                );
                Command::Update { name, change }
            }
            6 => Command::Update { name, change: Change::Label(self.dice.below(100).to_string()) },
            7 => Command::Rollback(name),
            8 => {
                let n = self.dice.below(1000).to_string();
                Command::Update {
                    name,
                    change: Change::Task(|t, v| t.force_update = v.parse().unwrap_or(0), n),
                }
            }
            _ => Command::Remove(name),
        }
    }

    fn idea_about_a_network(&mut self) {
        let at = self.pick(NETWORKS.len());
        let (name, net) = NETWORKS[at];
        let busy = self.user.asked.values().any(|a| {
            let ours = match &a.command {
                Command::CreateNetwork(spec) => spec.annotations.name == name,
                Command::RemoveNetwork(other) => other == name,
                _ => false,
            };
            ours && a.fate == Fate::Open
        });
        match self.view().network_by_name(name) {
            _ if busy => {}
            Some(_) => {
                self.want(Command::RemoveNetwork(name.into()));
            }
            None => {
                let ipv6 = self.dice.below(2) == 0;
                self.want(Command::CreateNetwork(network(name, net, ipv6)));
            }
        }
    }

    /// Some networks that are there, and some ports that others may have.
    fn some_reach(&mut self, spec: &mut ServiceSpec) {
        for (name, _) in NETWORKS {
            if self.view().network_by_name(name).is_some() && self.dice.below(3) == 0 {
                let attachment = AttachmentSpec { network: name.into(), ..AttachmentSpec::default() };
                Arc::make_mut(&mut spec.task).networks.push(attachment);
            }
        }
        let port = |published, mode| Port { published, target: 80, mode, ..Port::default() };
        spec.endpoint.ports = match self.dice.below(6) {
            0 => vec![port(8080, PublishMode::Ingress)],
            1 => vec![port(0, PublishMode::Ingress), port(0, PublishMode::Ingress)],
            2 => vec![port(8081, PublishMode::Host)],
            _ => Vec::new(),
        };
    }

    fn some_spec(&mut self, name: &str) -> ServiceSpec {
        let image = IMAGES[self.pick(5)];
        let mut spec = service(name, self.dice.below(7), image);
        if self.dice.below(6) == 0 {
            spec.mode = Mode::Global;
        }
        self.some_reach(&mut spec);
        spec.update.order =
            if self.dice.below(2) == 0 { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
        spec.update.parallelism = self.dice.below(3);
        spec.update.monitor = Duration::from_millis(500 + self.dice.below(3000));
        spec.update.failure_action = match self.dice.below(3) {
            0 => FailureAction::Pause,
            1 => FailureAction::Continue,
            _ => FailureAction::Rollback,
        };
        let task = Arc::make_mut(&mut spec.task);
        task.restart.delay = Duration::from_millis(self.dice.below(3000));
        task.restart.max_attempts = self.dice.below(4);
        task.restart.condition = match self.dice.below(4) {
            0 => RestartCondition::None,
            1 => RestartCondition::OnFailure,
            _ => RestartCondition::Any,
        };
        if self.dice.below(3) == 0 {
            task.resources.reservations.memory_bytes = (1 + self.dice.below(3)) << 30;
        }
        spec
    }

    fn idea_about_a_node(&mut self) {
        let host = self.pick(self.hosts.len());
        let name = self.hosts[host].name.clone();
        if !self.hosts[host].joined {
            return self.idea_to_join(host);
        }
        if self.dice.below(12) == 0 {
            return self.leave(host);
        }
        match self.dice.below(8) {
            0 => {
                self.want(Command::Node { name, change: NodeChange::Role(Role::Manager) });
                return;
            }
            1 => {
                self.want(Command::Node { name, change: NodeChange::Role(Role::Worker) });
                return;
            }
            2 if host > 1 && self.dice.below(3) == 0 => {
                self.want(Command::RemoveNode { name, force: true });
                return;
            }
            _ => {}
        }
        let availability = match self.dice.below(4) {
            0 => Availability::Drain,
            1 => Availability::Pause,
            _ => Availability::Active,
        };
        self.want(Command::Node { name, change: NodeChange::Availability(availability) });
    }
}

impl Sim {
    /// A machine that is in no cluster shows a token, once.
    fn idea_to_join(&mut self, host: usize) {
        let node = self.hosts[host].node;
        let asks = |c: &Command| matches!(c, Command::Join { node: n, .. } if *n == node);
        if !self.user.asked.values().any(|a| asks(&a.command)) {
            let role = if self.dice.below(3) == 0 { Role::Manager } else { Role::Worker };
            self.want(Command::Join { host, node, role });
        }
    }
}

/// A network, in this subnet or one from the pools.
pub fn network(name: &str, net: Option<&str>, ipv6: bool) -> NetworkSpec {
    let subnet = |net: &str| SubnetSpec {
        subnet: net.parse().expect("a subnet of a simulation"),
        gateway: None,
        range: None,
        reserved: BTreeMap::new(),
    };
    let annotations = Annotations { name: name.into(), ..Annotations::default() };
    NetworkSpec {
        annotations,
        subnets: net.map(subnet).into_iter().collect(),
        ipv6,
        ..NetworkSpec::default()
    }
}

/// A replicated service.
pub fn service(name: &str, replicas: u64, image: &str) -> ServiceSpec {
    let mut task = TaskSpec::default();
    task.container.image = image.into();
    let annotations = Annotations { name: name.into(), ..Annotations::default() };
    ServiceSpec {
        annotations,
        task: Arc::new(task),
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    }
}
