//! Whole commands against a manager that answers from a script, over a real socket.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::Stream;
use swarm_proto::v1;
use swarm_proto::v1::control_server::{Control, ControlServer};
use swarm_types::network::Network;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A manager with one service and two networks; it loses its leader in the middle of the first watch.
#[derive(Default)]
struct Fake {
    watches: AtomicUsize,
    failing: bool,
    /// Specs that were sent, and networks that were removed.
    sent: Mutex<Vec<v1::ServiceSpec>>,
    removed: Mutex<Vec<String>>,
}

impl Fake {
    fn service(&self) -> Service {
        let mut spec = testing::service("web").replicas(2);
        if self.failing {
            spec = spec.with(|_, task| task.restart.condition = swarm_types::policy::RestartCondition::None);
        }
        Service { id: "s1".into(), spec: spec.build(), spec_version: 1, ..Service::default() }
    }
    fn task(&self, slot: u64, state: TaskState) -> v1::WatchMessage {
        let service = self.service();
        let mut task =
            Task { id: format!("t{slot}").into(), slot, spec: service.spec.task, ..Task::default() };
        (task.spec_version, task.status.state, task.desired_state) = (1, state, TaskState::Running);
        current(v1::object::Object::Task((&task).into()))
    }
}

fn network(name: &str) -> Network {
    let mut network = Network { id: format!("net-{name}").into(), ..Network::default() };
    network.spec.annotations.name = name.into();
    network.spec.ingress = name == "ingress";
    network
}

fn current(object: v1::object::Object) -> v1::WatchMessage {
    let object = v1::Object { object: Some(object) };
    v1::WatchMessage { message: Some(v1::watch_message::Message::Current(object)) }
}

macro_rules! fake {
    ($($name:ident $request:ident $response:ident),+; $($stream:ident $item:ident),+; $($method:ident $ask:ty, $answers:ident),+) => {
        #[tonic::async_trait]
        impl Control for Fake {
            type WatchStream = Answers<v1::WatchMessage>;
            $(type $stream = Answers<v1::$item>;)+
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented(""))
            })+
            $(async fn $method(&self, _: Request<$ask>) -> Result<Response<Self::$answers>, Status> {
                Err(Status::unimplemented(""))
            })+
            async fn create_service(
                &self,
                request: Request<v1::CreateServiceRequest>,
            ) -> Result<Response<v1::CreateServiceResponse>, Status> {
                let spec = request.into_inner().spec.unwrap_or_default();
                self.sent.lock().unwrap().push(spec.clone());
                match spec.annotations.unwrap_or_default().name.as_str() {
                    "taken" => Err(Status::already_exists("service taken already exists")),
                    _ => Ok(Response::new(v1::CreateServiceResponse { service_id: "s1".into(), warnings: vec![] })),
                }
            }
            async fn get_service(
                &self,
                request: Request<v1::GetServiceRequest>,
            ) -> Result<Response<v1::GetServiceResponse>, Status> {
                match request.into_inner().reference.as_str() {
                    "web" => {
                        let service = Some((&self.service()).into());
                        let entry = v1::ServiceEntry { service, running_tasks: 2, desired_tasks: 2 };
                        Ok(Response::new(v1::GetServiceResponse { entry: Some(entry) }))
                    }
                    other => Err(Status::not_found(format!("service {other} not found"))),
                }
            }
            async fn list_networks(
                &self,
                _: Request<v1::ListNetworksRequest>,
            ) -> Result<Response<v1::ListNetworksResponse>, Status> {
                let networks = ["front", "ingress"].map(|name| (&network(name)).into()).to_vec();
                Ok(Response::new(v1::ListNetworksResponse { networks }))
            }
            async fn get_network(
                &self,
                request: Request<v1::GetNetworkRequest>,
            ) -> Result<Response<v1::GetNetworkResponse>, Status> {
                let reference = request.into_inner().reference;
                let known = ["front", "ingress"].into_iter().find(|n| reference.ends_with(n));
                let name = known.ok_or_else(|| Status::not_found("there is no such network"))?;
                let network = Some((&network(name)).into());
                Ok(Response::new(v1::GetNetworkResponse { network, ..v1::GetNetworkResponse::default() }))
            }
            async fn remove_network(
                &self,
                request: Request<v1::RemoveNetworkRequest>,
            ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
                let name = request.into_inner().reference;
                match name.as_str() {
                    "busy" => return Err(Status::failed_precondition("network busy is in use by service web")),
                    "front" | "net-front" | "ingress" => self.removed.lock().unwrap().push(name),
                    _ => return Err(Status::not_found("")),
                }
                Ok(Response::new(v1::RemoveNetworkResponse::default()))
            }
            async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                let service = current(v1::object::Object::Service((&self.service()).into()));
                let synced = v1::WatchMessage { message: Some(v1::watch_message::Message::Synced(true)) };
                let second = if self.failing { TaskState::Failed } else { TaskState::Running };
                let mut script: Vec<Result<_, Status>> = vec![Ok(service), Ok(self.task(1, TaskState::Running)), Ok(synced)];
                script.push(match self.watches.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(Status::unavailable("no leader")),
                    _ => Ok(self.task(2, second)),
                });
                let more = futures::stream::pending();
                Ok(Response::new(Box::pin(futures::StreamExt::chain(futures::stream::iter(script), more))))
            }
        }
    };
}

fake! {
    get_cluster GetClusterRequest GetClusterResponse,
    update_cluster UpdateClusterRequest UpdateClusterResponse,
    get_join_tokens GetJoinTokensRequest GetJoinTokensResponse,
    issue_admin_certificate IssueAdminCertificateRequest IssueAdminCertificateResponse,
    list_nodes ListNodesRequest ListNodesResponse,
    get_node GetNodeRequest GetNodeResponse,
    update_node UpdateNodeRequest UpdateNodeResponse,
    remove_node RemoveNodeRequest RemoveNodeResponse,
    list_services ListServicesRequest ListServicesResponse,
    update_service UpdateServiceRequest UpdateServiceResponse,
    remove_service RemoveServiceRequest RemoveServiceResponse,
    create_network CreateNetworkRequest CreateNetworkResponse,
    list_tasks ListTasksRequest ListTasksResponse,
    get_task GetTaskRequest GetTaskResponse,
    list_images ListImagesRequest ListImagesResponse;
    LogsStream LogsMessage, LoadImageStream ImageProgress, PullImageStream ImageProgress,
    RemoveImageStream ImageProgress, CheckNetworksStream NodeNetworkCheck;
    check_networks v1::CheckNetworksRequest, CheckNetworksStream,
    logs v1::LogsRequest, LogsStream,
    load_image Streaming<v1::LoadImageRequest>, LoadImageStream,
    pull_image v1::PullImageRequest, PullImageStream,
    remove_image v1::RemoveImageRequest, RemoveImageStream
}

/// A fake manager that answers as long as this lives.
struct Served {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    _tasks: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Served {
    fn new(fake: Fake) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(fake);
        let control = ControlServer::from_arc(Arc::clone(&fake));
        let listener = UnixListener::bind(dir.path().join("s.sock")).unwrap();
        let server = tonic::transport::Server::builder().add_service(control);
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Served { dir, fake, _tasks: tasks }
    }
    /// A command line for it.
    fn cli(&self, line: &str) -> Cli {
        let host = format!("unix://{}", self.dir.path().join("s.sock").display());
        Cli::parse_from(["swarmctl", "--host", &host].into_iter().chain(line.split_whitespace()))
    }
}

/// Runs command lines against a fake manager; their outcomes.
async fn run_all(fake: Fake, lines: &[&str]) -> (Vec<Outcome>, Arc<Fake>) {
    let served = Served::new(fake);
    let mut outcomes = Vec::new();
    for line in lines {
        outcomes.push(Box::pin(run(served.cli(line))).await);
    }
    (outcomes, served.fake)
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[tokio::test]
async fn create_converges_though_the_leader_changes() {
    let lines = ["service create --name web --replicas 2 image:1", "service create --name taken -d image:1"];
    let (outcomes, fake) = run_all(Fake::default(), &lines).await;
    assert!(outcomes[0].is_ok(), "{:?}", outcomes[0]);
    assert_eq!(fake.watches.load(Ordering::SeqCst), 2);
    assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), "service taken already exists");
}

#[tokio::test]
async fn create_says_why_it_does_not_converge() {
    let fake = Fake { failing: true, ..Fake::default() };
    let (outcomes, _) = run_all(fake, &["service create --name web -q image:1"]).await;
    let failure = outcomes[0].as_ref().unwrap_err();
    assert_eq!(failure.to_string(), "web.2 failed and will not be tried again: failed");
    assert_eq!(failure.exit_code(), 1);
}

#[tokio::test]
async fn names_of_networks_are_sent_as_ids() {
    let lines = [
        "service create --name taken -d --network front --network bridge -p 8080:80 image:1",
        "service create --name taken -d --network foo image:1",
        "service create --name taken -d --network ingress image:1",
        "service create --name taken -d --network host image:1",
        "service update --network-add foo -d web",
        "service update --rollback --network-add front -d web",
    ];
    let (outcomes, fake) = run_all(Fake::default(), &lines).await;
    let words: Vec<_> = outcomes.iter().map(|o| o.as_ref().unwrap_err().to_string()).collect();
    assert_eq!(words[1], "network foo not found");
    assert_eq!(words[2], "Service cannot be explicitly attached to the ingress network \"ingress\"");
    assert_eq!(words[4], "network foo not found");
    assert_eq!(words[5], "other flags may not be combined with --rollback");
    let sent = fake.sent.lock().unwrap();
    assert_eq!(sent.len(), 2, "what cannot be resolved is not sent");
    let task = sent[0].task.as_ref().unwrap();
    assert_eq!(task.networks[0].network_id, "net-front");
    assert_eq!(task.container.as_ref().unwrap().network(), v1::ContainerNetwork::Bridge);
    assert_eq!(sent[0].endpoint.as_ref().unwrap().ports[0].published, 8080);
    assert_eq!(
        sent[1].task.as_ref().unwrap().container.as_ref().unwrap().network(),
        v1::ContainerNetwork::Host
    );
}

#[tokio::test]
async fn networks_are_removed_one_by_one() {
    let lines = [
        "network rm front busy nope host",
        "network rm front",
        "network rm -f nope",
        "network prune -f",
        "network prune -f --filter label=x",
        "network inspect front nope",
        "network inspect host bridge none front",
        "network ls",
        "network check host",
    ];
    let (outcomes, fake) = run_all(Fake::default(), &lines).await;
    let codes: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map_or(0, |e| e.exit_code())).collect();
    assert_eq!(codes, [1, 0, 0, 0, 0, 1, 0, 0, 1]);
    assert_eq!(*fake.removed.lock().unwrap(), ["front", "front", "net-front"], "ingress is never pruned");
}

#[tokio::test]
async fn the_ingress_network_goes_when_the_user_is_sure() {
    for (line, yes, asked, removed) in [
        ("network rm ingress front", false, 1, vec!["front"]),
        ("network rm ingress front", true, 1, vec!["ingress", "front"]),
        ("network rm -f ingress", false, 0, vec!["ingress"]),
        ("network rm front", false, 0, vec!["front"]),
    ] {
        let questions = Mutex::new(Vec::new());
        let ask = |question: &str| {
            questions.lock().unwrap().push(question.to_owned());
            Ok(yes)
        };
        let served = Served::new(Fake::default());
        let cli = served.cli(line);
        let Command::Network(network::NetworkCommand::Rm(args)) = cli.command else { panic!("{line}") };
        let client = crate::client::Client::connect(&cli.globals).await.unwrap();
        assert!(network::rm::run_asking(args, &client, &ask).await.is_ok(), "{line}");
        assert_eq!(*served.fake.removed.lock().unwrap(), removed, "{line} {yes}");
        let questions = questions.into_inner().unwrap();
        assert_eq!(questions.len(), asked, "{line}");
        assert!(questions.iter().all(|q| q.starts_with("WARNING!") && q.contains("create --ingress")));
    }
}

#[tokio::test]
async fn missing_objects_and_missing_calls_have_words() {
    let lines = ["service inspect web nope", "service scale web=1 nope=2 -d", "node ls"];
    let (outcomes, _) = run_all(Fake::default(), &lines).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().exit_code(), 1);
    assert!(outcomes[1].is_err());
    assert!(outcomes[2].as_ref().unwrap_err().to_string().contains("not a swarm manager"));
}
