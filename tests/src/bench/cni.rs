//! The plugin alone, on an idle node: one pod after the other, and fifty at once.

use anyhow::{Context as _, Result};

use super::plugin::{Namespace, Node, Verb};
use super::{Figures, Stage, Unit};

/// Pods that come at the same moment, as after a reboot.
const AT_ONCE: usize = 50;

/// Ticks of the processor times in `/proc` (`USER_HZ`, the same on every architecture that we build for).
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs the scenario.
pub async fn run(stage: &Stage) -> Result<Figures> {
    let mut figures = Figures::new("cni");
    attach(stage, &mut figures).await?;
    Ok(figures)
}

/// ADD and DEL, measured from the start of the plugin's process to its end.
pub async fn attach(stage: &Stage, figures: &mut Figures) -> Result<()> {
    let count = stage.times(100, 20);
    stage.say(&format!("cni: {count} ADD, {count} DEL, one by one"));
    let node = Node::new().await?;
    let pods = namespaces(count, "pod")?;
    // The first calls pay for what is not in memory yet.
    in_turn(&node, Verb::Version, pods.get(..3).unwrap_or_default()).await?;

    let before = cpu_of_children()?;
    let version = in_turn(&node, Verb::Version, &pods).await?;
    let between = cpu_of_children()?;
    let add = in_turn(&node, Verb::Add, &pods).await?;
    let after = cpu_of_children()?;
    let del = in_turn(&node, Verb::Del, &pods).await?;
    let end = cpu_of_children()?;
    figures.percentiles(&[], "version", Unit::Milliseconds, &version);
    figures.percentiles(&[], "add", Unit::Milliseconds, &add);
    figures.percentiles(&[], "del", Unit::Milliseconds, &del);
    for (call, spent) in [
        ("version", between - before),
        ("add", after - between),
        ("del", end - after),
    ] {
        let name = format!("cpu_ms_per_{call}");
        figures.named(&[], &name, Unit::Milliseconds, spent / count as f64);
    }

    let rounds = stage.times(5, 2);
    stage.say(&format!("cni: {AT_ONCE} ADD at once, {rounds} times"));
    let mut took = Vec::new();
    let pods = namespaces(AT_ONCE, "many")?;
    for _ in 0..rounds {
        took.push(node.call_at_once(Verb::Add, &pods)?.as_secs_f64());
        in_turn(&node, Verb::Del, &pods).await?;
    }
    let name = format!("parallel{AT_ONCE}");
    figures.median(&[], &name, Unit::Seconds, &took);
    Ok(())
}

fn namespaces(count: usize, what: &str) -> Result<Vec<Namespace>> {
    (0..count)
        .map(|n| Namespace::new(&format!("{what}{n}")))
        .collect()
}

/// Milliseconds of each call.
async fn in_turn(node: &Node, verb: Verb, pods: &[Namespace]) -> Result<Vec<f64>> {
    let mut samples = Vec::with_capacity(pods.len());
    for pod in pods {
        samples.push(node.call(verb, pod)?.as_secs_f64() * 1000.0);
        // Here a Ctrl-C is heard.
        tokio::task::yield_now().await;
    }
    Ok(samples)
}

/// Milliseconds of processor time of all children that were waited for so far.
fn cpu_of_children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let ticks = children_ticks(&stat).context("/proc/self/stat is not as proc(5) says")?;
    Ok(ticks as f64 * 1000.0 / TICKS_PER_SECOND)
}

/// Fields 16 and 17 of proc_pid_stat(5), `cutime` and `cstime`; the second field, the name, may have spaces.
fn children_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(13).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_children_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 200 0 0 5 6 70 8 20 0 1 0 99 1 2";
        assert_eq!(children_ticks(stat), Some(78));
        assert_eq!(children_ticks("nonsense"), None);
    }
}
