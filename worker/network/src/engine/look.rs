//! What others do to this node's networks: news of the kernel, and what it does not tell of.

use std::time::{Duration, Instant};

use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::kernel::Place;
use tracing::warn;

use super::Engine;
use crate::{conntrack, news, probe, sysctl, words};

/// After a change of others' rules they are looked at no sooner than this after the last time.
const REST: Duration = Duration::from_secs(1);
/// A full table of connections is told of for so long after it.
const KEEP_FULL: Duration = Duration::from_secs(15);

impl Engine {
    /// Settings that are not as wanted. The kernel tells of forwarding and little else. Those of tasks
    /// are left to the audit: there are many, and nobody comes there by mistake.
    pub(super) fn look_at_settings(&mut self) {
        for (place, room) in &mut self.rooms {
            let is_one = !matches!(place, Place::Task(_)) && room.known.is_some();
            if is_one
                && sysctl::differences(&room.file, &self.home, &room.want.sysctls)
                    .is_ok_and(|d| !d.is_empty())
            {
                room.doubt_paths();
                self.repair_at.get_or_insert(Instant::now() + self.settings.settle);
            }
        }
    }

    pub(super) fn read_news(&mut self) {
        for (place, room) in &mut self.rooms {
            let news = news::read(room);
            if std::mem::take(&mut room.others_changed) && *place == Place::Host {
                let soon = (self.looked_at + REST).max(Instant::now() + self.settings.settle);
                self.look_at = self.look_at.min(soon);
            }
            let wrong_settings = news.settings
                && sysctl::differences(&room.file, &self.home, &room.want.sysctls)
                    .is_ok_and(|d| !d.is_empty());
            let wrong_paths = news.paths_are_wrong || wrong_settings || news.lost;
            let wrong_tables = news.tables_are_wrong || news.lost;
            if wrong_paths {
                room.doubt_paths();
            }
            if wrong_tables {
                room.doubt_tables();
            }
            if (wrong_paths || wrong_tables) && self.has_plan {
                self.repair_at.get_or_insert(Instant::now() + self.settings.settle);
            }
        }
    }

    /// Firewalls of others, and connections for which there is no room.
    pub(super) fn look_around(&mut self) {
        let now = Instant::now();
        (self.looked_at, self.look_at) = (now, now + self.settings.look);
        self.general.clear();
        if let Some(host) = self.rooms.get_mut(&Place::Host) {
            match probe::firewall(host, &self.home) {
                Ok(found) => self.general.extend(found),
                Err(err) => warn!(error = %err, "cannot look at the firewalls of this node"),
            }
        }
        for (place, room) in &mut self.rooms {
            let Ok(load) = conntrack::load(&mut room.nft) else { continue };
            if load.is_full(room.dropped) {
                room.full_at = Some(now);
            }
            let full = room.full_at.is_some_and(|at| now.duration_since(at) < KEEP_FULL);
            if let Some(text) = load.complaint(full) {
                let text = format!("{}: {text}", words::place(*place));
                self.general.push(NetworkProblem { subject: "conntrack".into(), text });
            }
            room.dropped = Some(load.dropped);
        }
    }
}
