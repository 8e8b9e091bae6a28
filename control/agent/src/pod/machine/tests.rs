use super::super::facts::{Exit, Failure, Running, StartFailure};
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pod(policy: RestartPolicy) -> View {
    View {
        stop: None,
        grace: SignedDuration::from_secs(30),
        restart_policy: policy,
        init: Vec::new(),
        containers: vec!["web".to_owned()],
    }
}

fn stopping(stop: Stop, grace: i64) -> View {
    View {
        stop: Some(stop),
        grace: SignedDuration::from_secs(grace),
        ..pod(RestartPolicy::Always)
    }
}

fn ready() -> Sandbox {
    Sandbox::Ready { ips: Vec::new() }
}

fn facts(sandbox: Sandbox, containers: &[(&str, ContainerFacts)]) -> Facts {
    Facts {
        sandbox,
        containers: containers
            .iter()
            .map(|(name, facts)| ((*name).to_owned(), facts.clone()))
            .collect(),
        ..Facts::default()
    }
}

fn running() -> ContainerFacts {
    ContainerFacts {
        attempt: 1,
        running: Some(Running {
            started_at: at(0),
            ready: true,
            signalled_at: None,
            killed: false,
        }),
        ..ContainerFacts::default()
    }
}

fn signalled(when: i64, killed: bool) -> ContainerFacts {
    let mut facts = running();
    if let Some(running) = &mut facts.running {
        running.signalled_at = Some(at(when));
        running.killed = killed;
    }
    facts
}

fn exited(code: i32, when: i64, streak: u32) -> ContainerFacts {
    ContainerFacts {
        attempt: streak,
        exit: Some(Exit {
            code,
            signal: None,
            reason: "Error".to_owned(),
            message: None,
            started_at: at(0),
            finished_at: at(when),
        }),
        streak,
        ..ContainerFacts::default()
    }
}

fn refused(attempts: u32, when: i64) -> ContainerFacts {
    ContainerFacts {
        start_failure: Some(StartFailure {
            reason: "ErrImageNeverPull".to_owned(),
            failure: failure(attempts, when),
        }),
        ..ContainerFacts::default()
    }
}

fn failure(attempts: u32, when: i64) -> Failure {
    Failure {
        message: "no".to_owned(),
        at: at(when),
        attempts,
    }
}

fn act(actions: &[Action]) -> Plan {
    Plan {
        actions: actions.to_vec(),
        wake_at: None,
    }
}

fn wake(when: i64) -> Plan {
    Plan {
        actions: Vec::new(),
        wake_at: Some(at(when)),
    }
}

fn web(make: impl Fn(String) -> Action) -> Plan {
    act(&[make("web".to_owned())])
}

/// All cases are asked at second 100.
#[test]
fn table() {
    use RestartPolicy::{Always, Never, OnFailure};
    let absent = |failure| Sandbox::Absent { failure };
    let nothing = || act(&[]);
    let with = |c: ContainerFacts| facts(ready(), &[("web", c)]);
    let bare = |failure| facts(absent(failure), &[]);
    let cases: Vec<(&str, View, Facts, Plan)> = vec![
        (
            "a new pod",
            pod(Always),
            bare(None),
            act(&[Action::SetUpSandbox]),
        ),
        (
            "network just failed",
            pod(Always),
            bare(Some(failure(3, 99))),
            wake(103),
        ),
        (
            "network failed a while ago",
            pod(Always),
            bare(Some(failure(3, 96))),
            act(&[Action::SetUpSandbox]),
        ),
        (
            "sandbox ready",
            pod(Always),
            facts(ready(), &[]),
            web(Action::Start),
        ),
        ("running", pod(Always), with(running()), nothing()),
        (
            "first crash",
            pod(Always),
            with(exited(1, 100, 1)),
            web(Action::Start),
        ),
        (
            "second crash",
            pod(Always),
            with(exited(1, 95, 2)),
            wake(105),
        ),
        (
            "second crash, waited",
            pod(Always),
            with(exited(1, 90, 2)),
            web(Action::Start),
        ),
        (
            "completed under Always",
            pod(Always),
            with(exited(0, 100, 1)),
            web(Action::Start),
        ),
        (
            "failed under OnFailure",
            pod(OnFailure),
            with(exited(1, 100, 1)),
            web(Action::Start),
        ),
        (
            "completed under OnFailure",
            pod(OnFailure),
            with(exited(0, 100, 1)),
            act(&[Action::TearDownSandbox]),
        ),
        (
            "failed under Never",
            pod(Never),
            with(exited(1, 100, 1)),
            act(&[Action::TearDownSandbox]),
        ),
        (
            "ended, nothing left",
            pod(Never),
            facts(absent(None), &[("web", exited(1, 100, 1))]),
            nothing(),
        ),
        (
            "start just refused",
            pod(Always),
            with(refused(1, 95)),
            wake(105),
        ),
        (
            "start refused a while ago",
            pod(Always),
            with(refused(1, 90)),
            web(Action::Start),
        ),
        (
            "sandbox lost under a running container",
            pod(Always),
            facts(absent(None), &[("web", running())]),
            act(&[Action::Kill("web".to_owned()), Action::SetUpSandbox]),
        ),
        (
            "deleted",
            stopping(Stop::Deleted, 30),
            with(running()),
            web(Action::Terminate),
        ),
        (
            "deleted at once",
            stopping(Stop::Deleted, 0),
            with(running()),
            web(Action::Kill),
        ),
        (
            "grace runs",
            stopping(Stop::Deleted, 30),
            with(signalled(80, false)),
            wake(110),
        ),
        (
            "grace is over",
            stopping(Stop::Deleted, 30),
            with(signalled(70, false)),
            web(Action::Kill),
        ),
        (
            "killed, not gone yet",
            stopping(Stop::Deleted, 30),
            with(signalled(70, true)),
            nothing(),
        ),
        (
            "deleted, ended",
            stopping(Stop::Deleted, 30),
            with(exited(0, 99, 1)),
            act(&[Action::TearDownSandbox]),
        ),
        (
            "deleted, cleaned",
            stopping(Stop::Deleted, 30),
            bare(None),
            act(&[Action::DeleteFromApi]),
        ),
        (
            "gone",
            stopping(Stop::Gone, 30),
            with(running()),
            web(Action::Terminate),
        ),
        (
            "gone, cleaned",
            stopping(Stop::Gone, 30),
            bare(None),
            act(&[Action::Forget]),
        ),
        (
            "evicted",
            stopping(Stop::Finished, 30),
            with(running()),
            web(Action::Terminate),
        ),
        (
            "evicted, cleaned",
            stopping(Stop::Finished, 30),
            bare(None),
            nothing(),
        ),
    ];
    for (name, view, facts, want) in cases {
        assert_eq!(decide(&view, &facts, at(100)), want, "{name}");
    }
}

#[test]
fn what_cannot_be_removed_is_tried_again() {
    let mut left = facts(ready(), &[]);
    left.teardown_failure = Some(failure(1, 100));
    assert_eq!(decide(&stopping(Stop::Gone, 30), &left, at(100)), wake(101));
    let mut kept = facts(Sandbox::default(), &[]);
    kept.api_failure = Some(failure(2, 100));
    assert_eq!(
        decide(&stopping(Stop::Deleted, 30), &kept, at(100)),
        wake(102)
    );
    assert_eq!(
        decide(&stopping(Stop::Gone, 30), &kept, at(100)),
        act(&[Action::Forget])
    );
}

#[test]
fn init_containers_come_first_and_in_order() {
    let mut view = pod(RestartPolicy::Always);
    view.init = vec!["one".to_owned(), "two".to_owned()];
    let plan =
        |containers: &[(&str, ContainerFacts)]| decide(&view, &facts(ready(), containers), at(100));
    let start = |name: &str| act(&[Action::Start(name.to_owned())]);
    assert_eq!(plan(&[]), start("one"));
    assert_eq!(plan(&[("one", running())]), act(&[]));
    assert_eq!(plan(&[("one", exited(1, 100, 1))]), start("one"));
    assert_eq!(plan(&[("one", exited(0, 100, 1))]), start("two"));
    let done = [("one", exited(0, 100, 1)), ("two", exited(0, 100, 1))];
    assert_eq!(plan(&done), start("web"));

    let mut never = view.clone();
    never.restart_policy = RestartPolicy::Never;
    let failed = facts(ready(), &[("one", exited(1, 100, 1))]);
    assert_eq!(outcome(&never, &failed), Some(Outcome::Failed));
    assert_eq!(
        decide(&never, &failed, at(100)),
        act(&[Action::TearDownSandbox])
    );
}

#[test]
fn outcomes_of_several_containers() {
    use RestartPolicy::{Always, Never, OnFailure};
    for (policy, a, b, want) in [
        (Always, exited(0, 9, 1), exited(0, 9, 1), None),
        (
            OnFailure,
            exited(0, 9, 1),
            exited(0, 9, 1),
            Some(Outcome::Succeeded),
        ),
        (OnFailure, exited(0, 9, 1), exited(1, 9, 1), None),
        (
            Never,
            exited(0, 9, 1),
            exited(1, 9, 1),
            Some(Outcome::Failed),
        ),
        (Never, exited(0, 9, 1), running(), None),
    ] {
        let mut view = pod(policy);
        view.containers = vec!["a".to_owned(), "b".to_owned()];
        let facts = facts(ready(), &[("a", a), ("b", b)]);
        assert_eq!(outcome(&view, &facts), want, "{policy:?} {facts:?}");
    }
}
