//! Makes containers, images and mounts real on this machine. Knows the kernel, not the cluster.

pub mod cgroup;
pub mod container;
pub mod executor;
pub mod image;

mod device_filter;
mod sys;
