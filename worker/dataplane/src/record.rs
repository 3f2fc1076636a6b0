//! What this node must know of a task that it has attached, on disk: a daemon that starts goes on with
//! it, and finds the ports that it gave.
//!
//! One file for each task, called after it: a line for each attachment (`network ID ADDRESS…`) and for
//! each host-mode port (`port PROTOCOL TARGET PUBLISHED [ADDRESS]`). It is written before anything of
//! the task is made and removed after all of it is gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use swarm_types::endpoint::{Port, Protocol, PublishMode};
use swarm_types::id::TaskId;
use swarm_types::network::Attachment;
use swarm_worker_core::network::planner::LocalTask;
use tracing::warn;

/// The folder of these files.
#[derive(Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// Makes the folder; the tasks in it. A file that cannot be read is as good as none: its task loses
    /// its links.
    pub(crate) fn open(dir: PathBuf) -> io::Result<(Self, BTreeMap<TaskId, Arc<LocalTask>>)> {
        fs::create_dir_all(&dir)?;
        let mut tasks = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<TaskId>().ok());
            let task = id.and_then(|id| parse(id, &fs::read_to_string(&path).ok()?));
            match task {
                Some(task) => drop(tasks.insert(task.id, Arc::new(task))),
                None => {
                    warn!(file = %path.display(), "not the record of a task's networks, removed");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok((Self(dir), tasks))
    }

    pub(crate) fn keep(&self, task: &LocalTask) -> io::Result<()> {
        let path = self.0.join(task.id.as_str());
        // No id looks like this: one that was being written is swept away as unreadable.
        let new = self.0.join(format!(".{}", task.id));
        fs::write(&new, text(task))?;
        fs::rename(&new, &path)
    }

    pub(crate) fn forget(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_file(self.0.join(task.as_str())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn text(task: &LocalTask) -> String {
    let mut text = String::new();
    for attachment in &task.attachments {
        write!(text, "network {}", attachment.network).expect("a String takes every write");
        attachment.addrs.iter().for_each(|addr| text.push_str(&format!(" {addr}")));
        text.push('\n');
    }
    for port in &task.ports {
        let (protocol, addr) = (port.protocol.as_str(), port.host_ip.map(|addr| addr.to_string()));
        let addr = addr.unwrap_or_default();
        writeln!(text, "port {protocol} {} {} {addr}", port.target, port.published)
            .expect("a String takes every write");
    }
    text.push_str("end\n");
    text
}

fn parse(id: TaskId, text: &str) -> Option<LocalTask> {
    let mut task = LocalTask { id, ..LocalTask::default() };
    let mut lines = text.lines();
    loop {
        let mut words = lines.next()?.split_whitespace();
        match words.next()? {
            "network" => {
                let network = words.next()?.parse().ok()?;
                let addrs = words.map(|w| w.parse().ok()).collect::<Option<_>>()?;
                task.attachments.push(Attachment { network, addrs, ..Attachment::default() });
            }
            "port" => {
                let protocol = match words.next()? {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    "sctp" => Protocol::Sctp,
                    _ => return None,
                };
                let (target, published) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let host_ip = words.next().map(|w| w.parse().ok()).map_or(Some(None), |a| a.map(Some))?;
                task.ports.push(Port { protocol, target, published, mode: PublishMode::Host, host_ip });
            }
            "end" => return Some(task),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> LocalTask {
        let attachment = |network: &str, addrs: &[&str]| Attachment {
            network: network.into(),
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
            ..Attachment::default()
        };
        let port = |published, host_ip| Port {
            protocol: Protocol::Udp,
            target: 53,
            published,
            mode: PublishMode::Host,
            host_ip,
        };
        LocalTask {
            id: id.into(),
            attachments: vec![attachment("n1", &["10.0.1.2", "fd00::2"]), attachment("n2", &[])],
            ports: vec![port(5353, None), port(5354, Some("127.0.0.1".parse().unwrap()))],
        }
    }

    #[test]
    fn comes_back_the_same_and_half_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (records, tasks) = Records::open(dir.path().join("tasks")).unwrap();
        assert!(tasks.is_empty());
        records.keep(&task("a")).unwrap();
        records.keep(&task("b")).unwrap();
        records.forget("a".into()).unwrap();
        records.forget("a".into()).unwrap();
        let (_, tasks) = Records::open(dir.path().join("tasks")).unwrap();
        assert_eq!(tasks.values().map(|t| (**t).clone()).collect::<Vec<_>>(), [task("b")]);

        let whole = text(&task("b"));
        for cut in 0..whole.len() - 1 {
            assert_eq!(parse("b".into(), &whole[..cut]), None, "cut at {cut}");
        }
    }
}
