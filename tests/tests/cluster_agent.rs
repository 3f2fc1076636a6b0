//! Services on whole clusters: from the user's command to containers and back, with statuses,
//! reasons, logs and images.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, Control, PATIENCE, eventually, service};
use swarm_types::cluster::ClusterSpec;
use swarm_types::task_state::TaskState;
use swarm_worker_agent::executor::{ExecError, LogStream};
use swarm_worker_agent::fake::Script;
use tonic::{Code, Status};
use v1::logs_message::Message as LogMessage;
use v1::watch_message::Message;

async fn create(control: &mut Control, spec: v1::ServiceSpec) -> Result<String, Status> {
    Ok(control.create_service(v1::CreateServiceRequest { spec: Some(spec) }).await?.into_inner().service_id)
}

async fn tasks(control: &mut Control, service: &str) -> Vec<v1::Task> {
    let request = v1::ListTasksRequest { services: vec![service.into()], nodes: vec![] };
    control.list_tasks(request).await.unwrap().into_inner().tasks
}

fn state(task: &v1::Task) -> u32 {
    task.status.as_ref().unwrap().state
}

async fn all_running(cluster: &Cluster, service: &str, count: usize) -> Vec<v1::Task> {
    eventually(&format!("{count} tasks of {service} run"), || async {
        let mut found = tasks(&mut cluster.any().control(), service).await;
        found.retain(|t| state(t) == TaskState::Running as u32);
        if found.len() == count { Ok(found) } else { Err(format!("{} run", found.len())) }
    })
    .await
}

#[tokio::test]
async fn from_spec_to_assigned_in_one_commit() {
    let cluster = Cluster::start(1, 2).await;
    let mut control = cluster.any().control();
    let mut watch = control.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let id = create(&mut control, service("web", "nginx", 6)).await.unwrap();
    // The first that is heard of every task: it has a node already.
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    let mut running = BTreeSet::new();
    while running.len() < 6 {
        let Some(Message::Event(event)) = watch.message().await.unwrap().unwrap().message else { continue };
        let kind = event.kind();
        let Some(v1::object::Object::Task(task)) = event.object.unwrap().object else { continue };
        assert_eq!(task.service_id, id);
        first.entry(task.id.clone()).or_insert_with(|| state(&task));
        if kind == v1::watch_event::Kind::Created {
            assert!(!task.node_id.is_empty(), "created without a node");
            versions.insert(task.meta.as_ref().unwrap().version);
        }
        if state(&task) == TaskState::Running as u32 {
            running.insert(task.id);
        }
    }
    assert_eq!(first.len(), 6);
    assert!(first.values().all(|s| *s == TaskState::Assigned as u32), "{first:?}");
    assert_eq!(versions.len(), 1, "six tasks, one entry: {versions:?}");
    let per_host: Vec<usize> = cluster.hosts.iter().map(|h| h.running_tasks().len()).collect();
    assert_eq!(per_host, [2, 2, 2]);
}

#[tokio::test]
async fn what_ends_is_replaced_and_what_cannot_start_says_why() {
    let cluster = Cluster::start(1, 1).await;
    let mut control = cluster.any().control();
    create(&mut control, service("web", "nginx", 2)).await.unwrap();
    let before = all_running(&cluster, "web", 2).await;
    let doomed = cluster.host("w1").running_tasks()[0];
    assert!(cluster.host("w1").executor.exit(doomed, 3));
    eventually("another one runs in its place", || async {
        let now = tasks(&mut cluster.any().control(), "web").await;
        let running = now.iter().filter(|t| state(t) == TaskState::Running as u32);
        let new = running.filter(|t| before.iter().all(|b| b.id != t.id)).count();
        if new == 1 { Ok(()) } else { Err(format!("{new}")) }
    })
    .await;
    let old = control.get_task(v1::GetTaskRequest { reference: doomed.to_string() }).await.unwrap();
    let status = old.into_inner().task.unwrap().status.unwrap();
    assert_eq!(status.state, TaskState::Failed as u32);
    assert_eq!(status.container.unwrap().exit_code, 3);

    let fails =
        Script { prepare_error: Some(ExecError::Fatal("no such image: nope".into())), ..Script::default() };
    for host in &cluster.hosts {
        host.executor.script("nope", fails.clone());
    }
    create(&mut control, service("bad", "nope", 1)).await.unwrap();
    eventually("the reason is shown", || async {
        let now = tasks(&mut cluster.any().control(), "bad").await;
        let told = now.iter().any(|t| t.status.as_ref().unwrap().err.contains("no such image: nope"));
        if told { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    control.remove_service(v1::RemoveServiceRequest { reference: "bad".into() }).await.unwrap();
}

#[tokio::test]
async fn what_waits_says_why_for_every_node() {
    let cluster = Cluster::start(1, 1).await;
    let mut control = cluster.any().control();
    let mut spec = service("big", "nginx", 1);
    spec.task.as_mut().unwrap().reservations = Some(v1::Resources { nano_cpus: 0, memory_bytes: 1 << 40 });
    create(&mut control, spec).await.unwrap();
    let task = eventually("it waits", || async {
        let now = tasks(&mut cluster.any().control(), "big").await;
        match now.into_iter().next() {
            Some(t) if !t.status.as_ref().unwrap().err.is_empty() => Ok(t),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(state(&task), TaskState::Pending as u32);
    let err = &task.status.as_ref().unwrap().err;
    assert!(err.contains("no suitable node") && err.contains("2 insufficient memory"), "{err}");
    let one = control.get_task(v1::GetTaskRequest { reference: task.id }).await.unwrap().into_inner();
    let names: BTreeSet<_> = one.unfit_nodes.iter().map(|n| n.node_name.clone()).collect();
    assert_eq!(names, BTreeSet::from(["m1".to_owned(), "w1".to_owned()]), "{:?}", one.unfit_nodes);
    assert!(one.unfit_nodes.iter().all(|n| !n.reason.is_empty()));
}

async fn read_logs(control: &mut Control, service: &str) -> (Vec<String>, Vec<String>) {
    let options = Some(v1::LogOptions { tail: -1, since_ms: 0, follow: false, stdout: true, stderr: true });
    let request = v1::LogsRequest { services: vec![service.into()], tasks: vec![], options };
    let mut stream = control.logs(request).await.unwrap().into_inner();
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    while let Some(message) = stream.message().await.unwrap() {
        match message.message.unwrap() {
            LogMessage::Line(line) => lines.push(String::from_utf8(line.data.to_vec()).unwrap()),
            LogMessage::Warning(text) => warnings.push(text),
        }
    }
    (lines, warnings)
}

#[tokio::test]
async fn logs_come_from_all_nodes_and_who_is_missing_is_named() {
    let mut cluster = Cluster::start(1, 2).await;
    for host in &cluster.hosts {
        let says = vec![format!("hello from {}", host.name)];
        host.executor.script("talker", Script { says, ..Script::default() });
    }
    let mut control = cluster.any().control();
    create(&mut control, service("talk", "talker", 3)).await.unwrap();
    all_running(&cluster, "talk", 3).await;
    let (mut lines, warnings) = read_logs(&mut control, "talk").await;
    lines.sort();
    assert_eq!(lines, ["hello from m1", "hello from w1", "hello from w2"]);
    assert!(warnings.is_empty(), "{warnings:?}");
    cluster.host_mut("w2").kill().await;
    eventually("its connection is seen to be gone", || async {
        let (_, warnings) = read_logs(&mut cluster.any().control(), "talk").await;
        if warnings.iter().any(|w| w.contains("w2")) { Ok(()) } else { Err(format!("{warnings:?}")) }
    })
    .await;
    let (lines, _) = read_logs(&mut control, "talk").await;
    assert!(lines.contains(&"hello from w1".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn a_slow_log_reader_blocks_nobody() {
    let cluster = Cluster::start(1, 1).await;
    let mut control = cluster.any().control();
    create(&mut control, service("talk", "talker", 2)).await.unwrap();
    all_running(&cluster, "talk", 2).await;
    let options = Some(v1::LogOptions { tail: -1, since_ms: 0, follow: true, stdout: true, stderr: true });
    let request = v1::LogsRequest { services: vec!["talk".into()], tasks: vec![], options };
    // Connections of their own: what one does not take must not fill that of the other.
    let slow = cluster.any().control().logs(request.clone()).await.unwrap().into_inner();
    let mut fast = cluster.any().control().logs(request).await.unwrap().into_inner();
    let w1 = cluster.host("w1");
    let task = w1.running_tasks()[0];
    let long = "x".repeat(8 << 10);
    for n in 0..2000 {
        w1.executor.say(task, LogStream::Stdout, &format!("{n} {long}"));
    }
    w1.executor.say(task, LogStream::Stdout, "the end");
    let reading = async {
        loop {
            if let LogMessage::Line(line) = fast.message().await.unwrap().unwrap().message.unwrap()
                && line.data == "the end"
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the other reader gets all of it");
    // Nor are statuses held up.
    let web = create(&mut control, service("web", "nginx", 2)).await.unwrap();
    all_running(&cluster, &web, 2).await;
    drop(slow);
}

#[tokio::test]
async fn an_image_goes_to_all_nodes_and_one_that_fails_is_named() {
    let mut cluster = Cluster::with(1, 2, ClusterSpec::default()).await;
    cluster.host_mut("w2").kill().await;
    eventually("w2 is down", || async {
        let nodes = cluster.nodes().await.map_err(|e| e.to_string())?;
        let ready = nodes.iter().filter(|n| swarm_tests::harness::is_ready(n)).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
    let header = v1::load_image_request::Message::Header(v1::LoadImageHeader::default());
    let chunk = v1::load_image_request::Message::Chunk("demo:1".into());
    let messages = [header, chunk].map(|m| v1::LoadImageRequest { message: Some(m) });
    let stream =
        cluster.any().control().load_image(futures::stream::iter(messages)).await.unwrap().into_inner();
    let done: BTreeMap<String, v1::ImageProgress> = stream
        .map(Result::unwrap)
        .filter(|p| futures::future::ready(p.done))
        .map(|p| (p.node_name.clone(), p))
        .collect()
        .await;
    for name in ["m1", "w1"] {
        assert_eq!(done[name].error, "", "{done:?}");
        assert_eq!(done[name].images, ["demo:1"], "{done:?}");
    }
    // What is down is either left out or named, never a success.
    assert!(done.get("w2").is_none_or(|p| p.error.contains("down")), "{done:?}");
}

#[tokio::test]
async fn old_versions_and_doubtful_names_are_refused() {
    let cluster = Cluster::start(1, 0).await;
    let mut control = cluster.any().control();
    let id = create(&mut control, service("web", "nginx", 1)).await.unwrap();
    let get = || v1::GetServiceRequest { reference: "web".into() };
    let read = control.get_service(get()).await.unwrap().into_inner().entry.unwrap().service.unwrap();
    let update = |replicas| {
        let mut spec = read.spec.clone().unwrap();
        spec.mode = Some(v1::service_spec::Mode::Replicated(v1::ReplicatedMode { replicas }));
        let version = read.meta.as_ref().unwrap().version;
        v1::UpdateServiceRequest { service_id: id.clone(), version, spec: Some(spec), rollback: false }
    };
    control.update_service(update(2)).await.unwrap();
    let stale = control.update_service(update(3)).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted, "{stale:?}");
    assert!(stale.message().contains("out of sequence"), "{stale:?}");
    // Who writes at the same time: one wins, the others are told.
    let read = control.get_service(get()).await.unwrap().into_inner().entry.unwrap().service.unwrap();
    let at_once = (0..8).map(|n| {
        let mut control = cluster.any().control();
        let mut request = update(10 + n);
        request.version = read.meta.as_ref().unwrap().version;
        async move { control.update_service(request).await.is_ok() }
    });
    let won = futures::future::join_all(at_once).await.into_iter().filter(|ok| *ok).count();
    assert_eq!(won, 1);

    let twice = create(&mut control, service("web", "nginx", 1)).await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists, "{twice:?}");
    for name in ["", "-web", "we b", "web/1", &"x".repeat(64)] {
        let refused = create(&mut control, service(name, "nginx", 1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "`{name}`: {refused:?}");
    }
    // So many services that two ids begin alike.
    let mut ids = vec![id];
    while !ids.iter().any(|a| ids.iter().any(|b| a != b && a[..1] == b[..1])) {
        ids.push(create(&mut control, service(&format!("s{}", ids.len()), "nginx", 0)).await.unwrap());
    }
    let first = ids.iter().find(|a| ids.iter().any(|b| *a != b && a[..1] == b[..1])).unwrap();
    let doubtful = v1::GetServiceRequest { reference: first[..1].into() };
    let refused = control.get_service(doubtful).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("ambiguous"), "{refused:?}");
    let whole = v1::GetServiceRequest { reference: first.clone() };
    control.get_service(whole).await.unwrap();
    let none = control.get_service(v1::GetServiceRequest { reference: "nosuch".into() }).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound, "{none:?}");
}
