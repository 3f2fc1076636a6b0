use std::sync::Arc;

use proptest::prelude::*;
use swarm_types::meta::Annotations;
use swarm_types::node::NodeState;
use swarm_types::service::Service;
use swarm_types::task::Task;
use swarm_types::task_state::TaskState;
use swarm_types::testing;
use swarm_types::time::Timestamp;

use super::*;

/// One write of a generated draft, on a few objects so that they meet.
#[derive(Debug, Clone)]
enum Write {
    Node(u8, NodeState),
    Service(u8, u8),
    Task { id: u8, service: u8, slot: u64, node: u8, state: TaskState, from_service: bool },
    DeleteNode(u8),
    DeleteService(u8),
    DeleteTask(u8),
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let state = prop_oneof![Just(TaskState::New), Just(TaskState::Running), Just(TaskState::Failed)];
    let task = (0..8u8, 0..3u8, 0..3u64, 0..3u8, state, any::<bool>());
    let task = task.prop_map(|(id, service, slot, node, state, from_service)| Write::Task {
        id,
        service,
        slot,
        node,
        state,
        from_service,
    });
    let one = prop_oneof![
        2 => (0..3u8, prop_oneof![Just(NodeState::Ready), Just(NodeState::Down)])
            .prop_map(|(n, s)| Write::Node(n, s)),
        2 => (0..3u8, 0..3u8).prop_map(|(s, image)| Write::Service(s, image)),
        6 => task,
        1 => (0..3u8).prop_map(Write::DeleteNode),
        1 => (0..3u8).prop_map(Write::DeleteService),
        2 => (0..8u8).prop_map(Write::DeleteTask),
    ];
    proptest::collection::vec(one, 0..12)
}

fn write(draft: &mut Draft, write: &Write) {
    match write {
        Write::Node(n, state) => {
            let mut node = testing::node(&format!("n{n}"));
            node.status.state = *state;
            draft.put_node(node);
        }
        Write::Service(s, image) => {
            let spec = testing::service(&format!("S{s}")).image(&format!("i:{image}")).build();
            let id = format!("s{s}").into();
            draft.put_service(Service { id, spec, spec_version: u64::from(*image), ..Service::default() });
        }
        Write::Task { id, service, slot, node, state, from_service } => {
            let mut task = Task { id: format!("t{id}").into(), slot: *slot, ..Task::default() };
            task.service = format!("s{service}").into();
            task.status.state = *state;
            if *node > 0 {
                task.node = format!("n{node}").into();
            }
            if *from_service && let Some(service) = draft.service(&task.service) {
                task.spec = service.spec.task.clone();
                task.spec_version = service.spec_version;
                task.service_annotations = Arc::new(service.spec.annotations.clone());
            }
            draft.put_task(task);
        }
        Write::DeleteNode(n) => {
            draft.delete_node(&format!("n{n}").into());
        }
        Write::DeleteService(s) => {
            draft.delete_service(&format!("s{s}").into());
        }
        Write::DeleteTask(t) => {
            draft.delete_task(&format!("t{t}").into());
        }
    }
}

/// What a decoder makes of an encoded transaction: what may be left out is left out.
fn over_the_wire(mut transaction: Transaction) -> Transaction {
    for change in &mut transaction.changes {
        if let Change::PutTask(task, SpecSource::OfService | SpecSource::Unchanged) = change {
            let task = Arc::make_mut(task);
            task.spec = Arc::default();
            task.service_annotations = Arc::<Annotations>::default();
        }
    }
    transaction
}

/// A view filled from nothing but another's objects.
fn rebuilt(view: &View) -> View {
    Store::restore(view.version(), view.newest_time(), records(view).map(|r| r.object)).view()
}

/// Follows events, as a watcher does.
fn mirror(view: &mut View, event: &Event) {
    match event {
        Event::Created(object) => {
            assert_eq!(view.get(&object.key()), None, "created twice");
            view.put(object.clone());
        }
        Event::Updated { old, new } => {
            assert_eq!(view.get(&old.key()).as_ref(), Some(old), "old is not what it was");
            view.put(new.clone());
        }
        Event::Deleted(object) => {
            assert_eq!(view.get(&object.key()).as_ref(), Some(object), "deleted what was not there");
            view.delete(&object.key());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn applied_is_what_was_drafted(drafts in proptest::collection::vec(writes(), 1..6)) {
        let mut store = Store::default();
        let mut watched = View::default();
        for (version, writes) in (1..).zip(drafts) {
            let mut draft = Draft::new(store.view(), Timestamp(100 + version));
            writes.iter().for_each(|w| write(&mut draft, w));
            let wanted = View::clone(&draft);
            let transaction = over_the_wire(draft.into_transaction());
            let events = store.apply(version, &transaction).unwrap();
            events.iter().for_each(|event| mirror(&mut watched, event));
            let view = store.view();
            prop_assert!(view.tasks().eq(wanted.tasks()));
            prop_assert!(view.nodes().eq(wanted.nodes()));
            prop_assert!(view.services().eq(wanted.services()));
            (watched.version, watched.newest_time) = (view.version(), view.newest_time());
            prop_assert_eq!(&watched, &view, "events say all, indexes included");
            prop_assert_eq!(&rebuilt(&view), &view, "indexes are those of the objects");
        }
    }

    #[test]
    fn refused_is_untouched(first in writes(), second in writes(), third in writes()) {
        let mut store = Store::default();
        let transaction = |view: View, writes: &[Write]| {
            let mut draft = Draft::new(view, Timestamp(7));
            writes.iter().for_each(|w| write(&mut draft, w));
            draft.into_transaction()
        };
        store.apply(1, &transaction(store.view(), &first)).unwrap();
        let base = store.view();
        store.apply(2, &transaction(base.clone(), &second)).unwrap();
        let before = store.view();
        let late = transaction(base, &third);
        let stale = late.requires.iter().any(|(key, version)| before.version_of(key) != *version);
        let outcome = store.apply(3, &late);
        prop_assert!(!stale || outcome.is_err());
        if outcome.is_err() {
            prop_assert_eq!(store.view(), before);
        }
    }

    #[test]
    fn rolled_back_is_as_before(first in writes(), second in writes()) {
        let mut draft = Draft::new(View::default(), Timestamp(7));
        first.iter().for_each(|w| write(&mut draft, w));
        let before = draft.clone();
        let here = draft.checkpoint();
        second.iter().for_each(|w| write(&mut draft, w));
        draft.rollback(here);
        prop_assert_eq!(View::clone(&draft), View::clone(&before));
        prop_assert_eq!(draft.into_transaction(), before.into_transaction());
    }
}

fn with_service(replicas: u64) -> Store {
    let mut store = Store::default();
    let mut draft = Draft::new(View::default(), Timestamp(1));
    let spec = testing::service("web").replicas(replicas).build();
    draft.put_service(Service { id: "s".into(), spec, spec_version: 1, ..Service::default() });
    store.apply(1, &draft.into_transaction()).unwrap();
    store
}

fn task_of(view: &View, id: &str, slot: u64) -> Task {
    let service = view.service(&"s".into()).unwrap();
    Task {
        id: id.into(),
        service: service.id,
        slot,
        spec: service.spec.task.clone(),
        spec_version: service.spec_version,
        service_annotations: view.service_annotations(&service.id).unwrap().clone(),
        ..Task::default()
    }
}

#[test]
fn specs_are_left_out_and_shared() {
    let mut store = with_service(1);
    let mut draft = Draft::new(store.view(), Timestamp(2));
    draft.put_task(task_of(&store.view(), "t", 1));
    let transaction = draft.into_transaction();
    assert!(matches!(transaction.changes[0], Change::PutTask(_, SpecSource::OfService)));
    store.apply(2, &over_the_wire(transaction)).unwrap();
    let view = store.view();
    let (service, task) = (view.service(&"s".into()).unwrap(), view.task(&"t".into()).unwrap());
    assert!(Arc::ptr_eq(&service.spec.task, &task.spec));

    let mut draft = Draft::new(view.clone(), Timestamp(3));
    draft.put_task(Task { desired_state: TaskState::Running, ..Task::clone(task) });
    let transaction = draft.into_transaction();
    assert!(matches!(transaction.changes[0], Change::PutTask(_, SpecSource::Unchanged)));
    store.apply(3, &over_the_wire(transaction)).unwrap();
    assert!(Arc::ptr_eq(&service.spec.task, &store.view().task(&"t".into()).unwrap().spec));
}

#[test]
fn a_task_without_its_spec_is_refused() {
    let mut store = with_service(1);
    let mut task = task_of(&store.view(), "t", 1);
    task.spec_version = 9;
    for source in [SpecSource::OfService, SpecSource::Unchanged] {
        let changes = vec![Change::PutTask(Arc::new(task.clone()), source)];
        let refused = store.apply(2, &Transaction { changes, ..Transaction::default() });
        assert_eq!(refused, Err(Refused::NoSpec(Key::Task("t".into()))));
    }
}

#[test]
fn names_are_unique_whatever_their_case() {
    let mut store = with_service(1);
    let mut draft = Draft::new(View::default(), Timestamp(2));
    let spec = testing::service("WEB").build();
    draft.put_service(Service { id: "other".into(), spec: spec.clone(), ..Service::default() });
    assert_eq!(store.apply(2, &draft.into_transaction()), Err(Refused::NameTaken("WEB".into())));
    // In one transaction the name can pass from one to another.
    let mut draft = Draft::new(store.view(), Timestamp(2));
    draft.delete_service(&"s".into());
    draft.put_service(Service { id: "other".into(), spec, ..Service::default() });
    store.apply(3, &draft.into_transaction()).unwrap();
    assert_eq!(store.view().service_by_name("web").unwrap().id, "other".into());
}

#[test]
fn versions_and_required_versions_hold() {
    let mut store = with_service(1);
    let stale = {
        let mut draft = Draft::new(store.view(), Timestamp(2));
        draft.require_unchanged(Key::Service("s".into()));
        draft.put_node(testing::node("n"));
        draft.into_transaction()
    };
    let mut draft = Draft::new(store.view(), Timestamp(2));
    let service = Service::clone(store.view().service(&"s".into()).unwrap());
    draft.put_service(Service { spec_version: 2, ..service });
    store.apply(5, &draft.into_transaction()).unwrap();
    let key = Key::Service("s".into());
    assert_eq!(store.apply(6, &stale), Err(Refused::Stale { key, required: 1, found: 5 }));
    assert_eq!(store.apply(5, &stale), Err(Refused::OldVersion { given: 5, current: 5 }));
    let meta = store.view().service(&"s".into()).unwrap().meta;
    assert_eq!((meta.version, meta.created_at, meta.updated_at), (5, Timestamp(1), Timestamp(2)));
}

#[test]
fn tasks_are_found_by_place() {
    let store = with_service(1);
    let view = store.view();
    let mut draft = Draft::new(view.clone(), Timestamp(2));
    for (id, slot, node) in [("c", 1, "n1"), ("a", 2, "n1"), ("b", 1, ""), ("g", 0, "n2")] {
        draft.put_task(Task { node: node.into(), ..task_of(&view, id, slot) });
    }
    let ids = |tasks: Vec<&Arc<Task>>| tasks.iter().map(|t| t.id.to_string()).collect::<Vec<_>>().join("");
    assert_eq!(ids(draft.tasks_of_service(&"s".into()).collect()), "gbca");
    let slot = SlotKey { slot: 1, ..SlotKey::default() };
    assert_eq!(ids(draft.tasks_of_slot(&"s".into(), slot).collect()), "bc");
    let place = SlotKey { slot: 0, node: "n2".into() };
    assert_eq!(ids(draft.tasks_of_slot(&"s".into(), place).collect()), "g");
    assert_eq!(ids(draft.tasks_on_node(&"n1".into()).collect()), "ac");
    assert_eq!(draft.tasks_on_node(&"".into()).count(), 0, "who waits is on none");
    let moved = Task { node: "n2".into(), ..Task::clone(draft.task(&"b".into()).unwrap()) };
    draft.put_task(moved);
    assert_eq!(ids(draft.tasks_on_node(&"n2".into()).collect()), "bg");
    assert_eq!(draft.task_count_of_service(&"s".into()), 4);
}

/// Prints what a task costs: a million must fit into 4 GiB, four managers' worth of slack included.
#[test]
fn a_hundred_thousand_tasks_fit() {
    const TASKS: u64 = 100_000;
    #[allow(clippy::disallowed_methods)] // What the kernel says of memory is the test's subject.
    let resident = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    };
    let mut store = with_service(TASKS);
    let before = resident();
    for part in 0..10 {
        let view = store.view();
        let mut draft = Draft::new(view.clone(), Timestamp(2));
        for n in part * (TASKS / 10)..(part + 1) * (TASKS / 10) {
            let mut task = task_of(&view, &format!("{n:025}"), n + 1);
            task.node = format!("{:025}", n % 100).into();
            task.status.state = TaskState::Running;
            task.status.message = "started".into();
            task.status.container = Some(swarm_types::task::ContainerStatus {
                container_id: format!("{n:064}"),
                ..Default::default()
            });
            draft.put_task(task);
        }
        let transaction = over_the_wire(draft.into_transaction());
        store.apply(part + 2, &transaction).unwrap();
    }
    let bytes = resident().saturating_sub(before) / TASKS;
    #[allow(clippy::print_stdout)]
    {
        println!("{bytes} bytes for each of {TASKS} tasks");
    }
    assert_eq!(store.view().task_count(), 100_000);
    assert!(bytes < 4096, "a million tasks would need {bytes} kB x 1000");
}
