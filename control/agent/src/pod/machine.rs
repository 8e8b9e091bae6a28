//! What to do next for a Pod. Pure: facts and a clock in, actions and the next time to look out.
//!
//! The shell performs the actions, updates the facts and asks again; every decision can therefore be made from
//! what is on disk after `kill -9` as well.

use jiff::{SignedDuration, Timestamp};

use super::backoff::{after, crash_delay, retry_delay};
use super::facts::{ContainerFacts, Facts, Sandbox};
use super::view::{RestartPolicy, Stop, View};

#[cfg(test)]
mod tests;

/// One step for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Namespace and network.
    SetUpSandbox,
    /// Start (or restart) a container.
    Start(String),
    /// Ask a container's process to end.
    Terminate(String),
    /// End a container's processes.
    Kill(String),
    /// Network, namespace and cgroup go.
    TearDownSandbox,
    /// Everything has ended: the object may go.
    DeleteFromApi,
    /// Nothing is left: drop the records, and the task ends.
    Forget,
}

/// What to do now, and when to look again at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Does `action` now, or wakes when `due` has come.
    fn act_at(&mut self, action: Action, due: Timestamp, now: Timestamp) {
        if due <= now {
            self.act(action);
        } else {
            self.wake(due);
        }
    }
}

/// The end state of a Pod whose containers will not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
}

/// Decides the next steps.
pub fn decide(view: &View, facts: &Facts, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let stop = view
        .stop
        .or_else(|| outcome(view, facts).map(|_| Stop::Finished));
    match stop {
        Some(stop) => wind_down(stop, view, facts, now, &mut plan),
        None => run(view, facts, now, &mut plan),
    }
    plan
}

/// Whether the Pod has come to its end by itself.
pub fn outcome(view: &View, facts: &Facts) -> Option<Outcome> {
    let exit_code = |name: &String| {
        let facts = facts.containers.get(name)?;
        facts
            .exit
            .as_ref()
            .filter(|_| facts.running.is_none())
            .map(|exit| exit.code)
    };
    if view.restart_policy == RestartPolicy::Always || view.containers.is_empty() {
        return None;
    }
    let failed_init = view
        .init
        .iter()
        .any(|name| exit_code(name).is_some_and(|code| code != 0));
    if failed_init && view.restart_policy == RestartPolicy::Never {
        return Some(Outcome::Failed);
    }
    let codes: Option<Vec<i32>> = view.containers.iter().map(exit_code).collect();
    let failed = codes?.iter().any(|code| *code != 0);
    match view.restart_policy {
        RestartPolicy::Never if failed => Some(Outcome::Failed),
        _ if failed => None,
        _ => Some(Outcome::Succeeded),
    }
}

/// When an exited container may start again; `None` if never.
pub fn restart_at(policy: RestartPolicy, container: &ContainerFacts) -> Option<Timestamp> {
    let exit = container.exit.as_ref()?;
    let again = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit.code != 0,
        RestartPolicy::Never => false,
    };
    again.then(|| after(exit.finished_at, crash_delay(container.streak)))
}

fn run(view: &View, facts: &Facts, now: Timestamp, plan: &mut Plan) {
    if let Sandbox::Absent { failure } = &facts.sandbox {
        // Its processes cannot outlive a namespace that is lost; what still runs there is cut off for good.
        for name in running(facts) {
            plan.act(Action::Kill(name));
        }
        let due = failure.as_ref().map_or(now, |failure| {
            after(failure.at, retry_delay(failure.attempts))
        });
        plan.act_at(Action::SetUpSandbox, due, now);
        return;
    }
    // Init containers run one after the other, each to success.
    let init_policy = match view.restart_policy {
        RestartPolicy::Never => RestartPolicy::Never,
        _ => RestartPolicy::OnFailure,
    };
    // Once a main container has started, the init containers are history.
    let initialized = view
        .containers
        .iter()
        .any(|name| facts.containers.get(name).is_some_and(|c| c.attempt > 0));
    for name in view.init.iter().filter(|_| !initialized) {
        let container = facts.containers.get(name);
        let done = container
            .and_then(|c| c.exit.as_ref())
            .is_some_and(|exit| exit.code == 0);
        if !done {
            start_if_due(name, container, init_policy, now, plan);
            return;
        }
    }
    for name in &view.containers {
        start_if_due(
            name,
            facts.containers.get(name),
            view.restart_policy,
            now,
            plan,
        );
    }
}

fn start_if_due(
    name: &str,
    container: Option<&ContainerFacts>,
    policy: RestartPolicy,
    now: Timestamp,
    plan: &mut Plan,
) {
    let start = || Action::Start(name.to_owned());
    let Some(container) = container else {
        plan.act(start());
        return;
    };
    if container.running.is_some() {
        return;
    }
    if let Some(refused) = &container.start_failure {
        let failure = &refused.failure;
        plan.act_at(
            start(),
            after(failure.at, start_delay(failure.attempts)),
            now,
        );
    } else if container.exit.is_none() {
        plan.act(start());
    } else if let Some(due) = restart_at(policy, container) {
        plan.act_at(start(), due, now);
    }
}

/// A start that was refused is tried as a crash would be, but never at once: nothing has changed.
fn start_delay(attempts: u32) -> SignedDuration {
    crash_delay(attempts.saturating_add(1))
}

fn wind_down(stop: Stop, view: &View, facts: &Facts, now: Timestamp, plan: &mut Plan) {
    let mut any_running = false;
    for (name, container) in &facts.containers {
        let Some(running) = &container.running else {
            continue;
        };
        any_running = true;
        let deadline = running.signalled_at.map(|at| after(at, view.grace));
        if running.killed {
            continue;
        }
        if view.grace.is_zero() || deadline.is_some_and(|deadline| deadline <= now) {
            plan.act(Action::Kill(name.clone()));
        } else if let Some(deadline) = deadline {
            plan.wake(deadline);
        } else {
            plan.act(Action::Terminate(name.clone()));
        }
    }
    if any_running {
        return;
    }
    let retry = |failure: &Option<super::facts::Failure>| {
        failure.as_ref().map_or(now, |failure| {
            after(failure.at, retry_delay(failure.attempts))
        })
    };
    match (&facts.sandbox, stop) {
        (Sandbox::Ready { .. }, _) => {
            plan.act_at(Action::TearDownSandbox, retry(&facts.teardown_failure), now);
        }
        (_, Stop::Deleted) => plan.act_at(Action::DeleteFromApi, retry(&facts.api_failure), now),
        (_, Stop::Gone) => plan.act(Action::Forget),
        (_, Stop::Finished) => {}
    }
}

fn running(facts: &Facts) -> Vec<String> {
    facts
        .containers
        .iter()
        .filter(|(_, c)| c.running.as_ref().is_some_and(|running| !running.killed))
        .map(|(name, _)| name.clone())
        .collect()
}
