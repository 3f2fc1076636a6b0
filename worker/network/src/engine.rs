//! The thread that drives the kernel: takes wishes, reads news, repairs. It alone changes namespaces, so
//! nothing here waits for anything but the kernel.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use swarm_types::network_set::NetworkProblem;
use swarm_worker_core::network::kernel::{Namespace, Place, Plan};
use tokio::sync::watch;
use tracing::warn;

use crate::kernel::{Applied, Difference, KernelError, Settings};
use crate::links::{self, Rooms, Work, Works};
use crate::namespace::Folder;
use crate::room::{Have, Room};
use crate::thread::Command;
use crate::{check, conntrack, sync, words};

/// What could not be done is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// What the thread knows and does.
pub(crate) struct Engine {
    settings: Settings,
    folder: Folder,
    /// The namespace that the thread is in, between excursions.
    home: File,
    rooms: Rooms,
    epoll: Epoll,
    problems: watch::Sender<Vec<NetworkProblem>>,
    repairs: watch::Sender<u64>,
    /// Wrong on the whole, and places that could not even be made.
    general: Vec<NetworkProblem>,
    unmade: BTreeMap<Place, NetworkProblem>,
    plan: BTreeMap<Place, Arc<Namespace>>,
    has_plan: bool,
    repair_at: Option<Instant>,
    audit_at: Instant,
    settings_at: Instant,
    looked_at: Instant,
    look_at: Instant,
}

impl Engine {
    pub(crate) fn new(
        settings: Settings,
        folder: Folder,
        host: File,
        home: File,
        bell: &EventFd,
        (problems, repairs): (watch::Sender<Vec<NetworkProblem>>, watch::Sender<u64>),
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        let now = Instant::now();
        let (audit_at, settings_at) = (now + settings.audit, now + settings.settings);
        let look_at = now + settings.look;
        let mut engine = Self {
            settings,
            folder,
            home,
            rooms: Rooms::new(),
            epoll,
            problems,
            repairs,
            general: Vec::new(),
            unmade: BTreeMap::new(),
            plan: BTreeMap::new(),
            has_plan: false,
            repair_at: None,
            audit_at,
            settings_at,
            looked_at: now,
            look_at,
        };
        engine.enter_room(Place::Host, host)?;
        Ok(engine)
    }

    fn enter_room(&mut self, place: Place, file: File) -> io::Result<()> {
        let room = Room::open(place, file, &self.home)?;
        for socket in [&room.route_news, &room.nft_news] {
            self.epoll.add(socket.fd(), EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        }
        self.rooms.insert(place, room);
        Ok(())
    }

    pub(crate) fn run(&mut self, wishes: &mpsc::Receiver<Command>, bell: &EventFd) {
        loop {
            self.wait();
            // rung or not, it is quiet now
            let _rung = bell.read();
            loop {
                match wishes.try_recv() {
                    Ok(command) => self.command(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.read_news();
            if self.settings_at <= Instant::now() {
                self.settings_at = Instant::now() + self.settings.settings;
                self.look_at_settings();
            }
            if self.repair_at.is_some_and(|at| at <= Instant::now()) {
                self.repair_at = None;
                self.repair();
            }
            if self.audit_at <= Instant::now() {
                self.audit_at = Instant::now() + self.settings.audit;
                self.audit();
            }
            if self.look_at <= Instant::now() {
                self.look_around();
                self.publish();
            }
        }
    }

    fn wait(&self) {
        let next = self.audit_at.min(self.settings_at).min(self.look_at);
        let next = self.repair_at.map_or(next, |at| at.min(next));
        let left = next.saturating_duration_since(Instant::now());
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut events = [EpollEvent::empty(); 8];
        // an interrupted wait is a short one
        let _woken = self.epoll.wait(&mut events, EpollTimeout::from(millis));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Apply(plan, reply) => drop(reply.send(self.apply(*plan))),
            Command::Check(place, reply) => drop(reply.send(self.check(place))),
            Command::Namespace(place, reply) => {
                let file = self.room(place).and_then(|room| room.file.try_clone());
                drop(reply.send(file));
            }
            Command::Reset(place, addr, reply) => {
                let count = self.room(place).and_then(|room| conntrack::forget(&mut room.nft, addr));
                drop(reply.send(count));
            }
            Command::Count(place, addr, reply) => {
                let room = self.room(place);
                let count = room.and_then(|room| Ok(conntrack::count(&mut room.nft, addr)?));
                drop(reply.send(count));
            }
        }
    }

    fn room(&mut self, place: Place) -> io::Result<&mut Room> {
        self.rooms.get_mut(&place).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn apply(&mut self, plan: Plan) -> Applied {
        let first = !std::mem::replace(&mut self.has_plan, true);
        let before = std::mem::take(&mut self.plan);
        for (place, namespace) in plan.namespaces {
            let same = before.get(&place).filter(|old| Arc::ptr_eq(old, &namespace) || **old == namespace);
            self.plan.insert(place, same.cloned().unwrap_or(namespace));
        }
        self.plan.entry(Place::Host).or_default();
        // news that were not read yet must not be lost under what we are going to change
        self.read_news();
        let spent = |rooms: &Rooms| rooms.values().map(|r| r.route.spent() + r.nft.spent()).sum::<Duration>();
        let before = spent(&self.rooms);
        self.work();
        let in_kernel = spent(&self.rooms).saturating_sub(before);
        self.remove_rooms();
        if first {
            self.look_around();
        }
        Applied { problems: self.publish(), in_kernel }
    }

    /// Opens the namespaces of the plan, made if there are none.
    fn open_rooms(&mut self) {
        self.unmade.clear();
        let places: Vec<Place> = self.plan.keys().copied().collect();
        for place in places {
            if let Some(path) = self.folder.path(place) {
                let is_there = self.rooms.get(&place).is_some_and(|room| room.is_at(&path));
                if !is_there {
                    drop(self.rooms.remove(&place));
                    let file = self.folder.open(place, &self.home);
                    if let Err(err) = file.and_then(|file| self.enter_room(place, file)) {
                        let text = format!("make the network namespace {}: {err}", path.display());
                        let problem = NetworkProblem { subject: words::place(place), text };
                        self.unmade.insert(place, problem);
                        continue;
                    }
                }
            }
            if let (Some(room), Some(want)) = (self.rooms.get_mut(&place), self.plan.get(&place)) {
                room.want(want.clone());
            }
        }
    }

    /// Makes everything that is not known to be as wanted so; how many things were not.
    fn work(&mut self) -> usize {
        self.open_rooms();
        let places =
            self.rooms.iter().filter(|(place, room)| self.plan.contains_key(place) && !room.is_as_wanted());
        let places: Vec<Place> = places.map(|(place, _)| *place).collect();
        let mut works = Works::new();
        self.begin(places, &mut works);
        for (place, work) in &mut works {
            if let Some(room) = self.rooms.get_mut(place) {
                settings(room, &self.home, false, work);
            }
        }
        let mut outside = links::remove(&mut self.rooms, &mut works);
        outside.extend(links::create(&mut self.rooms, &mut works));
        outside.retain(|place| !works.contains_key(place) && self.plan.contains_key(place));
        outside.iter().for_each(|place| {
            self.rooms.get_mut(place).map(Room::doubt_paths);
        });
        self.begin(outside.into_iter().collect(), &mut works);
        let mut changed = 0;
        for (place, mut work) in works {
            let Some(room) = self.rooms.get_mut(&place) else { continue };
            sync::tables(room, &mut work.outcome);
            sync::raise(room, &work.have, &work.created, &mut work.outcome);
            settings(room, &self.home, true, &mut work);
            sync::paths(room, &work.have.namespace, &mut work.outcome);
            changed += work.outcome.changed;
            room.problems = work.outcome.problems(room);
            if work.outcome.failed.is_empty() {
                room.known = Some(room.want.clone());
                room.known_tables = room.generation.map(|_| room.want.clone());
                room.before = room.want.clone();
            } else {
                room.doubt_paths();
                room.doubt_tables();
                self.repair_at.get_or_insert(Instant::now() + RETRY);
            }
        }
        changed
    }

    /// Finds out what each of these has: what is known, or what a look shows.
    fn begin(&mut self, places: Vec<Place>, works: &mut Works) {
        for place in places {
            let known = self.rooms.get(&place).and_then(|room| room.known.clone());
            let mut work = Work::default();
            match known {
                Some(known) => work.have = Have { namespace: known, ..Have::default() },
                None => match links::look(&mut self.rooms, place) {
                    Ok(have) => work.have = have,
                    Err(why) => work.outcome.fail(format!("look at what is there: {}", words::refused(&why))),
                },
            }
            works.insert(place, work);
        }
    }

    /// Namespaces of ours that the plan does not name go, and with them everything in them.
    fn remove_rooms(&mut self) {
        let open = self.rooms.keys().copied().collect::<BTreeSet<_>>();
        let there = self.folder.list().unwrap_or_default();
        for place in open.into_iter().chain(there).filter(|place| *place != Place::Host) {
            if self.plan.contains_key(&place) {
                continue;
            }
            let path = self.folder.path(place);
            let file = path.and_then(|path| crate::namespace::look(&path).ok().flatten());
            let found = file.and_then(|file| Room::open(place, file, &self.home).ok());
            if let Some(mut room) = self.rooms.remove(&place).or(found) {
                // The kernel takes its time to end a namespace, and nobody else can have a tunnel of the
                // same number before.
                links::remove_all(&mut room);
            }
            if let Err(err) = self.folder.remove(place) {
                let text = format!("remove the network namespace: {err}");
                self.unmade.insert(place, NetworkProblem { subject: words::place(place), text });
            }
        }
    }

    fn repair(&mut self) {
        let changed = self.work();
        if changed > 0 {
            let count = *self.repairs.borrow() + 1;
            let failed = self.rooms.values().map(|room| room.problems.len()).sum::<usize>();
            warn!(network.changed = changed, network.failed = failed, "what others changed was put right");
            self.repairs.send_replace(count);
        }
        self.publish();
    }

    /// Everything is compared; tables only if anybody has changed any.
    fn audit(&mut self) {
        if self.has_plan {
            for room in self.rooms.values_mut() {
                room.doubt_paths();
                if crate::nft::dump::generation(&mut room.nft).ok() != room.generation {
                    room.doubt_tables();
                }
            }
            self.repair();
        }
        self.publish();
    }

    fn publish(&mut self) -> Vec<NetworkProblem> {
        let rooms = self.rooms.values().flat_map(|room| &room.problems);
        let all = rooms.chain(self.unmade.values()).chain(&self.general).cloned();
        let mut all: Vec<NetworkProblem> = all.collect();
        all.sort();
        self.problems.send_if_modified(|old| {
            let is_new = *old != all;
            old.clone_from(&all);
            is_new
        });
        all
    }

    fn check(&mut self, place: Option<Place>) -> Result<Vec<Difference>, KernelError> {
        let mut found = Vec::new();
        let places: Vec<Place> =
            self.plan.keys().copied().filter(|p| place.is_none_or(|place| place == *p)).collect();
        for place in places {
            let in_place = check::room(&mut self.rooms, place, &self.home);
            let failed = |why: crate::socket::Refusal| {
                KernelError::Ask(format!("look at what is in {}", words::place(place)), why.into())
            };
            found.extend(in_place.map_err(failed)?);
        }
        found.sort();
        Ok(found)
    }
}

fn settings(room: &mut Room, home: &File, is_last: bool, work: &mut Work) {
    if let Err(err) = sync::settings(room, home, is_last, &mut work.outcome) {
        work.outcome.fail(format!("enter the namespace for its settings: {err}"));
    }
}
