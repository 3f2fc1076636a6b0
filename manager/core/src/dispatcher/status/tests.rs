use super::*;
use crate::store::Draft;
use proptest::prelude::*;
use swarm_types::id::{IdSource, Seed};
use swarm_types::task::ContainerStatus;

fn world() -> View {
    let mut draft = Draft::new(View::default(), Timestamp(1));
    let mut task = Task { id: "t".into(), node: "n".into(), ..Task::default() };
    task.status.state = TaskState::Assigned;
    draft.put_task(task);
    View::clone(&draft)
}

fn says(state: TaskState) -> TaskStatus {
    TaskStatus { state, ..TaskStatus::default() }
}

fn take(statuses: &mut Statuses, view: &View, status: TaskStatus) -> Verdict {
    statuses.take(view, &"n".into(), "t".into(), status, Timestamp(9))
}

fn commit(statuses: &mut Statuses, view: &mut View) -> usize {
    let mut plan = Plan::new(view.clone(), Timestamp(9));
    statuses.plan(&mut plan, &mut Context { now: Timestamp(9), ids: &mut IdSource::new(Seed(1)) });
    plan.fresh().iter().for_each(|event| statuses.observe(event));
    *view = View::clone(&plan);
    plan.len()
}

#[test]
fn passing_states_stay_in_memory() {
    let (mut statuses, mut view) = (Statuses::default(), world());
    assert_eq!(take(&mut statuses, &view, says(TaskState::Preparing)), Verdict::Passing);
    assert_eq!(commit(&mut statuses, &mut view), 0);
    assert_eq!(statuses.newer(&"t".into()).unwrap().state, TaskState::Preparing);
    assert_eq!(take(&mut statuses, &view, says(TaskState::Accepted)), Verdict::Ignored);
    assert_eq!(take(&mut statuses, &view, says(TaskState::Running)), Verdict::Commit);
    assert_eq!(commit(&mut statuses, &mut view), 1);
    let status = &view.task(&"t".into()).unwrap().status;
    assert_eq!((status.state, status.applied_at), (TaskState::Running, Timestamp(9)));
    assert_eq!(statuses.newer(&"t".into()), None, "the store says it now");
    assert_eq!(take(&mut statuses, &view, says(TaskState::Running)), Verdict::Ignored);
}

#[test]
fn only_the_owner_speaks_and_only_of_what_is_there() {
    let (mut statuses, view) = (Statuses::default(), world());
    let running = says(TaskState::Running);
    let other = statuses.take(&view, &"m".into(), "t".into(), running.clone(), Timestamp(9));
    assert_eq!(other, Verdict::Ignored);
    let gone = statuses.take(&view, &"n".into(), "x".into(), running, Timestamp(9));
    assert_eq!(gone, Verdict::NoSuchTask);
    for state in [TaskState::Remove, TaskState::Orphaned, TaskState::Assigned] {
        assert_eq!(take(&mut statuses, &view, says(state)), Verdict::Ignored, "{state}");
    }
}

#[test]
fn a_running_task_may_get_another_container_status() {
    let (mut statuses, mut view) = (Statuses::default(), world());
    take(&mut statuses, &view, says(TaskState::Running));
    commit(&mut statuses, &mut view);
    let container = Some(ContainerStatus { pid: 7, ..ContainerStatus::default() });
    let with = TaskStatus { container, ..says(TaskState::Running) };
    assert_eq!(take(&mut statuses, &view, with.clone()), Verdict::Commit);
    assert_eq!(commit(&mut statuses, &mut view), 1);
    let words = TaskStatus { message: "still".into(), ..with };
    assert_eq!(take(&mut statuses, &view, words), Verdict::Passing);
}

#[test]
fn a_lost_plan_is_made_again() {
    let (mut statuses, mut view) = (Statuses::default(), world());
    take(&mut statuses, &view, says(TaskState::Failed));
    let before = view.clone();
    let mut ids = IdSource::new(Seed(1));
    let mut lost = Plan::new(before, Timestamp(9));
    statuses.plan(&mut lost, &mut Context { now: Timestamp(9), ids: &mut ids });
    assert_eq!((lost.len(), commit(&mut statuses, &mut view)), (1, 0));
    statuses.replan();
    assert_eq!(commit(&mut statuses, &mut view), 1);
}

proptest! {
    #[test]
    fn states_only_grow_and_the_first_end_stands(
        states in proptest::collection::vec(0..TaskState::ALL.len(), 0..12),
        commits in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let (mut statuses, mut view) = (Statuses::default(), world());
        for (state, now) in states.into_iter().zip(commits) {
            let before = view.task(&"t".into()).unwrap().status.clone();
            take(&mut statuses, &view, says(TaskState::ALL[state]));
            if now {
                commit(&mut statuses, &mut view);
            }
            let after = view.task(&"t".into()).unwrap().status.clone();
            prop_assert!(after.state >= before.state);
            prop_assert!(!before.state.is_terminal() || after == before);
        }
    }
}
