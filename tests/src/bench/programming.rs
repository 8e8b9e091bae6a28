//! What it costs a proxy to keep a kernel in step with many Services.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use tokio::time::sleep;

use super::first_answer::{milliseconds, now};
use super::one_node::pod::tag;
use super::one_node::running::Running;
use super::one_node::services::targets;
use super::one_node::traffic::{Ask, Told};
use super::one_node::usage::Usage;
use super::one_node::wiring::Role;
use super::one_node::{Bench, BenchArgs, Measured, Pod};
use super::statistics::median;
use super::{Figures, Stage, Unit};

/// Other changes a second, while the disturbed changes are measured.
const CHURN: u32 = 10;

/// For one change to take effect.
const CHANGE_LIMIT_MS: u64 = 120_000;

/// How long a proxy at rest is watched: as long as the longest pause between two of its own looks at what is under it, of those
/// that come often.
const IDLE: Duration = Duration::from_secs(15);

/// For a proxy to come to rest after its start.
const REST: Duration = Duration::from_secs(3);

/// Flags of the scenario.
#[derive(Debug, Args)]
pub struct ProgrammingArgs {
    #[command(flatten)]
    bench: BenchArgs,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &ProgrammingArgs) -> Result<Figures> {
    let contenders = args.bench.contenders().await?;
    let mut figures = Figures::new("programming");
    let mut bench = Bench::new(stage, &args.bench).await?;
    let count = args.bench.services();
    bench.stand.services.plan(count);
    bench.populate(stage, count).await?;
    let measure =
        async |measured: &mut Measured<'_>, client: &mut Pod| measured.programming(client).await;
    bench
        .each(stage, &args.bench, &contenders, &mut figures, measure)
        .await?;
    Ok(figures)
}

/// How long one took, in milliseconds since it was sent.
struct Change {
    first_packet: f64,
    /// The API server's part: until it has answered. A watch may be told before that.
    api_write: f64,
}

impl<'a> Measured<'a> {
    async fn programming(&mut self, client: &mut Pod) -> Result<()> {
        let mut running = self.start(client).await?;
        sleep(REST).await;
        let rested = running.usage()?;
        self.resident("start", rested);
        let idle = IDLE * self.stage.times(2, 1) as u32;
        sleep(idle).await;
        let spent = running.usage()?.cpu_ms - rested.cpu_ms;
        let idle = spent / idle.as_secs_f64();
        self.named("idle_cpu_ms_per_s", Unit::Milliseconds, idle);

        self.undisturbed(client, &mut running, idle).await?;
        self.disturbed(client, &mut running, idle).await?;

        let usage = running.usage()?;
        self.resident("end", usage);
        let (labels, peak) = (self.labels, usage.peak_rss_mb);
        self.figures
            .value(labels, "peak_rss", Unit::Megabytes, peak);
        if self.contender.writes_maps() {
            self.named("map_mb", Unit::Megabytes, running.map_mb()?);
        }
        running.stop().await
    }

    /// Several times, from empty rules; the last one stays.
    async fn start(&mut self, client: &mut Pod) -> Result<Running<'a>> {
        let times = self.stage.times(3, 1);
        let (mut took, mut cpu, mut after) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let (mut running, seconds) = self.stand.cold_start(client, self.contender).await?;
            let spent = running.usage()?.cpu_ms / 1e3;
            took.push(seconds);
            cpu.push(spent);
            if self.contender.writes_maps() {
                after.push(seconds - running.lists_seconds()?);
            }
            let number = took.len();
            self.say(&format!(
                "start {number} of {times}: {seconds:.2} s, {spent:.2} s of processor time"
            ));
            if number == times {
                let figures = &mut self.figures;
                figures.median(self.labels, "cold_start", Unit::Seconds, &took);
                figures.median(self.labels, "cold_start_cpu", Unit::Seconds, &cpu);
                if !after.is_empty() {
                    figures.median(self.labels, "cold_start_after_lists", Unit::Seconds, &after);
                }
                return Ok(running);
            }
            running.stop().await?;
        }
    }

    /// `idle` is what it takes while nothing changes, in milliseconds of processor time a second.
    async fn undisturbed(
        &mut self,
        client: &mut Pod,
        running: &mut Running<'_>,
        idle: f64,
    ) -> Result<()> {
        let count = self.stage.times(50, 10);
        let writes_maps = self.contender.writes_maps();
        let counted = writes_maps.then(|| running.syncs()).transpose()?;
        let before = self.settled(client, running).await?;
        let begun = Instant::now();
        let samples = self.changes(client, count).await?;
        let after = running.usage()?;
        let idle = idle * begun.elapsed().as_secs_f64();
        if let Some((syncs, seconds)) = counted {
            let now = running.syncs()?;
            let each = (now.1 - seconds) * 1e3 / (now.0 - syncs);
            self.named("event_to_map_write_ms", Unit::Milliseconds, each);
        }
        let per_change = |total: f64| total / count as f64;
        self.changed("", &samples);
        let spent = after.cpu_ms - before.cpu_ms;
        self.cpu_per_change("", spent, idle, count);
        if self.contender.tells_through_pipes() {
            let bytes = per_change((after.written - before.written) as f64);
            self.named("bytes_per_change", Unit::Bytes, bytes);
        }
        Ok(())
    }

    async fn disturbed(
        &mut self,
        client: &mut Pod,
        running: &mut Running<'_>,
        idle: f64,
    ) -> Result<()> {
        let count = self.stage.times(50, 10);
        let before = self.settled(client, running).await?;
        let written = AtomicUsize::new(0);
        let begun = Instant::now();
        let samples = tokio::select! {
            samples = self.changes(client, count) => samples?,
            ended = self.stand.services.churn(CHURN, &written) => {
                ended?;
                bail!("the other changes ended by themselves");
            }
        };
        let spent = running.usage()?.cpu_ms - before.cpu_ms;
        self.changed("_churn", &samples);
        let all = count + written.load(Ordering::Relaxed);
        let idle = idle * begun.elapsed().as_secs_f64();
        self.cpu_per_change("_churn", spent, idle, all);
        Ok(())
    }

    /// What changes have cost: without what the time they took would have cost anyway, and with it. Milliseconds of
    /// processor time.
    fn cpu_per_change(&mut self, name: &str, spent: f64, idle: f64, count: usize) {
        let count = count as f64;
        for (of, cpu) in [("", (spent - idle).max(0.0)), ("_with_idle", spent)] {
            let metric = format!("cpu_ms_per_change{name}{of}");
            self.named(&metric, Unit::Milliseconds, cpu / count);
        }
    }

    /// The middle target at its first backend, and nothing going on.
    async fn settled(&self, client: &mut Pod, running: &mut Running<'_>) -> Result<Usage> {
        self.move_to(client, Role::First).await?;
        sleep(REST).await;
        running.usage()
    }

    /// One change after the other. There is time between two, and never the same, so that a proxy that waits some time
    /// after each is measured at rest.
    async fn changes(&self, client: &mut Pod, count: usize) -> Result<Vec<Change>> {
        let mut samples = Vec::with_capacity(count);
        for number in 0..count {
            let pause = 1300 + (number * 211) % 700;
            sleep(Duration::from_millis(pause as u64)).await;
            let to = match number % 2 {
                0 => Role::Second,
                _ => Role::First,
            };
            samples.push(self.move_to(client, to).await?);
        }
        Ok(samples)
    }

    async fn move_to(&self, client: &mut Pod, to: Role) -> Result<Change> {
        let services = &self.stand.services;
        let [_, middle, _] = targets(services.count());
        let ask = Ask::Until {
            targets: services.addresses_of(&[middle])?,
            from: Some(tag(to)),
            pause_us: 1_000,
            limit_ms: CHANGE_LIMIT_MS,
        };
        client.ask(&ask).await?;
        let begun = now();
        services.point(middle, to.address()).await?;
        let api_write = milliseconds(begun, now());
        match client.told().await? {
            Told::At { nanoseconds, .. } => Ok(Change {
                first_packet: milliseconds(begun, nanoseconds.into()),
                api_write,
            }),
            other => bail!("the client told {other:?}"),
        }
    }

    fn changed(&mut self, name: &str, changes: &[Change]) {
        let column = |pick: fn(&Change) -> f64| changes.iter().map(pick).collect::<Vec<_>>();
        let (packets, writes) = (column(|c| c.first_packet), column(|c| c.api_write));
        for (name, samples) in [
            (format!("change_to_first_packet{name}"), &packets),
            (format!("api_write{name}"), &writes),
        ] {
            let unit = Unit::Milliseconds;
            self.figures.percentiles(self.labels, &name, unit, samples);
            let worst = samples.iter().copied().fold(0.0, f64::max);
            let middle = median(samples).unwrap_or_default();
            self.say(&format!(
                "{name}: {middle:.1} ms, at worst {worst:.1} ms, of {}",
                samples.len()
            ));
        }
    }

    fn resident(&mut self, when: &'static str, usage: Usage) {
        let mut labels = self.labels.to_vec();
        labels.push(("when", when));
        self.figures
            .value(&labels, "rss", Unit::Megabytes, usage.rss_mb);
    }

    fn named(&mut self, metric: &str, unit: Unit, value: f64) {
        self.say(&format!("{metric}: {value:.1}"));
        self.figures.named(self.labels, metric, unit, value);
    }
}
