//! Watching: the state now, then every change, with no gap between.

use std::pin::Pin;

use futures::Stream;
use swarm_manager_core::store::{Event, Object, View};
use swarm_proto::v1;
use swarm_types::id::ServiceId;
use swarm_types::task::Task;
use tokio::sync::broadcast;
use tonic::Status;
use v1::watch_event::Kind;
use v1::watch_message::Message;

/// What happened, for those who watch.
#[derive(Debug, Clone)]
pub enum News {
    /// A committed change.
    Committed(Event),
    /// A state of a task that passes and is not stored.
    Passing(Box<Task>),
}

/// The answer of a watch.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchMessage, Status>> + Send>>;

/// Streams `view`, then `news` that came after it. `service` narrows it to one and its tasks.
pub fn watch(
    view: View,
    mut news: broadcast::Receiver<News>,
    service: Option<ServiceId>,
    passing: impl Fn(&Task) -> Option<Task> + Send + 'static,
) -> WatchStream {
    Box::pin(async_stream::stream! {
        for object in current(&view, service.as_ref(), &passing) {
            yield Ok(message(Message::Current(object)));
        }
        drop(view);
        yield Ok(message(Message::Synced(true)));
        loop {
            match news.recv().await {
                Ok(item) => {
                    if let Some(event) = wire(&item, service.as_ref()) {
                        yield Ok(message(Message::Event(event)));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    yield Err(Status::data_loss("the watch fell behind: start it again"));
                    return;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    })
}

fn message(message: Message) -> v1::WatchMessage {
    v1::WatchMessage { message: Some(message) }
}

fn current(
    view: &View,
    service: Option<&ServiceId>,
    passing: &dyn Fn(&Task) -> Option<Task>,
) -> Vec<v1::Object> {
    let task = |t: &std::sync::Arc<Task>| {
        object_out(&Object::Task(passing(t).map_or_else(|| t.clone(), Into::into)))
    };
    if let Some(id) = service {
        let own = view.service(id).map(|s| object_out(&Object::Service(s.clone())));
        return own.into_iter().chain(view.tasks_of_service(id).map(task)).collect();
    }
    let nodes = view.nodes().map(|n| object_out(&Object::Node(n.clone())));
    let services = view.services().map(|s| object_out(&Object::Service(s.clone())));
    let cluster = view.cluster().map(|c| object_out(&Object::Cluster(c.clone())));
    cluster.into_iter().chain(nodes).chain(services).chain(view.tasks().map(task)).collect()
}

fn wire(news: &News, service: Option<&ServiceId>) -> Option<v1::WatchEvent> {
    let (kind, object) = match news {
        News::Committed(Event::Created(object)) => (Kind::Created, object),
        News::Committed(Event::Updated { new, .. }) => (Kind::Updated, new),
        News::Committed(Event::Deleted(object)) => (Kind::Deleted, object),
        News::Passing(task) => {
            let wanted = service.is_none_or(|id| task.service == *id);
            let object = v1::Object { object: Some(v1::object::Object::Task(task.as_ref().into())) };
            return wanted.then(|| v1::WatchEvent { kind: Kind::Passing.into(), object: Some(object) });
        }
    };
    let wanted = match (service, object) {
        (None, _) => true,
        (Some(id), Object::Service(s)) => s.id == *id,
        (Some(id), Object::Task(t)) => t.service == *id,
        (Some(_), Object::Cluster(_) | Object::Node(_) | Object::Network(_)) => false,
    };
    wanted.then(|| v1::WatchEvent { kind: kind.into(), object: Some(object_out(object)) })
}

/// An object for users: the cluster without its secrets.
pub fn object_out(object: &Object) -> v1::Object {
    use v1::object::Object as Wire;
    let object = match object {
        Object::Cluster(c) => Wire::Cluster(v1::Cluster::public(c)),
        Object::Node(n) => Wire::Node(n.as_ref().into()),
        Object::Network(n) => Wire::Network(n.as_ref().into()),
        Object::Service(s) => Wire::Service(s.as_ref().into()),
        Object::Task(t) => Wire::Task(t.as_ref().into()),
    };
    v1::Object { object: Some(object) }
}
