//! The way of a change through the whole system: a cluster comes up, a Deployment grows, the new replica is reached.
//! Beside it what the daemons and the plugin cost.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use seaway_lab::{Daemon, Lab, Mode};

use super::scale_up::{Asker, Readiness, Sample, Subject};
use super::stage::Claim;
use super::{Figures, Stage, Unit, cni};
use crate::workload;

/// The binaries that an installation consists of.
const BINARIES: [&str; 4] = ["seaway", "seaway-proxy", "seaway-overlay", "seaway-cni"];

/// Deployment and Service of `tests/manifests/echo.yaml`.
const ECHO: &str = "echo";

/// Runs the scenario.
pub async fn run(stage: &Stage) -> Result<Figures> {
    let mut figures = Figures::new("walkthrough");
    sizes(&mut figures)?;
    let claim = Claim::new()?;
    let lab = lab_up(stage, &claim, &mut figures).await?;
    resident(&lab, "start", &mut figures)?;
    scale(stage, &lab, &mut figures).await?;
    resident(&lab, "end", &mut figures)?;
    let started = Instant::now();
    claim.down().await?;
    let took = started.elapsed().as_secs_f64();
    figures.value(&[("nodes", "3")], "lab_down", Unit::Seconds, took);
    cni::attach(stage, &mut figures).await?;
    Ok(figures)
}

fn sizes(figures: &mut Figures) -> Result<()> {
    let directory = seaway_lab::topology::binaries()?;
    for name in BINARIES {
        let size = size_of(&directory.join(name))?;
        figures.value(&[("binary", name)], "binary", Unit::Megabytes, size);
    }
    Ok(())
}

fn size_of(path: &Path) -> Result<f64> {
    let file = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(file.len() as f64 / 1e6)
}

/// Several times; the last one stays.
async fn lab_up(stage: &Stage, claim: &Claim, figures: &mut Figures) -> Result<Lab> {
    let times = stage.times(5, 2);
    let mut samples = Vec::new();
    loop {
        let started = Instant::now();
        let lab = claim
            .up(|config| Ok(config.nodes(3, Mode::Iptables).mode("n2", Mode::Ebpf)?))
            .await?;
        let took = started.elapsed().as_secs_f64();
        samples.push(took);
        stage.say(&format!("lab up {} of {times}: {took:.2} s", samples.len()));
        if samples.len() == times {
            figures.median(&[("nodes", "3")], "lab_up", Unit::Seconds, &samples);
            return Ok(lab);
        }
        claim.down().await?;
    }
}

/// Resident memory of every daemon; the median where several nodes have the like.
fn resident(lab: &Lab, when: &str, figures: &mut Figures) -> Result<()> {
    let nodes = &lab.config().nodes;
    let of = |pick: &dyn Fn(&str) -> Daemon, mode: Option<Mode>| -> Result<Vec<f64>> {
        let nodes = nodes.iter().filter(|n| mode.is_none_or(|m| n.mode == m));
        nodes
            .map(|node| megabytes(lab, &pick(&node.name)))
            .collect()
    };
    let mut add = |daemon: &str, mode: Option<Mode>, samples: &[f64]| {
        let mode = mode.map(|mode| mode.to_string());
        let mut labels = vec![("daemon", daemon)];
        labels.extend(mode.as_deref().map(|mode| ("mode", mode)));
        labels.push(("when", when));
        figures.median(&labels, "rss", Unit::Megabytes, samples);
    };
    add("server", None, &[megabytes(lab, &Daemon::Server)?]);
    add("agent", None, &of(&|n| Daemon::Agent(n.into()), None)?);
    add("overlay", None, &of(&|n| Daemon::Overlay(n.into()), None)?);
    for mode in [Mode::Iptables, Mode::Ebpf] {
        let samples = of(&|n| Daemon::Proxy(n.into()), Some(mode))?;
        add("proxy", Some(mode), &samples);
    }
    Ok(())
}

fn megabytes(lab: &Lab, daemon: &Daemon) -> Result<f64> {
    let kib = daemon.resident_kib(lab.name())?;
    let kib = kib.with_context(|| format!("{} does not run", daemon.id()))?;
    Ok(kib as f64 * 1024.0 / 1e6)
}

async fn scale(stage: &Stage, lab: &Lab, figures: &mut Figures) -> Result<()> {
    workload::deploy(lab).await.context("kubectl apply")?;
    // One client for each mode: both ask during the same scale-up, so that they differ in nothing else.
    let mut clients: Vec<Asker> = Vec::new();
    for node in &lab.config().nodes {
        let name = node.mode.to_string();
        if clients.iter().all(|client| client.name != name) {
            let place = lab.pod(&format!("client-{}", node.name)).await?;
            clients.push(Asker { name, place });
        }
    }
    let readiness = Readiness::watch(lab.client().await?, ECHO);
    let subject = Subject {
        lab,
        name: ECHO,
        service: workload::cluster_ip(lab, ECHO).await?,
        clients: &clients,
        readiness: &readiness,
    };
    let times = stage.times(30, 5);
    let mut rows: Vec<Vec<Sample>> = Vec::new();
    for n in 1..=times {
        let row = subject.scale_up().await.context("scale up");
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                eprintln!("{}", lab.diagnose().await);
                return Err(error);
            }
        };
        let text: Vec<String> = clients
            .iter()
            .zip(&row)
            .map(|(client, sample)| {
                let Sample { scale, ready, .. } = sample;
                format!("{} {scale:.0} ms ({ready:.1} after ready)", client.name)
            })
            .collect();
        stage.say(&format!("scale-up {n} of {times}: {}", text.join(", ")));
        rows.push(row);
    }
    for (index, client) in clients.iter().enumerate() {
        let labels = [("mode", client.name.as_str())];
        let column = |pick: fn(&Sample) -> f64| -> Vec<f64> {
            rows.iter()
                .filter_map(|row| row.get(index))
                .map(pick)
                .collect()
        };
        for (name, pick) in [
            ("scale_to_first_packet", (|s| s.scale) as fn(&Sample) -> f64),
            ("write_to_first_packet", |s| s.write),
            ("ready_to_first_packet", |s| s.ready),
        ] {
            figures.percentiles(&labels, name, Unit::Milliseconds, &column(pick));
        }
        let failures: f64 = column(|s| s.failures as f64).iter().sum();
        if failures > 0.0 {
            stage.say(&format!("{}: {failures} connections failed", client.name));
        }
    }
    Ok(())
}
