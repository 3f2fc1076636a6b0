//! The calls for networks, over real connections.

use futures::StreamExt;
use swarm_proto::v1;
use swarm_tests::harness::{Cluster, eventually, service};
use tonic::{Code, Request};

fn network(name: &str) -> v1::NetworkSpec {
    let annotations = Some(v1::Annotations { name: name.into(), ..Default::default() });
    v1::NetworkSpec { annotations, not_encrypted: true, internal: true, ..Default::default() }
}

#[tokio::test]
async fn a_network_is_made_used_checked_and_removed() {
    let cluster = Cluster::start(1, 1).await;
    let leader = cluster.leader().await;
    let mut control = cluster.host(&leader).control();
    let create = v1::CreateNetworkRequest { spec: Some(network("back")) };
    let made = control.create_network(create.clone()).await.unwrap().into_inner();
    let again = control.create_network(create).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::AlreadyExists, "network back already exists"));
    let broken = control.create_network(v1::CreateNetworkRequest { spec: None }).await.unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);

    let networks = control.list_networks(v1::ListNetworksRequest {}).await.unwrap().into_inner().networks;
    let names: Vec<_> = networks.iter().map(|n| n.spec.clone().unwrap().annotations.unwrap().name).collect();
    assert!(names.contains(&"ingress".to_owned()) && names.contains(&"back".to_owned()), "{names:?}");

    let mut spec = service("web", "nginx", 2);
    let attachment = v1::AttachmentSpec { network_id: "back".into(), ..Default::default() };
    spec.task.as_mut().unwrap().networks = vec![attachment];
    control.create_service(v1::CreateServiceRequest { spec: Some(spec) }).await.unwrap();
    let reference = made.network_id[..10].to_owned();
    eventually("the service has an address and its tasks have theirs", || async {
        let get = v1::GetNetworkRequest { reference: reference.clone() };
        let found =
            cluster.host(&leader).control().get_network(get).await.map_err(|e| e.to_string())?.into_inner();
        let vips =
            found.services.iter().filter_map(|s| s.endpoint.as_ref()).map(|e| e.vips.len()).sum::<usize>();
        let addrs = found.tasks.iter().filter(|t| t.attachments.iter().any(|a| a.addrs.len() == 1)).count();
        if (vips, addrs, found.services.len()) == (1, 2, 1) && !found.nodes.is_empty() {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;

    let remove = |reference: &str| v1::RemoveNetworkRequest { reference: reference.into() };
    let used = control.remove_network(remove("back")).await.unwrap_err();
    assert_eq!(used.message(), "network back is in use by service web");
    assert_eq!(control.remove_network(remove("nope")).await.unwrap_err().message(), "network nope not found");

    let check = v1::CheckNetworksRequest { network: "back".into() };
    let answers: Vec<_> =
        control.check_networks(Request::new(check)).await.unwrap().into_inner().collect().await;
    assert_eq!(answers.len(), 2, "each node answers: {answers:?}");
    assert!(answers.iter().all(|a| !a.as_ref().unwrap().node_name.is_empty()));

    control.remove_service(v1::RemoveServiceRequest { reference: "web".into() }).await.unwrap();
    eventually("the network goes when its tasks have", || async {
        let gone = cluster.host(&leader).control().remove_network(remove("back")).await;
        gone.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

/// C16: what takes the last network from a service gives it other tasks, and sets the network free.
#[tokio::test]
async fn a_service_loses_its_network() {
    let cluster = Cluster::start(1, 1).await;
    let leader = cluster.leader().await;
    let mut control = cluster.host(&leader).control();
    let create = v1::CreateNetworkRequest { spec: Some(network("back")) };
    control.create_network(create).await.unwrap();
    let mut spec = service("web", "nginx", 2);
    let attachment = v1::AttachmentSpec { network_id: "back".into(), ..Default::default() };
    spec.task.as_mut().unwrap().networks = vec![attachment];
    control.create_service(v1::CreateServiceRequest { spec: Some(spec) }).await.unwrap();
    let read = || async {
        let get = v1::GetServiceRequest { reference: "web".into() };
        let entry = cluster.host(&leader).control().get_service(get).await.unwrap().into_inner().entry;
        entry.unwrap()
    };
    let on_network = || async {
        let get = v1::GetNetworkRequest { reference: "back".into() };
        cluster.host(&leader).control().get_network(get).await.unwrap().into_inner().tasks
    };
    let before = eventually("two tasks run on the network", || async {
        let (tasks, running) = (on_network().await, read().await.running_tasks);
        if (tasks.len(), running) == (2, 2) { Ok(tasks) } else { Err(format!("{running}: {tasks:?}")) }
    })
    .await;

    let service = read().await.service.unwrap();
    assert_eq!(service.endpoint.unwrap().vips.len(), 1);
    let mut spec = service.spec.unwrap();
    spec.task.as_mut().unwrap().networks.clear();
    let version = service.meta.unwrap().version;
    let update =
        v1::UpdateServiceRequest { service_id: service.id, version, spec: Some(spec), rollback: false };
    control.update_service(update).await.unwrap();
    eventually("other tasks run, without it", || async {
        let (tasks, entry) = (on_network().await, read().await);
        let vips = entry.service.unwrap().endpoint.map_or(0, |endpoint| endpoint.vips.len());
        let done = tasks.is_empty() && (vips, entry.running_tasks) == (0, 2);
        if done { Ok(()) } else { Err(format!("{vips} addresses, of {before:?} still {tasks:?}")) }
    })
    .await;
    control.remove_network(v1::RemoveNetworkRequest { reference: "back".into() }).await.unwrap();
}
