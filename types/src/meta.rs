//! What every object carries: its version and times, its name and labels.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Version and times of a stored object. Written by the store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Index of the log entry that wrote the object last; 0 before it was stored.
    pub version: u64,
    /// When it was stored first.
    pub created_at: Timestamp,
    /// When it was stored last.
    pub updated_at: Timestamp,
}

/// Labels: ordered, so that all managers see them in one order.
pub type Labels = BTreeMap<String, String>;

/// Name and labels that a user gives to an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Unique within its kind (services ignore case).
    pub name: String,
    /// Free key/value pairs.
    pub labels: Labels,
}
