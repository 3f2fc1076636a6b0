//! Text of flags → values and specs. Pure: no connection, no clock; files are read by the caller.

pub(crate) mod create;
pub(crate) mod decimal;
pub(crate) mod duration;
pub(crate) mod endpoint;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod ipam;
pub(crate) mod label;
pub(crate) mod mount;
pub(crate) mod name;
pub(crate) mod network;
pub(crate) mod publish;
pub(crate) mod since;
pub(crate) mod size;
pub(crate) mod spec;
pub(crate) mod update;
pub(crate) mod words;
