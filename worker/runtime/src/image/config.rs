//! [`ImageConfig`]: what an image says about how to run it, read from its raw JSON.
//!
//! Our own struct, because typed ones drop what Docker added (`Healthcheck`). The raw bytes are what is stored and hashed.
//! Source of the fields: OCI image-spec v1 `config.md`, and Docker's `Healthcheck`, `OnBuild` left out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::digest::Digest;

/// What an image says about how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// The program the arguments are given to.
    pub entrypoint: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty means root.
    pub user: String,
    /// Where the program starts; empty means `/`.
    pub working_dir: String,
    /// Name or number of the signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// How to see whether it is well.
    pub healthcheck: Option<Healthcheck>,
    /// `80/tcp`, …
    pub exposed_ports: Vec<String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// RFC 3339, as the builder wrote it.
    pub created: Option<String>,
    /// The layers' uncompressed digests, bottom first.
    pub diff_ids: Vec<Digest>,
}

/// An image's own health check. A zero duration means "the default".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`; empty means inherited.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// Of one check.
    pub timeout: Duration,
    /// Grace after the start.
    pub start_period: Duration,
    /// Between two checks within the grace.
    pub start_interval: Duration,
    /// Failures in a row that mean unhealthy.
    pub retries: u32,
}

impl ImageConfig {
    /// Reads the JSON of an image configuration.
    pub fn parse(json: &[u8]) -> Result<ImageConfig, serde_json::Error> {
        let raw: Raw = serde_json::from_slice(json)?;
        let run = raw.config;
        Ok(ImageConfig {
            env: run.env,
            cmd: run.cmd,
            entrypoint: run.entrypoint,
            user: run.user,
            working_dir: run.working_dir,
            stop_signal: run.stop_signal.filter(|s| !s.is_empty()),
            healthcheck: run.healthcheck.map(Healthcheck::from),
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            labels: run.labels,
            architecture: raw.architecture,
            os: raw.os,
            created: raw.created.filter(|c| !c.is_empty()),
            diff_ids: raw.rootfs.diff_ids,
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: RawRun,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    user: String,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    stop_signal: Option<String>,
    healthcheck: Option<RawHealth>,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

/// Durations in nanoseconds, as Go prints them.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealth {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

impl From<RawHealth> for Healthcheck {
    fn from(raw: RawHealth) -> Self {
        let nanos = |n: i64| Duration::from_nanos(u64::try_from(n).unwrap_or(0));
        Healthcheck {
            test: raw.test,
            interval: nanos(raw.interval),
            timeout: nanos(raw.timeout),
            start_period: nanos(raw.start_period),
            start_interval: nanos(raw.start_interval),
            retries: u32::try_from(raw.retries).unwrap_or(0),
        }
    }
}

/// Go writes `null` for an empty list or map.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let json = br#"{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z",
          "config":{"Env":["PATH=/bin"],"Cmd":["sh"],"Entrypoint":null,"User":"1:2","WorkingDir":"/w","StopSignal":"SIGQUIT",
            "ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"Labels":{"a":"b"},
            "Healthcheck":{"Test":["CMD","true"],"Interval":30000000000,"Retries":3}},
          "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[]}"#;
        let c = ImageConfig::parse(json).unwrap();
        assert_eq!((c.user.as_str(), c.cmd.len(), c.entrypoint.len(), c.diff_ids.len()), ("1:2", 1, 0, 1));
        assert_eq!(c.healthcheck.unwrap().interval, Duration::from_secs(30));
        assert_eq!((c.exposed_ports, c.volumes), (vec!["80/tcp".to_string()], vec!["/data".to_string()]));
        assert_eq!(c.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn a_config_without_run_part_is_fine_and_one_without_rootfs_is_not() {
        assert!(ImageConfig::parse(br#"{"config":null,"rootfs":{"diff_ids":null}}"#).is_ok());
        assert!(ImageConfig::parse(br#"{"config":{}}"#).is_err());
        assert!(ImageConfig::parse(b"[]").is_err());
    }
}
