use super::*;
use crate::testing::{change_network, entry, network, service, serving, task};
use swarm_types::id::NetworkId;
use swarm_types::network_set::{NetworkChange, NetworkSet};

fn shown(zone: &Zone, name: &str) -> String {
    match zone.find(name) {
        None => "-".into(),
        Some(Found::Missing) => "missing".into(),
        Some(found) => {
            let mut addrs: Vec<String> = zone.addrs(&found).iter().map(IpAddr::to_string).collect();
            addrs.sort();
            addrs.join(" ")
        }
    }
}

fn front() -> (NetworkSet, NetworkId, Vec<TaskId>) {
    let mut set = NetworkSet::default();
    let net = network(&mut set, "Front", 1);
    service(&mut set, net, "Web", &["www", "shared", "www.example.com"], &["10.1.1.1", "fd00:1::100"]);
    service(&mut set, net, "db", &["shared"], &[]);
    let mut tasks = vec![task(&mut set, net, "Web", 1, &["10.1.0.11", "fd00:1::11"])];
    tasks.push(task(&mut set, net, "Web", 2, &["10.1.0.12"]));
    tasks.push(task(&mut set, net, "db", 1, &["10.1.0.21"]));
    tasks.push(task(&mut set, net, "db", 2, &["10.1.0.22"]));
    tasks.push(task(&mut set, net, "db", 3, &["10.1.0.23"]));
    serving(&mut set, net, tasks[4], false);
    (set, net, tasks)
}

#[test]
fn names_stand_for_what_the_table_says() {
    let (set, net, tasks) = front();
    let zone = Zone::new(entry(&set, net));
    let web = "10.1.1.1 fd00:1::100";
    let id = tasks[0].as_str();
    let table = [
        ("web", web),
        ("www", web),
        ("www.example.com", web),
        ("web.front", web),
        ("www.example.com.front", web),
        ("tasks.web", "10.1.0.11 10.1.0.12 fd00:1::11"),
        ("tasks.www", "10.1.0.11 10.1.0.12 fd00:1::11"),
        ("tasks.web.front", "10.1.0.11 10.1.0.12 fd00:1::11"),
        ("db", "10.1.0.21 10.1.0.22"),
        ("tasks.db", "10.1.0.21 10.1.0.22"),
        ("shared", "10.1.0.21 10.1.0.22 10.1.1.1 fd00:1::100"),
        ("web.1", "10.1.0.11 fd00:1::11"),
        ("web.2.front", "10.1.0.12"),
        ("web.7", "missing"),
        ("web.7.front", "missing"),
        ("db.3", "missing"),
        ("db.front.3", "missing"),
        ("tasks.gone", "missing"),
        ("tasks.example.com", "-"),
        ("tasks", ""),
        ("front", ""),
        ("example.com", "-"),
        ("web.example.com", "-"),
        ("other", "-"),
        ("web.other", "-"),
        ("", "-"),
        (".", "-"),
        (".front", "-"),
        ("tasks.", "missing"),
        (&format!("web.1.{id}"), "10.1.0.11 fd00:1::11"),
        (&format!("web.1.{id}.front"), "10.1.0.11 fd00:1::11"),
        (&format!("web.2.{id}"), "missing"),
        (id, "10.1.0.11 fd00:1::11"),
        (&id[..12], "10.1.0.11 fd00:1::11"),
        (&id[..11], "-"),
        (tasks[4].as_str(), "-"),
    ];
    for (name, addrs) in table {
        assert_eq!(shown(&zone, name), addrs, "`{name}`");
    }
}

#[test]
fn owners_have_the_names_that_lead_back() {
    let (set, net, tasks) = front();
    let zone = Zone::new(entry(&set, net));
    let owner = |addr: &str| zone.owner(addr.parse().unwrap());
    assert_eq!(owner("10.1.1.1").unwrap(), "Web.Front");
    assert_eq!(owner("fd00:1::11").unwrap(), format!("Web.1.{}.Front", tasks[0]));
    assert_eq!(owner("10.1.0.23").unwrap(), format!("db.3.{}.Front", tasks[4]), "not serving, but it calls");
    assert_eq!(owner("10.1.0.99"), None);
    assert!(zone.contains("10.1.0.99".parse().unwrap()) && !zone.contains("10.2.0.1".parse().unwrap()));
    assert_eq!(zone.task_at("10.1.0.23".parse().unwrap()), Some(tasks[4]));
    assert_eq!(zone.task_at("10.1.1.1".parse().unwrap()), None);
}

#[test]
fn a_task_that_ended_has_no_address_and_a_service_without_tasks_has_a_name() {
    let (mut set, net, tasks) = front();
    for task in &tasks[2..] {
        crate::testing::change(&mut set, NetworkChange::RemoveEndpoint(net, *task));
    }
    let zone = Zone::new(entry(&set, net));
    assert_eq!(shown(&zone, "db"), "");
    assert!(matches!(zone.find("db"), Some(Found::Services { .. })));
    assert_eq!(shown(&zone, "db.1"), "missing");
    assert_eq!(zone.owner("10.1.0.21".parse().unwrap()), None);
    assert_eq!(shown(&zone, "shared"), "10.1.1.1 fd00:1::100");
}

#[test]
fn a_service_that_waits_for_its_virtual_address_is_reached_at_its_tasks() {
    let (mut set, net, _) = front();
    let mut endpoint = ServiceEndpoint::clone(&set.networks[&net].services[&ServiceId::new("Web")]);
    endpoint.vips.clear();
    crate::testing::change(&mut set, NetworkChange::PutService(net, Arc::new(endpoint)));
    assert_eq!(shown(&Zone::new(entry(&set, net)), "web"), "10.1.0.11 10.1.0.12 fd00:1::11");
}

#[test]
fn the_ingress_network_has_no_names() {
    let (mut set, net, tasks) = front();
    change_network(&mut set, net, |part| part.ingress = true);
    let zone = Zone::new(entry(&set, net));
    assert_eq!(shown(&zone, "web"), "-");
    assert_eq!(zone.owner("10.1.0.11".parse().unwrap()), None);
    assert_eq!(zone.task_at("10.1.0.11".parse().unwrap()), Some(tasks[0]));
}
