//! How nodes get on with images: each node's news as they come, a summary at the end.

use std::collections::BTreeMap;

use swarm_proto::v1::ImageProgress;
use tonic::Streaming;

use crate::error::{Failure, Outcome};
use crate::output;

/// What the nodes said so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    nodes: BTreeMap<String, ImageProgress>,
}

impl Report {
    /// Takes one message in; the line to show for it, if it says anything new.
    fn take(&mut self, message: ImageProgress) -> Option<String> {
        let before = self.nodes.insert(message.node_id.clone(), message.clone());
        let name = &message.node_name;
        match () {
            () if !message.error.is_empty() => Some(format!("{name}: Error: {}", message.error)),
            () if message.done => Some(format!("{name}: done")),
            () if before.is_some_and(|b| b.message == message.message) => None,
            () => Some(format!("{name}: {}", message.message)),
        }
    }

    /// `Loaded image: demo:1 (m1, m2)`, a line for each image.
    fn summary(&self, verb: &str) -> Vec<String> {
        let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for node in self.nodes.values().filter(|n| n.done && n.error.is_empty()) {
            for image in &node.images {
                images.entry(image).or_default().push(&node.node_name);
            }
        }
        for nodes in images.values_mut() {
            nodes.sort_unstable();
        }
        // A removed image's line says itself what was done: it was untagged, deleted, or both.
        let head = if verb.is_empty() { String::new() } else { format!("{verb}: ") };
        images.iter().map(|(image, nodes)| format!("{head}{image} ({})", nodes.join(", "))).collect()
    }

    fn failed(&self) -> bool {
        self.nodes.values().any(|n| !n.error.is_empty() || !n.done)
    }
}

/// Shows a stream of progress to its end.
pub(crate) async fn follow(mut stream: Streaming<ImageProgress>, verb: &str, quiet: bool) -> Outcome {
    let mut report = Report::default();
    while let Some(message) = stream.message().await? {
        let failed = !message.error.is_empty();
        if let Some(line) = report.take(message)
            && (!quiet || failed)
        {
            output::note(&line);
        }
    }
    report.summary(verb).iter().for_each(|line| output::line(line));
    for node in report.nodes.values().filter(|n| !n.done && n.error.is_empty()) {
        output::error(&format!("{}: ended before it was done", node.node_name));
    }
    if report.failed() { Err(Failure::Exit(1)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_summary() {
        let news = |node: &str, message: &str, done, error: &str| ImageProgress {
            node_id: node.into(),
            node_name: node.into(),
            message: message.into(),
            done,
            error: error.into(),
            images: if done { vec!["demo:1".into()] } else { vec![] },
        };
        let mut report = Report::default();
        assert_eq!(report.take(news("m2", "unpacking", false, "")).as_deref(), Some("m2: unpacking"));
        assert_eq!(report.take(news("m2", "unpacking", false, "")), None);
        assert_eq!(report.take(news("m2", "", true, "")).as_deref(), Some("m2: done"));
        report.take(news("m1", "", true, ""));
        assert_eq!(report.summary("Loaded image"), ["Loaded image: demo:1 (m1, m2)"]);
        assert!(!report.failed());
        assert_eq!(report.take(news("w1", "", true, "disk full")).as_deref(), Some("w1: Error: disk full"));
        assert!(report.failed());
    }
}
