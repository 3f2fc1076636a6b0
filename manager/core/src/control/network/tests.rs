use super::*;
use crate::control::cluster::{self, Founding};
use crate::control::{DeniedKind, service};
use crate::store::{Refused, Store};
use swarm_types::cluster::ClusterSpec;
use swarm_types::endpoint::{EndpointMode, Port};
use swarm_types::id::{IdSource, Seed, ServiceId};
use swarm_types::network::{Attachment, AttachmentSpec, NetworkDriver, SubnetSpec};
use swarm_types::service::ServiceSpec;
use swarm_types::site::{SiteKind, SitePrefix};
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use swarm_types::time::Timestamp;

/// A cluster in a store, and commands on it as a manager would run them.
struct World {
    store: Store,
    ids: IdSource,
}

impl World {
    fn new(spec: ClusterSpec) -> World {
        let mut world = World { store: Store::default(), ids: IdSource::new(Seed(1)) };
        let founding = Founding { cluster: "c".into(), node: "m".into(), spec, ..Founding::default() };
        world.run(|d, _| cluster::found(d, founding)).unwrap();
        world
    }
    fn draft(&self) -> Draft {
        Draft::new(self.store.view(), Timestamp(1000))
    }
    fn run<T>(
        &mut self,
        command: impl FnOnce(&mut Draft, &mut Context<'_>) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        let mut draft = self.draft();
        let out = command(&mut draft, &mut Context { now: Timestamp(1000), ids: &mut self.ids })?;
        self.apply(draft).unwrap();
        Ok(out)
    }
    fn apply(&mut self, draft: Draft) -> Result<(), Refused> {
        let version = self.store.view().version() + 1;
        self.store.apply(version, &draft.into_transaction()).map(drop)
    }
    fn create(&mut self, spec: NetworkSpec) -> Result<NetworkId, Denied> {
        self.run(|d, ctx| create(d, spec, ctx))
    }
    fn service(&mut self, spec: ServiceSpec) -> Result<ServiceId, Denied> {
        self.run(|d, ctx| service::create(d, spec, ctx))
    }
    fn remove(&mut self, id: NetworkId) -> Result<(), Denied> {
        self.run(|d, _| remove(d, &id))
    }
    fn subnets(&self, id: NetworkId) -> Vec<String> {
        self.store.view().network(&id).unwrap().subnets.iter().map(|s| s.net.to_string()).collect()
    }
}

fn spec(name: &str, nets: &[&str]) -> NetworkSpec {
    let subnet = |net: &&str| SubnetSpec {
        subnet: net.parse().unwrap(),
        gateway: None,
        range: None,
        reserved: Default::default(),
    };
    let mut spec = NetworkSpec { subnets: nets.iter().map(subnet).collect(), ..NetworkSpec::default() };
    spec.annotations.name = name.into();
    spec
}

fn on(name: &str, network: &str) -> ServiceSpec {
    let attachment = AttachmentSpec { network: network.into(), ..AttachmentSpec::default() };
    testing::service(name).with(|_, task| task.networks = vec![attachment]).build()
}

fn publishing(name: &str, port: Port) -> ServiceSpec {
    testing::service(name).with(|spec, _| spec.endpoint.ports = vec![port]).build()
}

fn text<T: std::fmt::Debug>(result: Result<T, Denied>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn d15_a_name_is_taken_once_also_at_the_same_moment() {
    let mut world = World::new(ClusterSpec::default());
    // Ten at once see the same state.
    let drafts: Vec<Draft> = (0..10)
        .map(|_| {
            let mut draft = world.draft();
            let mut ctx = Context { now: Timestamp(1000), ids: &mut world.ids };
            create(&mut draft, spec("web", &[]), &mut ctx).unwrap();
            draft
        })
        .collect();
    let outcomes: Vec<_> = drafts.into_iter().map(|d| world.apply(d)).collect();
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().skip(1).all(|o| *o == Err(Refused::NetworkNameTaken("web".into()))));
    let denied = world.create(spec("web", &[])).unwrap_err();
    assert_eq!(
        (denied.to_string(), denied.kind()),
        ("network web already exists".into(), DeniedKind::AlreadyExists)
    );
    // Others that did not see each other may not have one number or subnet.
    let mut both = Vec::new();
    for name in ["a", "b"] {
        let mut draft = world.draft();
        let mut ctx = Context { now: Timestamp(1000), ids: &mut world.ids };
        create(&mut draft, spec(name, &[]), &mut ctx).unwrap();
        both.push(draft);
    }
    let outcomes: Vec<_> = both.into_iter().map(|d| world.apply(d)).collect();
    assert_eq!(outcomes, [Ok(()), Err(Refused::NetworkInTheWay("a".into()))]);
}

#[test]
fn d16_subnets_may_not_overlap() {
    let mut world = World::new(ClusterSpec::default());
    let id = world.create(spec("a", &["10.5.0.0/16", "fd01::/64"])).unwrap();
    assert_eq!(world.subnets(id), ["10.5.0.0/16", "fd01::/64"]);
    assert_eq!(
        text(world.create(spec("b", &["10.5.7.0/24"]))),
        "subnet 10.5.7.0/24 overlaps with subnet 10.5.0.0/16 of network a"
    );
    let mut asked = spec("c", &["10.6.0.0/24"]);
    asked.subnets[0].gateway = Some("10.6.0.254".parse().unwrap());
    asked.subnets[0].range = Some("10.6.0.128/25".parse().unwrap());
    asked.subnets[0].reserved.insert("printer".into(), "10.6.0.130".parse().unwrap());
    let id = world.create(asked).unwrap();
    let view = world.store.view();
    let subnet = &view.network(&id).unwrap().subnets[0];
    assert_eq!(subnet.gateway.to_string(), "10.6.0.254");
    assert_eq!((subnet.range.to_string(), subnet.reserved.len()), ("10.6.0.128/25".into(), 1));
}

#[test]
fn d22_pools_are_used_one_after_the_other() {
    let settings = ClusterSpec {
        address_pools: vec!["20.20.0.0/22".parse().unwrap(), "30.30.0.0/24".parse().unwrap()],
        ..ClusterSpec::default()
    };
    let mut world = World::new(settings);
    let ingress = world.store.view().ingress_network().unwrap().id;
    assert_eq!(world.subnets(ingress)[0], "20.20.0.0/24", "the ingress network comes from the pools too");
    let ids: Vec<_> = (0..4).map(|n| world.create(spec(&format!("n{n}"), &[])).unwrap()).collect();
    let nets: Vec<_> = ids.iter().map(|id| world.subnets(*id)[0].clone()).collect();
    assert_eq!(nets, ["20.20.1.0/24", "20.20.2.0/24", "20.20.3.0/24", "30.30.0.0/24"]);
    assert!(
        text(world.create(spec("more", &[]))).starts_with("no free subnet of 24 bits in the address pools")
    );
    world.remove(ids[1]).unwrap();
    let again = world.create(NetworkSpec { ipv6: true, ..spec("again", &[]) }).unwrap();
    assert_eq!(world.subnets(again)[0], "20.20.2.0/24");
    let v6 = &world.subnets(again)[1];
    assert!(v6.starts_with("fd") && v6.ends_with("/64"), "{v6}");
    let small =
        ClusterSpec { address_pools: vec!["20.20.0.0/25".parse().unwrap()], ..ClusterSpec::default() };
    let founding = Founding { spec: small, ..Founding::default() };
    let mut draft = Draft::new(Default::default(), Timestamp(1));
    assert!(text(cluster::found(&mut draft, founding)).contains("subnet size is too small for pool"));
}

#[test]
fn numbers_are_the_lowest_and_only_overlays_have_one() {
    let mut world = World::new(ClusterSpec::default());
    let a = world.create(spec("a", &[])).unwrap();
    let b = world.create(spec("b", &[])).unwrap();
    world.remove(a).unwrap();
    let bridge = NetworkSpec { driver: NetworkDriver::Bridge, encrypted: false, ..spec("br", &[]) };
    let bridge = world.create(bridge).unwrap();
    let c = world.create(spec("c", &[])).unwrap();
    let view = world.store.view();
    let vni = |id| view.network(&id).unwrap().vni;
    assert_eq!((view.ingress_network().unwrap().vni, vni(b), vni(c), vni(bridge)), (4096, 4098, 4097, 0));
    assert_eq!(view.ingress_network().unwrap().subnets[0].net.to_string(), "10.255.0.0/16");
}

#[test]
fn d17_one_ingress_network_which_goes_when_unused() {
    let mut world = World::new(ClusterSpec::default());
    let second = NetworkSpec { ingress: true, ..spec("mesh", &[]) };
    assert_eq!(text(world.create(second.clone())), "ingress network (ingress) is already present");
    let web =
        world.service(publishing("web", Port { published: 80, target: 80, ..Port::default() })).unwrap();
    let ingress = world.store.view().ingress_network().unwrap().id;
    assert_eq!(
        text(world.remove(ingress)),
        "ingress network cannot be removed because service web depends on it"
    );
    world.run(|d, _| service::remove(d, &web)).unwrap();
    assert!(world.store.view().network(&ingress).is_some(), "D19");
    world.remove(ingress).unwrap();
    assert_eq!(
        text(world.service(publishing("web", Port { target: 80, ..Port::default() }))),
        "service needs ingress network, but no ingress network is present"
    );
    let mesh = world.create(second).unwrap();
    assert_eq!(world.store.view().network(&mesh).unwrap().vni, 4096);
    world.service(publishing("web", Port { target: 80, ..Port::default() })).unwrap();
    assert_eq!(
        text(world.service(on("on", "mesh"))),
        "service cannot be explicitly attached to the ingress network mesh"
    );
}

#[test]
fn d18_what_is_in_use_stays() {
    let mut world = World::new(ClusterSpec::default());
    let id = world.create(spec("net", &[])).unwrap();
    // The removal and the service do not see each other.
    let mut removal = world.draft();
    remove(&mut removal, &id).unwrap();
    let web = world.service(on("web", "net")).unwrap();
    let in_use = Refused::NetworkInUse { network: "net".into(), service: "web".into() };
    assert_eq!(world.apply(removal), Err(in_use));
    assert_eq!(text(world.remove(id)), "network net is in use by service web");
    let view = world.store.view();
    assert_eq!(view.service(&web).unwrap().spec.task.networks[0].network, id, "a name becomes an id");
    assert!(view.service(&web).unwrap().spec.task.gateway, "there is a way out");
    world.run(|d, _| service::remove(d, &web)).unwrap();
    let annotations = std::sync::Arc::new(testing::service("web").build().annotations);
    let attachments = vec![Attachment { network: id, ..Attachment::default() }];
    let task =
        Task { id: "t".into(), slot: 1, service_annotations: annotations, attachments, ..Task::default() };
    world
        .run(|d, _| {
            d.put_task(task);
            Ok(())
        })
        .unwrap();
    assert_eq!(text(world.remove(id)), "network net is in use by task web.1");
    // They are told to stop: whoever removes the network is told whom it waits for, and where.
    let stopping = |world: &mut World, slots: std::ops::RangeInclusive<u64>| {
        let first = Task::clone(world.store.view().task(&"t".into()).unwrap());
        let put = |d: &mut Draft, slot: u64| {
            let id = if slot == 1 { first.id } else { format!("t{slot}").into() };
            let desired_state = TaskState::Remove;
            d.put_task(Task { id, slot, node: "m".into(), desired_state, ..first.clone() });
        };
        world
            .run(|d, _| {
                slots.for_each(|slot| put(d, slot));
                Ok(())
            })
            .unwrap();
    };
    stopping(&mut world, 1..=1);
    assert_eq!(
        text(world.remove(id)),
        "network net is in use by 1 task that is still stopping: web.1; try again in a moment"
    );
    stopping(&mut world, 2..=7);
    world
        .run(|d, _| {
            let mut node = swarm_types::node::Node::clone(d.node(&"m".into()).unwrap());
            node.status.state = NodeState::Down;
            node.description.hostname = "host-m".into();
            d.put_node(node);
            Ok(())
        })
        .unwrap();
    let hangs = |slot: u64| format!("web.{slot} (its node host-m is down)");
    assert_eq!(
        text(world.remove(id)),
        format!(
            "network net is in use by 7 tasks that are still stopping: {} and 2 more; they end when their node is back, or is \
             removed (`node rm`)",
            (1..=5).map(hangs).collect::<Vec<_>>().join(", ")
        )
    );
    // The other way round: the network is gone when the service comes.
    let other = world.create(spec("other", &[])).unwrap();
    let mut late = world.draft();
    service::create(&mut late, on("late", "other"), &mut Context { now: Timestamp(1), ids: &mut world.ids })
        .unwrap();
    world.remove(other).unwrap();
    assert!(matches!(world.apply(late), Err(Refused::Stale { .. })));
    assert_eq!(text(world.service(on("late", "other"))), "network other not found");
}

#[test]
fn d3_a_port_is_published_by_one_service() {
    let mut world = World::new(ClusterSpec::default());
    let port = Port { published: 8080, target: 80, ..Port::default() };
    let id = world.service(publishing("web", port)).unwrap();
    let taken = format!("port '8080' is already in use by service 'web' ({id}) as an ingress port");
    assert_eq!(text(world.service(publishing("b", port))), taken);
    let host = Port { mode: PublishMode::Host, ..port };
    assert_eq!(text(world.service(publishing("b", host))), taken);
    let on = |ip: [u8; 4]| Port { host_ip: Some(ip.into()), published: 90, ..port };
    world.service(publishing("c", on([10, 0, 0, 1]))).unwrap();
    let d = world.service(publishing("d", on([10, 0, 0, 2]))).unwrap();
    assert!(text(world.service(publishing("e", on([10, 0, 0, 1])))).contains("by service 'c'"));
    let version = world.store.view().service(&d).unwrap().meta.version;
    let update =
        |spec| move |draft: &mut Draft, _: &mut Context<'_>| service::update(draft, &d, version, spec);
    assert!(text(world.run(update(publishing("d", port)))).contains("by service 'web'"));
    world.run(update(publishing("d", Port { published: 8081, ..port }))).unwrap();
    let free = Port { published: 70, mode: PublishMode::Host, ..port };
    world.service(publishing("h1", free)).unwrap();
    world.service(publishing("h2", free)).unwrap();
    let ingress = Port { published: 70, ..port };
    assert!(text(world.service(publishing("i", ingress))).ends_with("as a host-published port"));
    let dnsrr = testing::service("d9").with(|s, _| {
        (s.endpoint.mode, s.endpoint.ports) = (EndpointMode::Dnsrr, vec![Port { published: 71, ..port }]);
    });
    assert!(text(world.service(dnsrr.build())).contains("can't be used with dnsrr mode"), "D9");
}

#[test]
fn d23_the_data_path_port_has_bounds() {
    for (port, good) in [(7777, true), (80, false), (49_152, false)] {
        let spec = ClusterSpec { data_path_port: port, ..ClusterSpec::default() };
        let mut draft = Draft::new(Default::default(), Timestamp(1));
        let outcome =
            cluster::found(&mut draft, Founding { spec, cluster: "c".into(), ..Founding::default() });
        assert_eq!(outcome.is_ok(), good, "{port}");
    }
}

fn site(kind: SiteKind, net: &str) -> SitePrefix {
    SitePrefix { kind, net: net.parse().unwrap() }
}

/// A cluster whose first node's host uses these.
fn founded_on(spec: ClusterSpec, prefixes: &[SitePrefix]) -> World {
    let mut world = World { store: Store::default(), ids: IdSource::new(Seed(1)) };
    let mut founding = Founding { cluster: "c".into(), node: "m".into(), spec, ..Founding::default() };
    founding.description.network.site = prefixes.to_vec();
    world.run(|d, _| cluster::found(d, founding)).unwrap();
    world
}

#[test]
fn chosen_subnets_hide_nothing_of_the_nodes_hosts() {
    let ingress = |world: &World| world.store.view().ingress_network().unwrap().subnets[0].net.to_string();
    let resolver = site(SiteKind::Resolver, "10.255.255.53/32");
    let (near, vpn) = (site(SiteKind::Address, "10.0.1.7/23"), site(SiteKind::Route, "10.254.0.0/15"));
    for (prefixes, expected) in [
        (vec![], "10.255.0.0/16"),
        (vec![resolver], "10.254.0.0/16"),
        (vec![vpn], "10.253.0.0/16"),
        // All of the pool is routed somewhere: clear of what is certainly there.
        (vec![site(SiteKind::Route, "10.0.0.0/8")], "10.255.0.0/16"),
        (vec![site(SiteKind::Route, "10.0.0.0/8"), resolver], "10.254.0.0/16"),
        // No large one is left.
        (vec![site(SiteKind::Address, "10.128.0.1/9"), site(SiteKind::Route, "10.0.0.0/9")], "10.255.0.0/16"),
        (vec![near], "10.255.0.0/16"),
    ] {
        let world = founded_on(ClusterSpec::default(), &prefixes);
        assert_eq!(ingress(&world), expected, "{prefixes:?}");
        assert_eq!(
            founded_on(ClusterSpec::default(), &prefixes).store.view(),
            world.store.view(),
            "the same again"
        );
    }
    let mut world = founded_on(ClusterSpec::default(), &[near, resolver]);
    let id = world.create(spec("a", &[])).unwrap();
    assert_eq!(world.subnets(id), ["10.0.2.0/24"], "behind 10.0.0.0/23");
    // A node that joins later moves nothing; what is chosen from then on stays clear of it.
    world
        .run(|d, _| {
            let mut node = testing::node("n2");
            node.description.network.site = vec![site(SiteKind::Route, "10.0.2.0/23")];
            d.put_node(node);
            Ok(())
        })
        .unwrap();
    assert_eq!(world.subnets(id), ["10.0.2.0/24"]);
    let id = world.create(spec("b", &[])).unwrap();
    assert_eq!(world.subnets(id), ["10.0.4.0/24"]);
    // A user's pool is used around it too.
    let pools = vec!["20.20.0.0/16".parse().unwrap()];
    let settings = ClusterSpec { address_pools: pools, ..ClusterSpec::default() };
    assert_eq!(ingress(&founded_on(settings, &[site(SiteKind::Route, "20.20.0.0/20")])), "20.20.16.0/24");
}

#[test]
fn warnings_name_what_will_not_work() {
    let mut world = World::new(ClusterSpec::default());
    world
        .run(|d, _| {
            let mut node = testing::node("n1");
            node.status.addr = "10.7.0.9".into();
            node.description.network.site = vec![site(SiteKind::Route, "10.8.0.0/16")];
            node.description.network.encryption.clear();
            d.put_node(node);
            Ok(())
        })
        .unwrap();
    assert_eq!(
        text(world.create(spec("a", &["10.7.0.0/24"]))),
        "subnet 10.7.0.0/24 holds 10.7.0.9, the address of node n1: nobody on the network could reach that node; \
         choose another --subnet"
    );
    let id = world.create(spec("a", &["10.8.4.0/24"])).unwrap();
    let view = world.store.view();
    let said = warnings(&view, view.network(&id).unwrap());
    assert_eq!(
        said[0],
        "subnet 10.8.4.0/24 hides route 10.8.0.0/16 of node n1: tasks on it cannot reach what is there; unless \
         that is meant, remove the network and choose another --subnet"
    );
    assert!(said[1].contains("cannot encrypt"), "{said:?}");
    let mut many =
        publishing("web", Port { published: 80, target: 80, mode: PublishMode::Host, ..Port::default() });
    many.mode = swarm_types::service::Mode::Replicated { replicas: 3 };
    let said = crate::control::reach::warnings(&view, &many);
    assert_eq!(said, ["host-mode port 80 can be open once on each node: 1 of 3 tasks must wait"]);
}
