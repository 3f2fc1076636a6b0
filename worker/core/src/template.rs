//! Template: placeholders such as `{{.Task.Slot}}` in a task's host name, environment and mounts.
//!
//! Reads:   one task; the node that it runs on.
//! Writes:  nothing; gives text.
//! Never:   leaves a placeholder that it does not know: that is an error which names it.
//! Start:   [`expand`].

use std::borrow::Cow;

use swarm_types::id::NodeId;
use swarm_types::placement::Platform;
use swarm_types::task::Task;

/// What placeholders may say of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Its id.
    pub id: NodeId,
    /// Its host name.
    pub hostname: String,
    /// Operating system and architecture.
    pub platform: Platform,
}

/// A text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// There is no such placeholder (or no such label).
    #[error("expand `{{{{{0}}}}}`: no such placeholder")]
    Unknown(String),
    /// `{{` without `}}`.
    #[error("expand `{0}`: no `}}}}` after `{{{{`")]
    Unclosed(String),
}

/// `text` with its placeholders replaced.
pub fn expand<'a>(text: &'a str, task: &Task, node: &NodeFacts) -> Result<Cow<'a, str>, ExpandError> {
    let Some((mut out, mut rest)) = text.split_once("{{").map(|(a, b)| (a.to_owned(), b)) else {
        return Ok(Cow::Borrowed(text));
    };
    loop {
        let (name, after) = rest.split_once("}}").ok_or_else(|| ExpandError::Unclosed(text.to_owned()))?;
        out.push_str(&value(name.trim(), task, node).ok_or_else(|| ExpandError::Unknown(name.to_owned()))?);
        match after.split_once("{{") {
            Some((plain, next)) => {
                out.push_str(plain);
                rest = next;
            }
            None => {
                out.push_str(after);
                return Ok(Cow::Owned(out));
            }
        }
    }
}

fn value(name: &str, task: &Task, node: &NodeFacts) -> Option<String> {
    let labels = &task.service_annotations.labels;
    let found = match name {
        ".Service.ID" => task.service.to_string(),
        ".Service.Name" => task.service_annotations.name.clone(),
        ".Node.ID" => node.id.to_string(),
        ".Node.Hostname" => node.hostname.clone(),
        ".Node.Platform.OS" => node.platform.os.clone(),
        ".Node.Platform.Architecture" => node.platform.architecture.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => task.full_name(),
        ".Task.Slot" => task.slot.to_string(),
        other => {
            let key = match other.strip_prefix(".Service.Labels.") {
                Some(key) => key,
                // The way to write a label with dots in Docker's language.
                None => other.strip_prefix("index")?.trim().strip_prefix(".Service.Labels")?.trim(),
            };
            labels.get(key.trim_matches('"'))?.clone()
        }
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarm_types::meta::Annotations;

    fn task() -> Task {
        Task {
            id: "t1".into(),
            service: "s1".into(),
            slot: 3,
            service_annotations: Arc::new(Annotations {
                name: "web".into(),
                labels: [("tier".into(), "front".into()), ("a.b".into(), "dots".into())].into(),
            }),
            ..Task::default()
        }
    }
    fn node() -> NodeFacts {
        NodeFacts {
            id: "n1".into(),
            hostname: "host1".into(),
            platform: Platform { os: "linux".into(), architecture: "amd64".into() },
        }
    }

    #[test]
    fn expands_what_docker_expands() {
        for (text, want) in [
            ("plain", "plain"),
            ("", ""),
            ("{{.Service.Name}}-{{.Task.Slot}}", "web-3"),
            ("{{ .Service.ID }}/{{.Node.ID}}", "s1/n1"),
            ("a{{.Node.Hostname}}b", "ahost1b"),
            ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/amd64"),
            ("{{.Task.ID}} {{.Task.Name}}", "t1 web.3.t1"),
            ("{{.Service.Labels.tier}} {{.Service.Labels.a.b}}", "front dots"),
            ("{{index .Service.Labels \"a.b\"}}", "dots"),
            ("} } {x}", "} } {x}"),
        ] {
            assert_eq!(expand(text, &task(), &node()).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, want) in [
            ("{{.Task.Nope}}", "expand `{{.Task.Nope}}`: no such placeholder"),
            ("{{.Service.Labels.none}}", "expand `{{.Service.Labels.none}}`: no such placeholder"),
            ("{{}}", "expand `{{}}`: no such placeholder"),
            ("x{{.Task.ID", "expand `x{{.Task.ID`: no `}}` after `{{`"),
        ] {
            assert_eq!(expand(text, &task(), &node()).unwrap_err().to_string(), want);
        }
    }
}
