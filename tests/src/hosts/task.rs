//! A line of `service ps`.

use serde_json::Value;

/// A line of `service ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub id: String,
    pub name: String,
    pub node: String,
    pub desired: String,
    /// The first word of the current state: `Running`, `Failed`, …
    pub state: String,
    pub error: String,
}

impl TaskRow {
    pub(super) fn read(row: &Value) -> TaskRow {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let state = text("CurrentState").split(' ').next().unwrap_or_default().to_owned();
        let error = text("Error").trim_matches('"').to_owned();
        TaskRow {
            id: text("ID"),
            name: text("Name"),
            node: text("Node"),
            desired: text("DesiredState"),
            state,
            error,
        }
    }

    /// Whether it is to run, now or after a delay.
    pub fn is_wanted(&self) -> bool {
        matches!(self.desired.as_str(), "Running" | "Ready")
    }

    pub fn runs(&self) -> bool {
        self.desired == "Running" && self.state == "Running"
    }
}

pub(super) fn table(tasks: &[TaskRow]) -> String {
    let line = |t: &TaskRow| format!("{} {} {} {} {} {}", t.id, t.name, t.node, t.desired, t.state, t.error);
    tasks.iter().map(line).collect::<Vec<_>>().join("\n")
}
