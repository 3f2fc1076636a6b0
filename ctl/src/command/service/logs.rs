//! `swarmctl service logs`: of a service, or of one task.

use std::collections::BTreeMap;

use swarm_proto::v1::logs_message::Message;
use swarm_proto::v1::{GetTaskRequest, ListTasksRequest, LogLine, LogOptions, LogsRequest};
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use crate::client::Client;
use crate::command::task::listing;
use crate::error::{Failure, Outcome};
use crate::flags::since;
use crate::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: swarmctl service logs -f --tail 10 web")]
pub(crate) struct Args {
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only lines after this: 10m (ago), 2026-01-02T15:04:05Z or seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last lines of each task, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    tail: i64,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Print the lines alone
    #[arg(long)]
    raw: bool,
    /// Leave the tasks' ids out
    #[arg(long)]
    no_task_ids: bool,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Print ids of nodes, not names
    #[arg(long)]
    no_resolve: bool,
    /// Service or task
    #[arg(value_name = "SERVICE|TASK")]
    reference: String,
}

fn tail(text: &str) -> Result<i64, String> {
    match text {
        "all" => Ok(-1),
        _ => text.parse().ok().filter(|n| *n >= 0).ok_or_else(|| "expected a number of lines, or all".into()),
    }
}

pub(crate) async fn run(args: Args, client: &Client) -> Outcome {
    let (services, tasks) = subject(client, &args.reference).await?;
    let since = args.since.as_deref().map(|text| since::parse(text, crate::system::now()));
    let since = since.transpose().map_err(Failure::Usage)?.unwrap_or(Timestamp::ZERO);
    let options =
        LogOptions { tail: args.tail, since_ms: since.0, follow: args.follow, stdout: true, stderr: true };
    let mut prefixes = Prefixes::default();
    if !args.raw {
        prefixes.learn(client, &services, &args).await?;
    }
    let request = LogsRequest { services: services.clone(), tasks, options: Some(options) };
    let mut stream = client.control().logs(request).await?.into_inner();
    let mut incomplete = false;
    loop {
        let message = tokio::select! {
            message = stream.message() => message?,
            _ = tokio::signal::ctrl_c() => return Err(Failure::Exit(130)),
        };
        match message.map(|m| m.message) {
            None => break,
            Some(Some(Message::Line(line))) => {
                if !args.raw && !prefixes.names.contains_key(&line.task_id) {
                    prefixes.learn(client, &services, &args).await?;
                }
                print(&line, &prefixes, &args);
            }
            Some(Some(Message::Warning(text))) => {
                incomplete = true;
                output::note(&format!("warning: {text}"));
            }
            Some(None) => {}
        }
    }
    if incomplete {
        output::note("warning: incomplete log stream: some logs could not be read, for the reasons above");
    }
    Ok(())
}

/// The service, or else the task, that is meant.
async fn subject(client: &Client, reference: &str) -> Outcome<(Vec<String>, Vec<String>)> {
    match super::get(client, reference).await {
        Ok(service) => Ok((vec![service.id.to_string()], Vec::new())),
        Err(Failure::NotFound(_)) => {
            let request = GetTaskRequest { reference: reference.to_owned() };
            match client.control().get_task(request).await.map_err(Failure::from) {
                Ok(answer) => Ok((Vec::new(), vec![answer.into_inner().task.unwrap_or_default().id])),
                Err(Failure::NotFound(_)) => {
                    Err(Failure::NotFound(format!("no such task or service: {reference}")))
                }
                Err(failure) => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// What stands before the lines of each task.
#[derive(Default)]
struct Prefixes {
    names: BTreeMap<String, String>,
    width: usize,
}

impl Prefixes {
    async fn learn(&mut self, client: &Client, services: &[String], args: &Args) -> Outcome {
        let request = ListTasksRequest { services: services.to_vec(), nodes: Vec::new() };
        let answer = client.control().list_tasks(request).await?.into_inner();
        for task in answer.tasks {
            let task = Task::try_from(task)?;
            let name = prefix(&task, &answer.node_names, args);
            // Tasks that ran nowhere print nothing.
            if !task.node.is_empty() {
                self.width = self.width.max(name.chars().count());
            }
            self.names.insert(task.id.to_string(), name);
        }
        Ok(())
    }
}

fn prefix(task: &Task, nodes: &BTreeMap<String, String>, args: &Args) -> String {
    let name = listing::name(task, nodes, args.no_resolve);
    let id = match (args.no_task_ids, args.no_trunc) {
        (true, _) => String::new(),
        (false, true) => format!(".{}", task.id),
        (false, false) => format!(".{}", task.id.short()),
    };
    let node = match nodes.get(task.node.as_str()) {
        Some(name) if !args.no_resolve => name,
        _ => task.node.as_str(),
    };
    format!("{name}{id}@{node}")
}

fn print(line: &LogLine, prefixes: &Prefixes, args: &Args) {
    let bytes = render(line, prefixes, args);
    match line.stderr {
        false => output::bytes(&bytes),
        true => output::error_bytes(&bytes),
    }
}

fn render(line: &LogLine, prefixes: &Prefixes, args: &Args) -> Vec<u8> {
    let mut out = Vec::new();
    if args.timestamps {
        out.extend(format!("{} ", stamp(line.at_ns)).into_bytes());
    }
    if !args.raw {
        let name = prefixes.names.get(&line.task_id).unwrap_or(&line.task_id);
        let width = prefixes.width;
        out.extend(format!("{name:<width$}    | ").into_bytes());
    }
    out.extend_from_slice(&line.data);
    out.push(b'\n');
    out
}

/// RFC 3339 with nanoseconds.
fn stamp(at_ns: u64) -> String {
    let text = Timestamp(at_ns / 1_000_000).to_string();
    format!("{}.{:09}Z", text.split('.').next().unwrap_or_default(), at_ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn lines_have_prefixes_that_line_up() {
        let args = |more: &[&str]| Line::parse_from(["logs", "web"].iter().chain(more)).args;
        let task = |slot| {
            let mut task =
                Task { id: "abcdefghijklmnopqrstuvwxy".into(), slot, node: "n1".into(), ..Task::default() };
            std::sync::Arc::make_mut(&mut task.service_annotations).name = "web".into();
            task
        };
        let nodes = BTreeMap::from([("n1".to_owned(), "m1".to_owned())]);
        let plain = args(&[]);
        assert_eq!(prefix(&task(1), &nodes, &plain), "web.1.abcdefghijkl@m1");
        assert_eq!(prefix(&task(1), &nodes, &args(&["--no-task-ids", "--no-resolve"])), "web.1@n1");
        let mut prefixes = Prefixes { width: 8, ..Prefixes::default() };
        prefixes.names.insert("t".into(), "web.1@m".into());
        let line =
            LogLine { task_id: "t".into(), data: "hello".into(), at_ns: 1_500_000_001, ..LogLine::default() };
        assert_eq!(render(&line, &prefixes, &plain), b"web.1@m     | hello\n");
        let raw = args(&["--raw", "-t"]);
        assert_eq!(render(&line, &prefixes, &raw), b"1970-01-01T00:00:01.500000001Z hello\n");
        assert!(tail("-3").is_err() && tail("x").is_err());
    }
}
