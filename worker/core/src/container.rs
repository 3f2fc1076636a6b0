//! Container: what is to be made for a task, in terms of no particular runtime.
//!
//! Reads:   one task; the node that it runs on.
//! Writes:  nothing; gives a [`ContainerPlan`].
//! Never:   looks at the image (that is `image_config`), touches the node.
//! Start:   [`plan`].

use std::net::IpAddr;
use std::time::Duration;

use swarm_types::container::{ContainerNetwork, Mount};
use swarm_types::defaults;
use swarm_types::meta::Labels;
use swarm_types::resources::Limits;
use swarm_types::task::Task;

use crate::template::{ExpandError, NodeFacts, expand};

/// Labels of containers that begin so are ours; users cannot set them.
pub const LABEL_PREFIX: &str = "com.docker.swarm.";
/// The label that holds the id of a container's task.
pub const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// A container to be made. Empty fields mean "as the image says".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerPlan {
    /// `service.slot.taskid`.
    pub name: String,
    /// Host name, expanded; by default the first 12 characters of the task's id.
    pub hostname: String,
    /// Replaces the image's entrypoint.
    pub entrypoint: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// `NAME=value` over the image's; `NAME` alone removes one. Expanded.
    pub env: Vec<String>,
    /// Working directory.
    pub dir: String,
    /// `user[:group]`.
    pub user: String,
    /// The user's labels and ours.
    pub labels: Labels,
    /// Mounts, expanded.
    pub mounts: Vec<Mount>,
    /// Stop signal by name.
    pub stop_signal: String,
    /// Time between the stop signal and SIGKILL.
    pub stop_grace_period: Duration,
    /// Root file system mounted read-only.
    pub read_only: bool,
    /// Which network it sees.
    pub network: ContainerNetwork,
    /// Its own addresses, which its host name stands for: those on its networks, or else the one that it
    /// goes out by. None: it is on no network.
    pub addrs: Vec<IpAddr>,
    /// What it may use at most.
    pub limits: Limits,
}

/// What is to be made for `task` on `node`.
pub fn plan(task: &Task, node: &NodeFacts) -> Result<ContainerPlan, ExpandError> {
    let spec = &task.spec.container;
    let text = |t: &str| expand(t, task, node).map(|t| t.into_owned());
    Ok(ContainerPlan {
        name: task.full_name(),
        hostname: match spec.hostname.as_str() {
            "" => task.id.short().to_owned(),
            hostname => text(hostname)?,
        },
        entrypoint: spec.entrypoint.clone(),
        args: spec.args.clone(),
        env: spec.env.iter().map(|e| text(e)).collect::<Result<_, _>>()?,
        dir: spec.dir.clone(),
        user: spec.user.clone(),
        labels: labels(task, node),
        mounts: spec
            .mounts
            .iter()
            .map(|m| Ok(Mount { source: text(&m.source)?, target: text(&m.target)?, ..m.clone() }))
            .collect::<Result<_, _>>()?,
        stop_signal: spec.stop_signal.clone(),
        stop_grace_period: spec.stop_grace_period.unwrap_or(defaults::STOP_GRACE_PERIOD),
        read_only: spec.read_only,
        network: spec.network,
        addrs: addrs(task),
        limits: task.spec.resources.limits,
    })
}

/// The attachment after those of the networks that were asked for is the way out.
fn addrs(task: &Task) -> Vec<IpAddr> {
    let asked = task.spec.networks.len().max(1);
    task.attachments.iter().take(asked).flat_map(|a| a.addrs.iter().copied()).collect()
}

/// The user's labels, and ours over them: tools find containers by ours, so they must be true.
fn labels(task: &Task, node: &NodeFacts) -> Labels {
    let mut labels = task.spec.container.labels.clone();
    labels.retain(|key, _| !key.starts_with(LABEL_PREFIX));
    for (key, value) in [
        ("task", String::new()),
        ("task.id", task.id.to_string()),
        ("task.name", task.full_name()),
        ("node.id", node.id.to_string()),
        ("service.id", task.service.to_string()),
        ("service.name", task.service_annotations.name.clone()),
    ] {
        labels.insert(format!("{LABEL_PREFIX}{key}"), value);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarm_types::container::ContainerSpec;
    use swarm_types::meta::Annotations;
    use swarm_types::task::TaskSpec;

    fn task(change: impl FnOnce(&mut ContainerSpec)) -> Task {
        let mut spec = TaskSpec::default();
        change(&mut spec.container);
        Task {
            id: "abcdefghijklmnopqrstuvwxy".into(),
            service: "svc".into(),
            slot: 2,
            service_annotations: Arc::new(Annotations { name: "web".into(), ..Annotations::default() }),
            spec: Arc::new(spec),
            ..Task::default()
        }
    }
    fn node() -> NodeFacts {
        NodeFacts { id: "node".into(), hostname: "host".into(), ..NodeFacts::default() }
    }

    #[test]
    fn our_labels_win_over_the_users() {
        let plan = plan(
            &task(|c| {
                c.labels = [
                    ("com.docker.swarm.service.name".into(), "forged".into()),
                    ("com.docker.swarm.made.up".into(), "forged".into()),
                    ("mine".into(), "kept".into()),
                ]
                .into();
            }),
            &node(),
        )
        .unwrap();
        let want: Labels = [
            ("com.docker.swarm.node.id", "node"),
            ("com.docker.swarm.service.id", "svc"),
            ("com.docker.swarm.service.name", "web"),
            ("com.docker.swarm.task", ""),
            ("com.docker.swarm.task.id", "abcdefghijklmnopqrstuvwxy"),
            ("com.docker.swarm.task.name", "web.2.abcdefghijklmnopqrstuvwxy"),
            ("mine", "kept"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        assert_eq!(plan.labels, want);
    }

    #[test]
    fn the_way_out_is_an_own_address_only_if_there_is_no_other() {
        let on = |n: u8| swarm_types::network::Attachment {
            addrs: vec![[10, 0, n, 5].into()],
            ..Default::default()
        };
        let mut made = task(|_| {});
        assert_eq!(plan(&made, &node()).unwrap().addrs, Vec::<IpAddr>::new());
        made.attachments = vec![on(255)];
        assert_eq!(plan(&made, &node()).unwrap().addrs, [IpAddr::from([10, 0, 255, 5])]);
        Arc::make_mut(&mut made.spec).networks = vec![Default::default(), Default::default()];
        made.attachments = vec![on(1), on(2), on(255)];
        let addrs = plan(&made, &node()).unwrap().addrs;
        assert_eq!(addrs, [IpAddr::from([10, 0, 1, 5]), IpAddr::from([10, 0, 2, 5])]);
    }

    #[test]
    fn names_and_placeholders() {
        let made = plan(
            &task(|c| {
                c.env = vec!["ME={{.Task.Slot}}".into(), "PLAIN=1".into()];
                c.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
                c.mounts = vec![Mount {
                    source: "/data/{{.Node.Hostname}}".into(),
                    target: "/{{.Task.Slot}}".into(),
                    ..Mount::default()
                }];
            }),
            &node(),
        )
        .unwrap();
        assert_eq!(made.name, "web.2.abcdefghijklmnopqrstuvwxy");
        assert_eq!(made.hostname, "web-2");
        assert_eq!(made.env, ["ME=2", "PLAIN=1"]);
        assert_eq!((made.mounts[0].source.as_str(), made.mounts[0].target.as_str()), ("/data/host", "/2"));
        assert_eq!(made.stop_grace_period, Duration::from_secs(10));
        assert_eq!(plan(&task(|_| {}), &node()).unwrap().hostname, "abcdefghijkl");
        assert!(plan(&task(|c| c.env = vec!["A={{.X}}".into()]), &node()).is_err());
    }
}
