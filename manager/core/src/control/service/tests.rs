use super::*;
use crate::control::DeniedKind;
use crate::store::{Store, View};
use swarm_types::id::{IdSource, Seed};
use swarm_types::testing;
use swarm_types::time::Timestamp;

/// A store, and commands on it as a manager would run them.
struct World {
    store: Store,
    ids: IdSource,
    version: u64,
}

impl World {
    fn new() -> World {
        World { store: Store::default(), ids: IdSource::new(Seed(1)), version: 0 }
    }
    fn run<T>(
        &mut self,
        command: impl FnOnce(&mut Draft, &mut Context<'_>) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        let now = Timestamp(1000 + self.version);
        let mut draft = Draft::new(self.store.view(), now);
        let out = command(&mut draft, &mut Context { now, ids: &mut self.ids })?;
        self.version += 1;
        self.store.apply(self.version, &draft.into_transaction()).unwrap();
        Ok(out)
    }
    fn create(&mut self, spec: ServiceSpec) -> Result<ServiceId, Denied> {
        self.run(|draft, ctx| create(draft, spec, ctx))
    }
    fn update(&mut self, id: ServiceId, spec: ServiceSpec) -> Result<(), Denied> {
        let version = self.get(id).meta.version;
        self.run(|draft, _| update(draft, &id, version, spec))
    }
    fn get(&self, id: ServiceId) -> Service {
        Service::clone(self.store.view().service(&id).unwrap())
    }
}

fn web() -> ServiceSpec {
    testing::service("web").replicas(3).build()
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    assert_eq!(world.get(id).spec_version, 1);
    let denied = world.create(testing::service("WEB").build()).unwrap_err();
    assert_eq!(denied.to_string(), "service web already exists");
    assert_eq!(denied.kind(), DeniedKind::AlreadyExists);
}

#[test]
fn created_and_removed_many_times_under_one_name() {
    let mut world = World::new();
    for _ in 0..10 {
        let id = world.create(web()).unwrap();
        world.run(|draft, _| remove(draft, &id)).unwrap();
        assert_eq!(world.run(|draft, _| remove(draft, &id)).unwrap_err().kind(), DeniedKind::NotFound);
    }
    assert_eq!(world.store.view().services().count(), 0);
}

#[test]
fn invalid_specs_are_denied() {
    let denied = World::new().create(testing::service("-").build()).unwrap_err();
    assert_eq!(denied.kind(), DeniedKind::InvalidArgument);
}

#[test]
fn the_second_update_of_one_read_is_out_of_sequence() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    let read = world.get(id).meta.version;
    let spec = |n| testing::service("web").replicas(n).build();
    world.run(|draft, _| update(draft, &id, read, spec(4))).unwrap();
    let denied = world.run(|draft, _| update(draft, &id, read, spec(5))).unwrap_err();
    assert_eq!((denied.to_string().as_str(), denied.kind()), ("update out of sequence", DeniedKind::Aborted));
}

#[test]
fn labels_and_scale_do_not_touch_the_template() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    let labelled = testing::service("web").replicas(5).with(|spec, _| {
        spec.annotations.labels.insert("a".into(), "b".into());
    });
    world.update(id, labelled.build()).unwrap();
    let service = world.get(id);
    assert_eq!(service.spec_version, 1);
    assert_eq!(service.spec.annotations.labels["a"], "b");
    assert_eq!(service.previous_spec.as_deref(), Some(&web()));
    world.update(id, testing::service("web").image("image:2").build()).unwrap();
    assert_eq!(world.get(id).spec_version, 2);
}

#[test]
fn names_and_modes_stay() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    for spec in [testing::service("other").build(), testing::service("web").global().build()] {
        assert_eq!(world.update(id, spec).unwrap_err().kind(), DeniedKind::InvalidArgument);
    }
}

#[test]
fn rollback_swaps_the_specs() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    let version = world.get(id).meta.version;
    let denied = world.run(|draft, _| rollback(draft, &id, version)).unwrap_err();
    assert_eq!(denied.to_string(), "service web does not have a previous spec");
    let second = testing::service("web").image("image:2").build();
    world.update(id, second.clone()).unwrap();
    let version = world.get(id).meta.version;
    world.run(|draft, _| rollback(draft, &id, version)).unwrap();
    let service = world.get(id);
    assert_eq!((&service.spec, service.previous_spec.as_deref()), (&web(), Some(&second)));
    assert_eq!(service.spec_version, 3, "it only grows");
    assert_eq!(service.update_status.unwrap().state, UpdateState::RollbackStarted);
}

#[test]
fn an_equal_spec_wakes_a_paused_update_and_nothing_else() {
    let mut world = World::new();
    let id = world.create(web()).unwrap();
    world.update(id, web()).unwrap();
    assert_eq!(world.get(id).meta.version, 1, "nothing was written");
    let pause = |draft: &mut Draft, _: &mut Context<'_>| {
        let mut service = Service::clone(draft.service(&id).unwrap());
        service.update_status = Some(UpdateStatus { state: UpdateState::Paused, ..Default::default() });
        draft.put_service(service);
        Ok(())
    };
    world.run(pause).unwrap();
    world.update(id, web()).unwrap();
    assert_eq!(world.get(id).update_status, None);
    assert_eq!(View::clone(&world.store.view()).services().count(), 1);
}
