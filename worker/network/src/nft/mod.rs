//! nftables: the tables of a plan as the kernel has them, the difference, and the way there.
//!
//! Both what is wanted ([`lower`]) and what is there ([`dump`]) become the same plain values, in which an
//! expression is its attributes in one fixed order. So they can be compared byte by byte, and what is
//! compared is what is sent ([`wire`]).

pub(crate) mod choice;
pub(crate) mod diff;
pub(crate) mod dump;
pub(crate) mod expression;
pub(crate) mod field;
pub(crate) mod lower;
pub(crate) mod number;
pub(crate) mod set;
pub(crate) mod text;
pub(crate) mod wire;

use std::collections::BTreeMap;

/// Tables by family and name.
pub(crate) type LowTables = BTreeMap<(u8, String), LowTable>;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowTable {
    /// Named sets and maps.
    pub(crate) sets: BTreeMap<String, LowSet>,
    pub(crate) chains: BTreeMap<String, LowChain>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowChain {
    pub(crate) hook: Option<LowHook>,
    pub(crate) rules: Vec<LowRule>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowHook {
    pub(crate) kind: String,
    pub(crate) point: u32,
    pub(crate) priority: i32,
    pub(crate) device: Option<String>,
    /// The verdict for what passes all rules. Can be changed in place.
    pub(crate) policy: u32,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowRule {
    pub(crate) expressions: Vec<LowExpression>,
    pub(crate) comment: String,
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowExpression {
    pub(crate) name: String,
    /// Its attributes by number, without those that the kernel makes up (names of sets without a name,
    /// counts).
    pub(crate) attributes: Vec<u8>,
    /// The set without a name that it looks into.
    pub(crate) set: Option<Box<LowSet>>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LowSet {
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    /// Of a map.
    pub(crate) data_type: u32,
    pub(crate) data_length: u32,
    /// Lengths of the parts of a key that has several, if they are intervals.
    pub(crate) parts: Vec<u32>,
    /// For `nft list`: byte orders.
    pub(crate) notes: Vec<u8>,
    pub(crate) elements: BTreeMap<LowKey, LowData>,
}

/// The key of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct LowKey {
    pub(crate) key: Vec<u8>,
    /// The last key of an interval of several parts.
    pub(crate) last: Option<Vec<u8>>,
    /// The interval before it ends before it.
    pub(crate) is_end: bool,
}

/// What a map says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LowData {
    Nothing,
    Value(Vec<u8>),
    Verdict(i32, Option<String>),
}

impl LowSet {
    /// As [`PartialEq`], without the elements: whether one can become the other.
    pub(crate) fn same_kind(&self, other: &LowSet) -> bool {
        let kind = |s: &LowSet| (s.flags, s.key_type, s.key_length, s.data_type, s.data_length);
        kind(self) == kind(other)
    }
}
