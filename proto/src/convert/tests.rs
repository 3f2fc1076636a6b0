//! What goes out comes back the same; what is broken is refused by name.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};
use swarm_types::cluster::{Cluster, ClusterSpec};
use swarm_types::container::{ContainerNetwork, Mount, MountKind, Propagation};
use swarm_types::endpoint::{Balance, Endpoint, EndpointMode, EndpointSpec, Port, Protocol, PublishMode};
use swarm_types::network::{
    Attachment, AttachmentSpec, Network, NetworkDriver, NetworkSpec, Subnet, SubnetSpec,
};
use swarm_types::network_set::{
    NetworkChange, NetworkDifference, NetworkPart, NetworkProblem, NetworksMessage, Peer, SelfPart,
    ServiceEndpoint, TaskEndpoint,
};
use swarm_types::node::{Availability, ManagerMembership, NetworkDescription, Node, NodeState, Role};
use swarm_types::placement::{Constraint, Platform};
use swarm_types::policy::{FailureAction, RestartCondition, UpdateOrder};
use swarm_types::resources::{Limits, Resources};
use swarm_types::service::{Mode, Service, ServiceSpec, UpdateState, UpdateStatus};
use swarm_types::site::{SiteKind, SitePrefix};
use swarm_types::task::{Attempt, ContainerStatus, Task, TaskSpec, TaskStatus};
use swarm_types::task_state::TaskState;
use swarm_types::time::Timestamp;

use crate::v1;

/// A spec in which no field has its default value.
fn full_spec() -> TaskSpec {
    let mut spec = TaskSpec { force_update: 3, ..TaskSpec::default() };
    let c = &mut spec.container;
    c.image = "r:5000/a/b:1".into();
    c.entrypoint = vec!["/bin/sh".into()];
    c.args = vec!["-c".into(), "true".into()];
    c.env = vec!["A=1".into()];
    c.hostname = "{{.Task.Slot}}".into();
    c.dir = "/x".into();
    c.user = "1:2".into();
    c.labels.insert("k".into(), "v".into());
    c.stop_signal = "SIGINT".into();
    c.stop_grace_period = Some(Duration::from_secs(3));
    c.read_only = true;
    c.network = ContainerNetwork::Host;
    let bind = MountKind::Bind { propagation: Propagation::RSlave, recursive: false };
    let tmpfs = MountKind::Tmpfs { size_bytes: 5, mode: 0o700 };
    c.mounts = vec![
        Mount { kind: bind, source: "/a".into(), target: "/b".into(), read_only: true },
        Mount { kind: tmpfs, source: String::new(), target: "/t".into(), read_only: false },
    ];
    spec.resources.limits = Limits { nano_cpus: 1, memory_bytes: 2, pids: 3 };
    spec.resources.reservations = Resources { nano_cpus: 4, memory_bytes: 5 };
    spec.restart.condition = RestartCondition::OnFailure;
    spec.restart.delay = Duration::from_millis(6);
    spec.restart.max_attempts = 7;
    spec.restart.window = Duration::from_millis(8);
    spec.placement.constraints = vec![Constraint::parse("node.labels.zone!=a").unwrap()];
    spec.placement.platforms = vec![Platform { os: "linux".into(), architecture: "arm64".into() }];
    spec.placement.max_replicas_per_node = 9;
    spec.networks = vec![AttachmentSpec {
        network: "net".into(),
        aliases: vec!["db".into()],
        options: [("o".into(), "p".into())].into(),
    }];
    spec.host_ports = full_ports();
    spec.gateway = true;
    spec
}

fn full_ports() -> Vec<Port> {
    let port = |protocol, mode, host_ip| Port { protocol, target: 80, published: 8080, mode, host_ip };
    vec![
        port(Protocol::Udp, PublishMode::Host, Some("10.0.0.1".parse().unwrap())),
        port(Protocol::Sctp, PublishMode::Ingress, Some("fd00::1".parse().unwrap())),
        port(Protocol::Tcp, PublishMode::Ingress, None),
    ]
}

fn full_network() -> Network {
    let spec = NetworkSpec {
        annotations: swarm_types::meta::Annotations { name: "web".into(), ..Default::default() },
        driver: NetworkDriver::Macvlan,
        subnets: vec![SubnetSpec {
            subnet: "10.1.0.0/24".parse().unwrap(),
            gateway: Some("10.1.0.9".parse().unwrap()),
            range: Some("10.1.0.128/25".parse().unwrap()),
            reserved: [("printer".into(), "10.1.0.200".parse().unwrap())].into(),
        }],
        ipv6: true,
        internal: true,
        attachable: true,
        encrypted: false,
        ingress: true,
        mtu: 1400,
        options: [("parent".into(), "eth0".into())].into(),
    };
    let subnet = |net: &str, gateway: &str| Subnet {
        net: net.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        range: net.parse().unwrap(),
        reserved: vec![gateway.parse().unwrap()],
    };
    Network {
        id: "net".into(),
        vni: 4097,
        subnets: vec![subnet("10.1.0.0/24", "10.1.0.9"), subnet("fd00::/64", "fd00::1")],
        released: [("10.1.0.7".parse().unwrap(), Timestamp(6)), ("fd00::7".parse().unwrap(), Timestamp(7))]
            .into(),
        spec,
        ..Network::default()
    }
}

fn full_task() -> Task {
    let mut task = Task { id: "t".into(), service: "s".into(), slot: 4, ..Task::default() };
    task.meta.version = 8;
    task.node = "n".into();
    task.service_annotations =
        Arc::new(swarm_types::meta::Annotations { name: "web".into(), ..Default::default() });
    task.spec = Arc::new(full_spec());
    task.spec_version = 2;
    task.desired_state = TaskState::Remove;
    task.attempt = Attempt { count: 3, window_start: Timestamp(9) };
    task.start_after = Timestamp(11);
    task.status = TaskStatus {
        state: TaskState::Failed,
        at: Timestamp(1),
        applied_at: Timestamp(2),
        message: "m".into(),
        err: "e".into(),
        container: Some(ContainerStatus {
            container_id: "c".into(),
            pid: 1,
            exit_code: -1,
            oom_killed: true,
            ports: full_ports(),
        }),
    };
    task.attachments = vec![Attachment {
        network: "net".into(),
        addrs: vec!["10.1.0.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        aliases: vec!["db".into()],
    }];
    task
}

fn full_service() -> Service {
    let mut spec = ServiceSpec { task: Arc::new(full_spec()), mode: Mode::Global, ..ServiceSpec::default() };
    spec.annotations.name = "web".into();
    spec.update.order = UpdateOrder::StartFirst;
    spec.update.failure_action = FailureAction::Rollback;
    spec.update.max_failure_permille = 5;
    spec.endpoint = EndpointSpec {
        mode: EndpointMode::Dnsrr,
        balance: Balance::Sticky,
        weight_label: "weight".into(),
        ports: full_ports(),
    };
    let vips = [("net".into(), vec!["10.1.0.2".parse().unwrap()])].into();
    Service {
        id: "s".into(),
        spec_version: 9,
        previous_spec: Some(Box::new(ServiceSpec { mode: Mode::Replicated { replicas: 4 }, ..spec.clone() })),
        spec,
        update_status: Some(UpdateStatus {
            state: UpdateState::RollbackPaused,
            started_at: Timestamp(1),
            completed_at: Timestamp(2),
            message: "m".into(),
        }),
        endpoint: Endpoint { ports: full_ports(), vips },
        ..Service::default()
    }
}

fn full_node() -> Node {
    let mut node = swarm_types::node::Node { id: "n".into(), role: Role::Manager, ..Node::default() };
    node.spec.role = Role::Manager;
    node.spec.availability = Availability::Drain;
    node.status.state = NodeState::Down;
    node.status.since = Timestamp(4);
    node.description.missing_controllers = vec!["pids".into()];
    node.manager = Some(ManagerMembership { raft_id: 7, addr: "a:1".into() });
    (node.index, node.entry) = (65_000, vec!["10.255.0.3".parse().unwrap()]);
    node.description.network = NetworkDescription {
        keys: vec!["k1".into(), "k2".into()],
        tunnel_port: 4790,
        encryption: "user space".into(),
        data_addr: Some("192.0.2.1".parse().unwrap()),
        site: [(SiteKind::Resolver, "10.0.0.2/32"), (SiteKind::Route, "fd00::/48")]
            .map(|(kind, net)| SitePrefix { kind, net: net.parse().unwrap() })
            .to_vec(),
    };
    node
}

/// One change of each kind, none with a default value.
fn network_changes() -> Vec<NetworkChange> {
    let entry = vec!["10.255.0.3".parse().unwrap(), "fd01::3".parse().unwrap()];
    let own = SelfPart {
        node: "n".into(),
        index: 3,
        addr: Some("192.0.2.1".parse().unwrap()),
        entry: entry.clone(),
        data_port: 7777,
        key_epoch: 5,
        keys: vec!["k3".into()],
    };
    let peer = Peer {
        node: "m".into(),
        index: 65_535,
        addr: "192.0.2.2".parse().unwrap(),
        entry,
        keys: vec!["a".into(), "b".into()],
        tunnel_port: 4790,
    };
    let part = NetworkPart {
        id: "net".into(),
        name: "web".into(),
        driver: NetworkDriver::Bridge,
        vni: 4098,
        subnets: vec![("10.1.0.0/24".parse().unwrap(), "10.1.0.1".parse().unwrap())],
        internal: true,
        ingress: true,
        encrypted: true,
        mtu: 1300,
        options: [("o".into(), "p".into())].into(),
    };
    let endpoint = TaskEndpoint {
        task: "t".into(),
        node: "n".into(),
        service: "s".into(),
        name: "web.3".into(),
        addrs: vec!["10.1.0.5".parse().unwrap()],
        serving: true,
        weight: 7,
    };
    let service = ServiceEndpoint {
        service: "s".into(),
        name: "web".into(),
        aliases: vec!["w".into()],
        mode: EndpointMode::Dnsrr,
        balance: Balance::Sticky,
        vips: vec!["fd00::9".parse().unwrap()],
        ports: full_ports(),
    };
    vec![
        NetworkChange::PutSelf(Arc::new(own)),
        NetworkChange::PutPeer(Arc::new(peer)),
        NetworkChange::RemovePeer("m".into()),
        NetworkChange::PutNetwork(Arc::new(part)),
        NetworkChange::RemoveNetwork("net".into()),
        NetworkChange::PutEndpoint("net".into(), Arc::new(endpoint)),
        NetworkChange::RemoveEndpoint("net".into(), "t".into()),
        NetworkChange::PutService("net".into(), Arc::new(service)),
        NetworkChange::RemoveService("net".into(), "s".into()),
    ]
}

#[test]
fn networks_come_back_the_same() {
    let network = full_network();
    assert_eq!(Network::try_from(v1::Network::from(&network)).unwrap(), network);
    for kind in [AssignmentsKind::Complete, AssignmentsKind::Incremental { applies_to: 3 }] {
        let message = NetworksMessage { kind, results_in: 4, changes: network_changes() };
        assert_eq!(NetworksMessage::try_from(v1::Networks::from(&message)).unwrap(), message);
    }
    let problem = NetworkProblem { subject: "port 80/tcp".into(), text: "taken".into() };
    assert_eq!(NetworkProblem::from(v1::NetworkProblem::from(&problem)), problem);
    let [place, what, how] = ["host", "route", "missing"].map(String::from);
    let difference = NetworkDifference { place, what, how };
    assert_eq!(NetworkDifference::from(v1::NetworkDifference::from(&difference)), difference);
}

#[test]
fn broken_networks_are_named() {
    let broken = |change: fn(&mut v1::Network)| {
        let mut wire = v1::Network::from(&full_network());
        change(&mut wire);
        Network::try_from(wire).unwrap_err().field
    };
    assert_eq!(broken(|n| n.spec.as_mut().unwrap().driver = 9), "spec.driver");
    assert_eq!(broken(|n| n.spec.as_mut().unwrap().subnets[0].subnet = "10.1".into()), "spec.subnets.subnet");
    assert_eq!(broken(|n| n.subnets[0].gateway = "x".into()), "subnets.gateway");
    assert_eq!(broken(|n| n.released = [("x".into(), 1)].into()), "released");
    let broken = |change: fn(&mut v1::Port)| {
        let mut wire = v1::Service::from(&full_service());
        change(&mut wire.spec.as_mut().unwrap().endpoint.as_mut().unwrap().ports[0]);
        Service::try_from(wire).unwrap_err().field
    };
    assert_eq!(broken(|p| p.published = 65_536), "spec.endpoint.ports.published");
    assert_eq!(broken(|p| p.protocol = 9), "spec.endpoint.ports.protocol");
    assert_eq!(broken(|p| p.host_ip = "x".into()), "spec.endpoint.ports.host_ip");
}

#[test]
fn objects_come_back_the_same() {
    let task = full_task();
    assert_eq!(Task::try_from(v1::Task::from(&task)).unwrap(), task);
    let service = full_service();
    assert_eq!(Service::try_from(v1::Service::from(&service)).unwrap(), service);
    let node = full_node();
    assert_eq!(Node::try_from(v1::Node::from(&node)).unwrap(), node);
    let mut cluster = Cluster { id: "c".into(), spec: ClusterSpec::default(), ..Cluster::default() };
    cluster.root_ca.key_pem = "key".into();
    cluster.join_tokens.worker = "w".into();
    cluster.removed_nodes.insert("n".into(), Timestamp(5));
    (cluster.key_epoch, cluster.key_epoch_at) = (3, Timestamp(9));
    cluster.spec.address_pools = vec!["20.20.0.0/16".parse().unwrap(), "20.21.0.0/16".parse().unwrap()];
    (cluster.spec.subnet_size, cluster.spec.data_path_port) = (25, 7777);
    cluster.spec.key_rotation = Duration::from_secs(77);
    assert_eq!(Cluster::try_from(v1::Cluster::from(&cluster)).unwrap(), cluster);
    let message = AssignmentsMessage {
        kind: AssignmentsKind::Incremental { applies_to: 3 },
        results_in: 4,
        changes: vec![AssignmentChange::Update(Arc::new(task)), AssignmentChange::Remove("x".into())],
    };
    assert_eq!(AssignmentsMessage::try_from(v1::Assignments::from(&message)).unwrap(), message);
}

#[test]
fn a_spec_can_be_left_out() {
    let task = full_task();
    let wire = v1::Task::without_spec(&task);
    assert!(wire.spec.is_none());
    assert_eq!(wire.with_spec(task.spec.clone()).unwrap(), task);
}

#[test]
fn secrets_do_not_leave() {
    let mut cluster = Cluster::default();
    cluster.root_ca.key_pem = "KEY".into();
    cluster.join_tokens.worker = "TOKEN".into();
    cluster.join_tokens.manager = "TOKEN".into();
    let public = format!("{:?}", v1::Cluster::public(&cluster));
    assert!(!public.contains("KEY") && !public.contains("TOKEN"), "{public}");
}

#[test]
fn broken_fields_are_named() {
    let broken = |change: fn(&mut v1::Task)| {
        let mut wire = v1::Task::from(&full_task());
        change(&mut wire);
        Task::try_from(wire).unwrap_err().field
    };
    assert_eq!(broken(|t| t.id = "x".repeat(99)), "id");
    assert_eq!(broken(|t| t.spec = None), "spec");
    assert_eq!(broken(|t| t.desired_state = 7), "desired_state");
    assert_eq!(broken(|t| t.status.as_mut().unwrap().state = 7), "status.state");
    assert_eq!(
        broken(|t| t.spec.as_mut().unwrap().placement.as_mut().unwrap().constraints = vec!["x".into()]),
        "spec.placement.constraints"
    );
    assert_eq!(
        broken(|t| t.spec.as_mut().unwrap().container.as_mut().unwrap().mounts[0].kind = None),
        "spec.container.mounts.kind"
    );
}

proptest! {
    /// Bytes from anywhere are refused or become an object; they never panic.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(m) = v1::Task::decode(&bytes[..]) { drop(Task::try_from(m)); }
        if let Ok(m) = v1::Service::decode(&bytes[..]) { drop(Service::try_from(m)); }
        if let Ok(m) = v1::Assignments::decode(&bytes[..]) { drop(AssignmentsMessage::try_from(m)); }
        if let Ok(m) = v1::Network::decode(&bytes[..]) { drop(Network::try_from(m)); }
        if let Ok(m) = v1::Networks::decode(&bytes[..]) { drop(NetworksMessage::try_from(m)); }
    }

    /// A message with one byte changed is refused or becomes an object; it never panics.
    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..2000, bit in 0u8..8) {
        let mut bytes = v1::Service::from(&full_service()).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(m) = v1::Service::decode(&bytes[..]) { drop(Service::try_from(m)); }
    }
}
