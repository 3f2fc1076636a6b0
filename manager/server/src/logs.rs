//! Logs of services and tasks: every node that has one of the tasks is asked, and what they answer
//! becomes one stream. Without `follow` the lines are merged by time; with it they come as they come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use swarm_manager_core::store::{Event, Object, View};
use swarm_proto::v1;
use swarm_types::id::{NodeId, ServiceId, TaskId};
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use tokio::sync::broadcast;
use tonic::Status;

use crate::commands::{Answer, CommandHub, Running};
use crate::watch::News;

/// The answer of a log request.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<v1::LogsMessage, Status>> + Send>>;

/// A node that sends nothing for so long, not even "there is no more", is given up (without follow).
const SILENCE: Duration = Duration::from_secs(10);

/// What is asked for.
pub struct Selection {
    /// All tasks of these services; with follow, also those that are made later.
    pub services: BTreeSet<ServiceId>,
    /// These tasks.
    pub tasks: BTreeSet<TaskId>,
    /// Which lines.
    pub options: v1::LogOptions,
}

/// Streams the logs of `selection`.
pub fn stream(
    hub: CommandHub,
    view: &View,
    news: broadcast::Receiver<News>,
    selection: Selection,
) -> LogStream {
    let (sources, warnings) = open_all(&hub, view, &selection);
    let warnings = stream::iter(warnings.into_iter().map(|w| Ok(warning(w))));
    if selection.options.follow {
        let first = sources.into_iter().map(|s| s.lines_as_they_come()).collect();
        Box::pin(warnings.chain(follow(hub, view.clone(), news, selection, first)))
    } else {
        Box::pin(warnings.chain(merge(sources)))
    }
}

/// Asks every node that has one of the tasks.
fn open_all(hub: &CommandHub, view: &View, selection: &Selection) -> (Vec<Source>, Vec<String>) {
    let of_services = selection.services.iter().flat_map(|s| view.tasks_of_service(s));
    let single = selection.tasks.iter().filter_map(|t| view.task(t));
    let mut by_node: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
    for task in of_services.chain(single).filter(|t| was_started(t)) {
        by_node.entry(task.node).or_default().insert(task.id);
    }
    let mut sources = Vec::new();
    let mut warnings = Vec::new();
    for (node, tasks) in by_node {
        let name = view.node(&node).map_or_else(|| node.to_string(), |n| n.display_name().to_owned());
        match Source::open(hub, node, &name, tasks, &selection.options) {
            Ok(source) => sources.push(source),
            Err(e) => warnings.push(format!("logs are incomplete: node {name} does not answer ({e})")),
        }
    }
    (sources, warnings)
}

/// It has a node and may have written something.
fn was_started(task: &Task) -> bool {
    !task.node.is_empty() && task.status.state >= TaskState::Assigned
}

fn warning(text: String) -> v1::LogsMessage {
    v1::LogsMessage { message: Some(v1::logs_message::Message::Warning(text)) }
}

fn line(line: v1::LogLine) -> v1::LogsMessage {
    v1::LogsMessage { message: Some(v1::logs_message::Message::Line(line)) }
}

/// The lines of one node.
struct Source {
    name: String,
    running: Running,
    buffered: VecDeque<v1::LogLine>,
    warnings: VecDeque<String>,
    ended: bool,
}

impl Source {
    fn open(
        hub: &CommandHub,
        node: NodeId,
        name: &str,
        tasks: BTreeSet<TaskId>,
        options: &v1::LogOptions,
    ) -> Result<Source, crate::commands::NotConnected> {
        let task_ids = tasks.iter().map(ToString::to_string).collect();
        let command = v1::StreamLogs { task_ids, options: Some(*options) };
        let running = hub.run(node, v1::command::Command::StreamLogs(command))?;
        let (buffered, warnings) = (VecDeque::new(), VecDeque::new());
        Ok(Source { name: name.to_owned(), running, buffered, warnings, ended: false })
    }

    /// Takes in the next answer. False when there is no more.
    async fn fill(&mut self, patience: Option<Duration>) -> bool {
        if self.ended {
            return false;
        }
        let next = self.running.next();
        let answer = match patience {
            Some(limit) => tokio::time::timeout(limit, next).await,
            None => Ok(next.await),
        };
        match answer {
            Ok(Some(Answer::Logs(batch))) => {
                self.buffered.extend(batch.lines);
                self.warnings.extend(batch.warnings);
                self.ended = batch.end;
            }
            Ok(Some(Answer::Report(_))) => {}
            Ok(None) => self.give_up("went away"),
            Err(_) => self.give_up("does not answer"),
        }
        true
    }

    fn give_up(&mut self, why: &str) {
        self.ended = true;
        self.warnings.push_back(format!("logs are incomplete: node {} {why}", self.name));
    }

    fn lines_as_they_come(self) -> LogStream {
        Box::pin(async_stream::stream! {
            let mut source = self;
            loop {
                while let Some(text) = source.warnings.pop_front() {
                    yield Ok(warning(text));
                }
                while let Some(next) = source.buffered.pop_front() {
                    yield Ok(line(next));
                }
                if !source.fill(None).await {
                    return;
                }
            }
        })
    }
}

/// One line after the other, oldest first. Holds one batch of each node.
fn merge(mut sources: Vec<Source>) -> LogStream {
    Box::pin(async_stream::stream! {
        loop {
            for source in &mut sources {
                while source.buffered.is_empty() && source.fill(Some(SILENCE)).await {}
                while let Some(text) = source.warnings.pop_front() {
                    yield Ok(warning(text));
                }
            }
            let oldest = sources.iter_mut().filter(|s| !s.buffered.is_empty());
            let Some(source) = oldest.min_by_key(|s| s.buffered.front().map(|l| l.at_ns)) else { return };
            if let Some(next) = source.buffered.pop_front() {
                yield Ok(line(next));
            }
        }
    })
}

/// Lines as they come, and those of tasks that start later.
fn follow(
    hub: CommandHub,
    view: View,
    mut news: broadcast::Receiver<News>,
    selection: Selection,
    first: Vec<LogStream>,
) -> LogStream {
    let known = selection.services.iter().flat_map(|s| view.tasks_of_service(s)).filter(|t| was_started(t));
    let mut asked: BTreeSet<TaskId> = known.map(|t| t.id).collect();
    Box::pin(async_stream::stream! {
        let mut lines = stream::select_all(first);
        loop {
            tokio::select! {
                Some(next) = lines.next() => yield next,
                item = news.recv() => match item {
                    Ok(News::Committed(event)) => {
                        let Some(task) = started(&event, &selection, &mut asked) else { continue };
                        let mut options = selection.options;
                        options.tail = -1;
                        let opened = Source::open(&hub, task.node, task.node.as_str(), [task.id].into(), &options);
                        if let Ok(source) = opened {
                            lines.push(source.lines_as_they_come());
                        }
                    }
                    Ok(News::Passing(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        yield Ok(warning("logs may miss tasks that started just now".into()));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    })
}

/// The task that this event brings into the selection, if it does.
fn started(
    event: &Event,
    selection: &Selection,
    asked: &mut BTreeSet<TaskId>,
) -> Option<std::sync::Arc<Task>> {
    let (Event::Created(Object::Task(task)) | Event::Updated { new: Object::Task(task), .. }) = event else {
        return None;
    };
    let new = selection.services.contains(&task.service) && was_started(task) && asked.insert(task.id);
    new.then(|| task.clone())
}
