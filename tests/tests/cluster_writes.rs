//! The group of managers under bad luck: no acknowledged write is lost, whoever dies; who was away
//! catches up; every manager answers for the cluster.

use std::collections::BTreeSet;

use futures::StreamExt;
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, Control, Host, PATIENCE, capture, eventually, patient, service};
use swarm_types::cluster::ClusterSpec;
use tonic::{Code, Status};
use v1::watch_message::Message;

async fn create(control: &mut Control, name: &str) -> Result<String, Status> {
    let spec = Some(service(name, "nginx", 0));
    Ok(control.create_service(v1::CreateServiceRequest { spec }).await?.into_inner().service_id)
}

async fn names(host: &Host) -> Result<BTreeSet<String>, Status> {
    let list = host.control().list_services(v1::ListServicesRequest {}).await?.into_inner().services;
    let name = |e: v1::ServiceEntry| e.service.unwrap().spec.unwrap().annotations.unwrap().name;
    Ok(list.into_iter().map(name).collect())
}

/// Creates services through `host` until it has `count`; asks again when it is told to.
async fn write_until(host: &Host, prefix: &str, count: usize) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    let mut control = host.control();
    let end = tokio::time::Instant::now() + PATIENCE;
    for n in 0.. {
        if acknowledged.len() == count {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{} of {count} writes", acknowledged.len());
        let name = format!("{prefix}{n}");
        match create(&mut control, &name).await {
            Ok(_) => drop(acknowledged.insert(name)),
            Err(e) => assert_eq!(e.code(), Code::Unavailable, "{e:?}"),
        }
    }
    acknowledged
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_leader_dies() {
    let mut cluster = Cluster::start(3, 0).await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..2 {
        let leader = cluster.leader().await;
        let follower = cluster.follower().await;
        acknowledged.extend(write_until(cluster.host(&follower), &format!("a{round}-"), 20).await);
        cluster.host_mut(&leader).kill().await;
        let host = cluster.host(&follower);
        acknowledged.extend(write_until(host, &format!("b{round}-"), 20).await);
        let found = names(host).await.unwrap();
        assert!(acknowledged.is_subset(&found), "lost: {:?}", acknowledged.difference(&found));
        cluster.host_mut(&leader).start().await;
        cluster.all_ready(3).await;
        eventually("who was away answers with all of it", || async {
            let found = names(cluster.host(&leader)).await.map_err(|e| e.to_string())?;
            if acknowledged.is_subset(&found) { Ok(()) } else { Err(format!("{} found", found.len())) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_cluster_that_lost_its_power_goes_on() {
    let mut cluster = Cluster::start(3, 1).await;
    let follower = cluster.follower().await;
    let id = {
        let spec = Some(service("web", "nginx", 4));
        let mut control = cluster.host(&follower).control();
        control.create_service(v1::CreateServiceRequest { spec }).await.unwrap().into_inner().service_id
    };
    let acknowledged = write_until(cluster.host(&follower), "s", 10).await;
    eventually("four run", || async { runs(&cluster, 4) }).await;
    for host in &mut cluster.hosts {
        host.kill().await;
        host.executor.power_loss();
    }
    for host in &mut cluster.hosts {
        host.start().await;
    }
    cluster.all_ready(4).await;
    let found = names(cluster.any()).await.unwrap();
    assert!(acknowledged.is_subset(&found), "lost: {:?}", acknowledged.difference(&found));
    eventually("four run again", || async { runs(&cluster, 4) }).await;
    let request = v1::GetServiceRequest { reference: id };
    eventually("and the service says so", || async {
        let answer = cluster.any().control().get_service(request.clone()).await.map_err(|e| e.to_string())?;
        let running = answer.into_inner().entry.unwrap().running_tasks;
        if running == 4 { Ok(()) } else { Err(format!("{running} run")) }
    })
    .await;
}

fn runs(cluster: &Cluster, count: usize) -> Result<(), String> {
    let running: usize = cluster.hosts.iter().map(|h| h.running_tasks().len()).sum();
    if running == count { Ok(()) } else { Err(format!("{running} run")) }
}

#[tokio::test]
async fn a_clean_stop_of_all_and_a_start_change_nothing() {
    let mut cluster = Cluster::start(1, 1).await;
    let id = {
        let spec = Some(service("web", "nginx", 2));
        let answer = cluster.any().control().create_service(v1::CreateServiceRequest { spec }).await;
        answer.unwrap().into_inner().service_id
    };
    eventually("two run", || async { runs(&cluster, 2) }).await;
    let before: Vec<_> = cluster.hosts.iter().map(Host::running_tasks).collect();
    for host in &mut cluster.hosts {
        host.stop().await;
    }
    let during: Vec<_> = cluster.hosts.iter().map(Host::running_tasks).collect();
    assert_eq!(before, during, "containers go on without the daemon");
    for host in &mut cluster.hosts {
        host.start().await;
    }
    cluster.all_ready(2).await;
    eventually("the same two are known to run", || async {
        let request = v1::GetServiceRequest { reference: id.clone() };
        let answer = cluster.any().control().get_service(request).await.map_err(|e| e.to_string())?;
        let running = answer.into_inner().entry.unwrap().running_tasks;
        if running == 2 { Ok(()) } else { Err(format!("{running} run")) }
    })
    .await;
    let after: Vec<_> = cluster.hosts.iter().map(Host::running_tasks).collect();
    assert_eq!(before, after);
    for host in &cluster.hosts {
        assert!(host.executor.containers().values().all(|c| c.starts == 1), "{}: started again", host.name);
    }
}

#[tokio::test]
async fn a_manager_that_was_away_catches_up_by_snapshot() {
    let spec = ClusterSpec { snapshot_interval: 20, ..patient() };
    let mut cluster = Cluster::with(3, 0, spec).await;
    let away = cluster.follower().await;
    cluster.host_mut(&away).kill().await;
    let control = cluster.any().control();
    // Compaction keeps 500 entries for followers that are a little slow.
    let creating = (0..700).map(|n| {
        let mut control = control.clone();
        async move {
            // A machine that is busy may see another leader meanwhile: then it is asked again.
            for attempt in 0.. {
                let name = format!("s{n}-{attempt}");
                match create(&mut control, &name).await {
                    Ok(_) => return name,
                    Err(e) => assert_eq!(e.code(), Code::Unavailable, "{e:?}"),
                }
            }
            unreachable!("it asks until it is answered")
        }
    });
    let acknowledged: BTreeSet<String> = futures::stream::iter(creating).buffer_unordered(8).collect().await;
    cluster.host_mut(&away).start().await;
    cluster.all_ready(3).await;
    // Who joins gets a snapshot too, but of the first few entries.
    eventually("it gets a snapshot of many entries", || async {
        let index = |l: &str| l.rsplit_once("raft.index=").and_then(|(_, n)| n.trim().parse::<u64>().ok());
        let taken = capture().lines_with("caught up from a snapshot");
        let newest = taken.iter().filter_map(|l| index(l)).max();
        if newest.is_some_and(|n| n >= 500) { Ok(()) } else { Err(format!("{newest:?}")) }
    })
    .await;
    // It has all of it: with another one gone it must vote, and may lead.
    let leader = cluster.leader().await;
    cluster.host_mut(&leader).kill().await;
    eventually("all services are there", || async {
        let found = names(cluster.host(&away)).await.map_err(|e| e.to_string())?;
        if acknowledged.is_subset(&found) { Ok(()) } else { Err(format!("{} found", found.len())) }
    })
    .await;
}

#[tokio::test]
async fn without_a_quorum_the_answer_says_how_many_are_missing() {
    let mut cluster = Cluster::start(3, 0).await;
    let survivor = cluster.follower().await;
    for name in ["m1", "m2", "m3"] {
        if name != survivor {
            cluster.host_mut(name).kill().await;
        }
    }
    let host = cluster.host(&survivor);
    let refused = eventually("it notices", || async {
        match create(&mut host.control(), "x").await {
            Ok(id) => panic!("service {id} was created without a quorum"),
            Err(e) if e.message().contains("no leader") => Ok(e),
            Err(e) => Err(format!("{e:?}")),
        }
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("of 3 managers reachable, 2 needed"), "{refused:?}");
    let read = host.control().list_nodes(v1::ListNodesRequest {}).await.unwrap_err();
    assert_eq!(read.code(), Code::Unavailable, "no stale reads: {read:?}");
    let info = host.info().await;
    assert!(info.warnings.iter().any(|w| w.contains("no leader")), "{:?}", info.warnings);
}

#[tokio::test]
async fn followers_answer_for_the_leader() {
    let cluster = Cluster::start(3, 1).await;
    let follower = cluster.follower().await;
    let host = cluster.host(&follower);
    let mut control = host.control();
    let mut watch = control.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let spec = service("web", "nginx", 2);
    let created = control.create_service(v1::CreateServiceRequest { spec: Some(spec) }).await.unwrap();
    let id = created.into_inner().service_id;
    // A read after a write through the same manager sees it.
    let reference = || "web".to_owned();
    let entry = control.get_service(v1::GetServiceRequest { reference: reference() }).await.unwrap();
    let read = entry.into_inner().entry.unwrap().service.unwrap();
    assert_eq!(read.id, id);
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let Some(Message::Event(event)) = watch.message().await.unwrap().unwrap().message else {
                continue;
            };
            if let Some(v1::object::Object::Service(s)) = event.object.unwrap().object {
                return s.id;
            }
        }
    });
    assert_eq!(seen.await.unwrap(), id);
    let mut spec = read.spec.unwrap();
    spec.mode = Some(v1::service_spec::Mode::Replicated(v1::ReplicatedMode { replicas: 3 }));
    let update = v1::UpdateServiceRequest {
        service_id: id.clone(),
        version: read.meta.unwrap().version,
        spec: Some(spec),
        rollback: false,
    };
    control.update_service(update).await.unwrap();
    eventually("three run", || async { runs(&cluster, 3) }).await;
    let list = v1::ListTasksRequest { services: vec![reference()], nodes: vec![] };
    let tasks = control.list_tasks(list).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.len(), 3);
    let task = control.get_task(v1::GetTaskRequest { reference: tasks[0].id.clone() }).await.unwrap();
    assert_eq!(task.into_inner().task.unwrap().id, tasks[0].id);
    control.get_cluster(v1::GetClusterRequest {}).await.unwrap();
    let nodes = control.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.iter().filter(|n| n.manager.as_ref().is_some_and(|m| m.leader)).count(), 1);
    control.get_node(v1::GetNodeRequest { reference: "w1".into() }).await.unwrap();
    let images = control.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner().nodes;
    assert_eq!(images.len(), 4);
    let pulled =
        control.pull_image(v1::PullImageRequest { image: "busybox".into(), ..Default::default() }).await;
    let done: Vec<_> = pulled
        .unwrap()
        .into_inner()
        .map(Result::unwrap)
        .filter(|p| futures::future::ready(p.done))
        .collect()
        .await;
    assert_eq!(done.len(), 4);
    let removed = control.remove_service(v1::RemoveServiceRequest { reference: reference() }).await.unwrap();
    assert_eq!(removed.into_inner().service_id, id);
    eventually("nothing runs", || async { runs(&cluster, 0) }).await;
}

/// What a watcher knows after the state and all events: ids of services.
async fn follow(stream: &mut tonic::Streaming<v1::WatchMessage>, known: &mut BTreeSet<String>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let object = match message.message.unwrap() {
                    Message::Current(object) => object,
                    Message::Event(event) => event.object.unwrap(),
                    Message::Synced(_) => continue,
                };
                if let Some(v1::object::Object::Service(s)) = object.object {
                    known.insert(s.spec.unwrap().annotations.unwrap().name);
                }
            }
            Ok(None) => return Status::ok("the end"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_watch_through_a_follower_ends_when_the_leader_dies() {
    let mut cluster = Cluster::start(3, 0).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let mut stream = {
        let mut control = cluster.host(&follower).control();
        control.watch(v1::WatchRequest::default()).await.unwrap().into_inner()
    };
    write_until(cluster.host(&follower), "before", 3).await;
    cluster.host_mut(&leader).kill().await;
    let mut known = BTreeSet::new();
    let ended = tokio::time::timeout(PATIENCE, follow(&mut stream, &mut known)).await;
    let ended = ended.expect("a watch does not hang when the leader is gone");
    assert!(ended.code() != Code::Ok, "a watch that is cut off must not look complete: {ended:?}");
    write_until(cluster.host(&follower), "after", 3).await;
    // Started anew it has all of it.
    let mut control = cluster.host(&follower).control();
    let mut stream = control.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let mut known = BTreeSet::new();
    let whole = async {
        loop {
            let message = stream.message().await.unwrap().unwrap().message.unwrap();
            match message {
                Message::Current(v1::Object { object: Some(v1::object::Object::Service(s)) }) => {
                    known.insert(s.spec.unwrap().annotations.unwrap().name);
                }
                Message::Synced(_) => break,
                Message::Current(_) | Message::Event(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap();
    assert_eq!(known, names(cluster.host(&follower)).await.unwrap());
    assert!(known.len() >= 6);
}
