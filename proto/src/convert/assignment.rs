//! Assignments.

use std::sync::Arc;

use swarm_types::assignment::{AssignmentChange, AssignmentsKind, AssignmentsMessage};

use super::{Malformed, id, required};
use crate::v1;
use v1::assignment_change::Change;

impl From<&AssignmentsMessage> for v1::Assignments {
    fn from(m: &AssignmentsMessage) -> Self {
        v1::Assignments {
            applies_to: match m.kind {
                AssignmentsKind::Complete => None,
                AssignmentsKind::Incremental { applies_to } => Some(applies_to),
            },
            results_in: m.results_in,
            changes: m
                .changes
                .iter()
                .map(|c| match c {
                    AssignmentChange::Update(task) => Change::Update(task.as_ref().into()),
                    AssignmentChange::Remove(task) => Change::Remove(task.to_string()),
                })
                .map(|change| v1::AssignmentChange { change: Some(change) })
                .collect(),
        }
    }
}

impl TryFrom<v1::Assignments> for AssignmentsMessage {
    type Error = Malformed;
    fn try_from(m: v1::Assignments) -> Result<Self, Malformed> {
        let change = |c: v1::AssignmentChange| match required(c.change, "change")? {
            Change::Update(task) => task.try_into().map(|t| AssignmentChange::Update(Arc::new(t))),
            Change::Remove(task) => id(&task, "remove").map(AssignmentChange::Remove),
        };
        let changes = m.changes.into_iter().map(change).collect::<Result<_, _>>();
        Ok(AssignmentsMessage {
            kind: match m.applies_to {
                None => AssignmentsKind::Complete,
                Some(applies_to) => AssignmentsKind::Incremental { applies_to },
            },
            results_in: m.results_in,
            changes: changes.map_err(|e: Malformed| e.within("changes"))?,
        })
    }
}
