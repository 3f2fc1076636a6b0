//! Between wire and [`swarm_types`]: `From` outwards (nothing can be missing there), `TryFrom`
//! inwards (anything can be missing or wrong here, and the error names the field).

mod assignment;
mod cluster;
mod network;
mod network_set;
mod node;
mod object;
mod policy;
mod service;
mod task;

use std::time::Duration;

use swarm_types::time::Timestamp;

use crate::v1;

/// A message that is no valid object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}: {problem}")]
pub struct Malformed {
    /// Path of the field in the message, e.g. `task.status.state`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Malformed {
    pub(crate) fn new(field: impl Into<String>, problem: impl ToString) -> Self {
        Malformed { field: field.into(), problem: problem.to_string() }
    }
    /// The same inside of `parent`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

/// A field that has to be there.
pub(crate) fn required<T>(value: Option<T>, field: &str) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::new(field, "missing"))
}

/// A field of another message type that has to be there.
pub(crate) fn nested<W, T>(value: Option<W>, field: &str) -> Result<T, Malformed>
where
    T: TryFrom<W, Error = Malformed>,
{
    T::try_from(required(value, field)?).map_err(|e| e.within(field))
}

/// An id, or nothing.
pub(crate) fn id<T>(text: &str, field: &str) -> Result<T, Malformed>
where
    T: std::str::FromStr<Err = swarm_types::id::InvalidId>,
{
    text.parse().map_err(|e| Malformed::new(field, e))
}

pub(crate) fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl From<swarm_types::meta::Meta> for v1::Meta {
    fn from(m: swarm_types::meta::Meta) -> Self {
        v1::Meta { version: m.version, created_at_ms: m.created_at.0, updated_at_ms: m.updated_at.0 }
    }
}

impl From<v1::Meta> for swarm_types::meta::Meta {
    fn from(m: v1::Meta) -> Self {
        Self {
            version: m.version,
            created_at: Timestamp(m.created_at_ms),
            updated_at: Timestamp(m.updated_at_ms),
        }
    }
}

impl From<&swarm_types::meta::Annotations> for v1::Annotations {
    fn from(a: &swarm_types::meta::Annotations) -> Self {
        v1::Annotations { name: a.name.clone(), labels: a.labels.clone() }
    }
}

impl From<v1::Annotations> for swarm_types::meta::Annotations {
    fn from(a: v1::Annotations) -> Self {
        Self { name: a.name, labels: a.labels }
    }
}

#[cfg(test)]
mod tests;
