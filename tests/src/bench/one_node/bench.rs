//! What the scenarios have in common: who takes part, on which node, against which API server.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use seaway_kernel::Capabilities;
use seaway_lab::Mode;

use super::super::Stage;
use super::super::first_answer::{milliseconds, now};
use super::contender::{Contender, Nat, Peer, Variant};
use super::control::Control;
use super::pod::Pod;
use super::running::Running;
use super::services::{Services, targets};
use super::traffic::{Ask, Told};
use super::wiring::{Node, Role};

/// For a proxy to serve everything after its start.
const START_LIMIT_MS: u64 = 600_000;

/// Flags of both scenarios.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Mode of our proxy
    #[arg(long, default_value_t = Mode::Iptables)]
    mode: Mode,

    /// How many Services there are
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=30_000))]
    services: u32,

    /// How many endpoints each of them has, but for three that are probed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    endpoints: u32,

    /// Which program is called iptables [default: as on this machine]
    #[arg(long)]
    variant: Option<Variant>,

    /// The --iptables-nat-variant of our proxy [default: its own]
    #[arg(long)]
    nat: Option<Nat>,

    /// Another proxy, measured in our place in the same run: kube-proxy=/PATH,mode=iptables; may be repeated
    #[arg(long, value_name = "NAME=/PATH,mode=MODE")]
    peer: Vec<Peer>,

    /// An API server that runs, instead of one of our own; its credentials must allow everything
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl BenchArgs {
    /// How many Services there are.
    pub fn services(&self) -> usize {
        self.services as usize
    }

    /// As labels show it.
    pub fn endpoints(&self) -> String {
        self.endpoints.to_string()
    }

    async fn variant(&self) -> Result<Variant> {
        if let Some(variant) = self.variant {
            return Ok(variant);
        }
        let machine = Capabilities::probe().await?;
        let program = machine.iptables.context("iptables is not installed")?;
        Ok(program.variant.into())
    }

    /// Our proxy in both modes, eBPF first; none if it is not measured in that mode.
    pub async fn both_modes(&self) -> Result<Option<[Contender; 3]>> {
        if self.mode != Mode::Ebpf {
            return Ok(None);
        }
        let variant = self.variant().await?;
        let of = |mode: Mode| Contender::ours(&mode.to_string(), variant, None);
        let ebpf = of(Mode::Ebpf)?;
        let at_driver = ebpf.clone().at_driver();
        Ok(Some([ebpf, at_driver, of(Mode::Iptables)?]))
    }

    /// Ours, then its peers.
    pub async fn contenders(&self) -> Result<Vec<Contender>> {
        let variant = self.variant().await?;
        let mut all = vec![Contender::ours(&self.mode.to_string(), variant, self.nat)?];
        let peers = self.peer.iter().cloned();
        all.extend(peers.map(|peer| Contender::other(peer, variant)));
        all.iter().try_for_each(Contender::check)?;
        Ok(all)
    }
}

/// Everything but the proxy.
pub struct Bench {
    // In this order: what runs on the node ends before the node goes.
    pub client: Pod,
    pub stand: Stand,
}

/// Everything that does not change while a proxy is measured.
pub struct Stand {
    _backends: [Pod; 3],
    pub control: Control,
    pub services: Services,
    pub node: Node,
}

impl Bench {
    /// Sets up a node, its pods and an API server without Services.
    pub async fn new(stage: &Stage, args: &BenchArgs) -> Result<Self> {
        stage.say("node, pods, API server");
        let node = Node::new()?;
        let control = Control::new(&node, args.kubeconfig.as_deref()).await?;
        Ok(Self {
            client: Pod::start(&node, Role::Client).await?,
            stand: Stand {
                _backends: [
                    Pod::start(&node, Role::First).await?,
                    Pod::start(&node, Role::Second).await?,
                    Pod::start(&node, Role::Crowd).await?,
                ],
                services: Services::new(&control, args.endpoints as usize),
                control,
                node,
            },
        })
    }

    /// Creates Services until there are so many. The targets of `count` must have been planned.
    pub async fn populate(&mut self, stage: &Stage, count: usize) -> Result<()> {
        let services = &mut self.stand.services;
        let begun = now();
        services.create(services.count()..count).await?;
        let took = milliseconds(begun, now()) / 1e3;
        stage.say(&format!("{count} Services are in the API: {took:.1} s"));
        Ok(())
    }
}

impl Stand {
    /// Starts a proxy and waits until all Services are served; answers how many seconds that took. Three of them are
    /// asked all the time; then every one is asked once, and again for as long as one is silent.
    pub async fn cold_start<'a>(
        &'a self,
        client: &mut Pod,
        contender: &'a Contender,
    ) -> Result<(Running<'a>, f64)> {
        let all = self.services.addresses();
        let ask = Ask::Until {
            targets: self.services.addresses_of(&targets(all.len()))?,
            from: None,
            pause_us: 5_000,
            limit_ms: START_LIMIT_MS,
        };
        client.ask(&ask).await?;
        let begun = now();
        let mut running = contender.start(&self.node, &self.control)?;
        let served = tokio::select! {
            told = client.told() => told,
            died = ended(&mut running) => Err(died),
        };
        let mut served = match served.with_context(|| running.log())? {
            Told::At { nanoseconds, .. } => u128::from(nanoseconds),
            other => bail!("the client told {other:?}"),
        };
        let limit = begun + u128::from(START_LIMIT_MS) * 1_000_000;
        loop {
            let targets = all.clone();
            let silent = match client.answer(&Ask::Silent { targets }).await? {
                Told::Silent(silent) => silent,
                other => bail!("the client told {other:?}"),
            };
            if silent.is_empty() {
                return Ok((running, milliseconds(begun, served) / 1e3));
            }
            served = now();
            ensure!(
                served < limit,
                "{} Services are not served, {:?} is one:\n{}",
                silent.len(),
                silent.first(),
                running.log()
            );
        }
    }
}

/// Resolves when the proxy has ended by itself.
async fn ended(running: &mut Running<'_>) -> anyhow::Error {
    loop {
        if let Err(error) = running.usage() {
            return error;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
