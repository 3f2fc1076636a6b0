//! Lists of tasks, as `service ps`, `node ps` and `task ls` print them.

use std::collections::BTreeMap;

use serde_json::json;
use swarm_proto::v1::ListTasksResponse;
use swarm_types::task::Task;
use swarm_types::time::Timestamp;

use crate::error::Outcome;
use crate::flags::filter::Filters;
use crate::output::listing::{Column, Format, Listing, Row};
use crate::output::{self, human};

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TaskFlags {
    /// Only tasks that fit: id, name, node, label or desired-state
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    #[command(flatten)]
    pub(crate) format: Format,
    /// Print errors and ids whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print ids of nodes, not names
    #[arg(long)]
    pub(crate) no_resolve: bool,
}

const KEYS: &[&str] = &["desired-state", "id", "label", "name", "node"];
const COLUMNS: &[Column] = &[
    Column { field: "ID", header: "ID" },
    Column { field: "Name", header: "NAME" },
    Column { field: "Image", header: "IMAGE" },
    Column { field: "Node", header: "NODE" },
    Column { field: "DesiredState", header: "DESIRED STATE" },
    Column { field: "CurrentState", header: "CURRENT STATE" },
    Column { field: "Error", header: "ERROR" },
    Column { field: "Ports", header: "PORTS" },
];

/// Prints what `ListTasks` answered.
pub(crate) fn print(answer: ListTasksResponse, flags: &TaskFlags) -> Outcome {
    let tasks = answer.tasks.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
    let listing = listing(tasks, &answer.node_names, flags, crate::system::now())?;
    output::text(&listing.render(&flags.format)?);
    Ok(())
}

fn listing(
    mut tasks: Vec<Task>,
    names: &BTreeMap<String, String>,
    flags: &TaskFlags,
    now: Timestamp,
) -> Outcome<Listing> {
    let filters = Filters::parse(&flags.filter, KEYS)?;
    tasks.retain(|task| fits(task, names, &filters));
    let slot = |t: &Task| {
        (t.service_annotations.name.clone(), t.service, t.slot, if t.slot == 0 { t.node } else { "".into() })
    };
    let newest = |t: &Task| std::cmp::Reverse((t.meta.created_at, t.meta.version, t.id));
    tasks.sort_by_cached_key(|t| (slot(t), newest(t)));
    let mut rows = Vec::with_capacity(tasks.len());
    let mut before = None;
    for task in &tasks {
        let again = before.replace(slot(task)) == Some(slot(task));
        rows.push(row(task, again, names, flags, now));
    }
    Ok(Listing { columns: COLUMNS, rows })
}

fn fits(task: &Task, names: &BTreeMap<String, String>, filters: &Filters) -> bool {
    let node = names.get(task.node.as_str());
    filters.id("id", task.id.as_str())
        && filters.any("name", |v| task.name().starts_with(v))
        && filters.any("node", |v| node.is_some_and(|n| n == v) || task.node.as_str().starts_with(v))
        && filters.labels("label", &task.spec.container.labels)
        && filters.any("desired-state", |v| match v {
            "accepted" | "running" => task.is_wanted(),
            word => task.desired_state.as_str() == word,
        })
}

fn row(task: &Task, again: bool, names: &BTreeMap<String, String>, flags: &TaskFlags, now: Timestamp) -> Row {
    let whole = flags.no_trunc;
    let id = if whole { task.id.as_str() } else { task.id.short() };
    let name = name(task, names, flags.no_resolve);
    let node = match names.get(task.node.as_str()) {
        Some(name) if !flags.no_resolve => name.as_str(),
        _ => task.node.as_str(),
    };
    let image = &task.spec.container.image;
    let image = if whole { image } else { image.split('@').next().unwrap_or(image) };
    let ago = human::duration(now.since(task.status.at)).to_lowercase();
    let error = match task.status.err.as_str() {
        "" => String::new(),
        err if whole => format!("\"{err}\""),
        err => format!("\"{}\"", human::cut(err, 30)),
    };
    let ports = task.status.container.as_ref().map(|c| output::port::host(&c.ports)).unwrap_or_default();
    Row {
        shown: again.then(|| (1, format!(" \\_ {name}"))),
        values: vec![
            json!(id),
            json!(name),
            json!(image),
            json!(node),
            json!(human::capital(task.desired_state.as_str())),
            json!(format!("{} {ago} ago", human::capital(task.status.state.as_str()))),
            json!(error),
            json!(ports),
        ],
    }
}

/// `web.1`; in a global service `web.NODE`.
pub(crate) fn name(task: &Task, names: &BTreeMap<String, String>, no_resolve: bool) -> String {
    match names.get(task.node.as_str()) {
        Some(node) if task.slot == 0 && !no_resolve => format!("{}.{node}", task.service_annotations.name),
        _ => task.name(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use swarm_types::meta::Annotations;
    use swarm_types::task_state::TaskState;

    use super::*;

    fn task(id: &str, slot: u64, created: u64, state: TaskState, err: &str) -> Task {
        let mut task = Task { id: id.into(), slot, node: "n1".into(), ..Task::default() };
        task.service_annotations = Arc::new(Annotations { name: "web".into(), ..Annotations::default() });
        Arc::make_mut(&mut task.spec).container.image = "nginx:1@sha256:abc".into();
        task.meta.created_at = Timestamp(created);
        task.status.state = state;
        task.status.at = Timestamp(created);
        task.status.err = err.into();
        task.desired_state = if state.is_terminal() { TaskState::Shutdown } else { TaskState::Running };
        task
    }
    fn show(flags: &TaskFlags) -> String {
        let tasks = vec![
            task("task2aaaaaaaaaaaaaaaaaaaa", 2, 60_000, TaskState::Running, ""),
            task(
                "task1oldaaaaaaaaaaaaaaaaa",
                1,
                0,
                TaskState::Failed,
                "task: non-zero exit (137): out of memory",
            ),
            task("task1newaaaaaaaaaaaaaaaaa", 1, 90_000, TaskState::Running, ""),
        ];
        let names = BTreeMap::from([("n1".to_owned(), "m1".to_owned())]);
        listing(tasks, &names, flags, Timestamp(240_000)).unwrap().render(&flags.format).unwrap()
    }

    #[test]
    fn history_hangs_below_its_slot() {
        expect![[r#"
            ID             NAME        IMAGE     NODE      DESIRED STATE   CURRENT STATE           ERROR                              PORTS
            task1newaaaa   web.1       nginx:1   m1        Running         Running 2 minutes ago
            task1oldaaaa    \_ web.1   nginx:1   m1        Shutdown        Failed 4 minutes ago    "task: non-zero exit (137): ou…"
            task2aaaaaaa   web.2       nginx:1   m1        Running         Running 3 minutes ago
        "#]].assert_eq(&show(&TaskFlags::default()));
        let format = Format { format: Some("json".into()), quiet: false };
        expect![[r#"
            {"ID":"task1newaaaaaaaaaaaaaaaaa","Name":"web.1","Image":"nginx:1@sha256:abc","Node":"m1","DesiredState":"Running","CurrentState":"Running 2 minutes ago","Error":"","Ports":""}
            {"ID":"task1oldaaaaaaaaaaaaaaaaa","Name":"web.1","Image":"nginx:1@sha256:abc","Node":"m1","DesiredState":"Shutdown","CurrentState":"Failed 4 minutes ago","Error":"\"task: non-zero exit (137): out of memory\"","Ports":""}
            {"ID":"task2aaaaaaaaaaaaaaaaaaaa","Name":"web.2","Image":"nginx:1@sha256:abc","Node":"m1","DesiredState":"Running","CurrentState":"Running 3 minutes ago","Error":"","Ports":""}
        "#]].assert_eq(&show(&TaskFlags { format, no_trunc: true, ..TaskFlags::default() }));
    }

    #[test]
    fn ports_are_those_of_the_node() {
        let mut one = task("t1", 1, 0, TaskState::Running, "");
        let ports = crate::flags::publish::parse("published=8081,target=80,mode=host").unwrap().0;
        one.status.container = Some(swarm_types::task::ContainerStatus { ports, ..Default::default() });
        let format = Format { format: Some("{{.Ports}}".into()), quiet: false };
        let flags = TaskFlags::default();
        let list = listing(vec![one], &BTreeMap::new(), &flags, Timestamp(0)).unwrap();
        assert_eq!(list.render(&format).unwrap(), "*:8081->80/tcp\n");
    }

    #[test]
    fn filters() {
        let format = Format { format: Some("{{.Name}}".into()), quiet: false };
        let flags =
            |f: &str| TaskFlags { filter: vec![f.into()], format: format.clone(), ..TaskFlags::default() };
        assert_eq!(show(&flags("desired-state=running")), "web.1\nweb.2\n");
        assert_eq!(show(&flags("node=m1")).lines().count(), 3);
        assert_eq!(show(&flags("name=web.2")), "web.2\n");
        assert_eq!(show(&flags("id=task1")), "web.1\nweb.1\n");
    }
}
