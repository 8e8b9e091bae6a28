//! `seaway-proxy flows`: what happens to flows, while it happens, and those that there are.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use seaway_ebpf_abi::event::{WANT_DROPS, WANT_FLOWS};
use seaway_kernel::conntrack::{Conntrack, Family, Filter};
use seaway_model::{InputEvent, Protocol};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::setup::{self, ThisNode};
use crate::cli::{FlowsArgs, Mode};
use crate::config::Config;
use crate::ebpf::{Listening, Pinned};
use crate::flows::{Clock, Entry, Happened, Names};
use crate::privileges;
use crate::reconcile::Deriver;

/// How long to wait for the names of Services before going on without.
const NAMES_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the programs are told that somebody still listens.
const RENEWAL: Duration = Duration::from_secs(1);

/// Prints until told to stop, or lists.
pub async fn flows(args: FlowsArgs) -> anyhow::Result<()> {
    let config = Config::load(args.node.clone())?;
    // What the node does counts, not what a flag says: here is nothing to choose.
    let pinned = Pinned::find(&config.kernel.places.bpffs_root);
    privileges::check(match pinned {
        Some(_) => Mode::Ebpf,
        None => Mode::Iptables,
    })?;
    let mut services = Services::follow(&config).await;
    if let Err(error) = services.wait().await {
        anyhow::ensure!(
            args.service.is_none(),
            "cannot tell which flows are of that Service: {error:#}"
        );
        tracing::warn!("flows are shown without the names of their Services: {error:#}");
    }
    match (pinned, args.list) {
        (Some(pinned), true) => {
            let names = services.names();
            let (entries, now) = pinned.flows()?;
            let ours = entries
                .iter()
                .filter_map(|(key, flow)| Entry::of_table(key, flow, now, names));
            let mut entries: BTreeSet<Entry> = ours.collect();
            // The programs leave it to netfilter.
            entries.extend(tracked(&config, names, &[Protocol::Sctp]).await?);
            print_entries(&args, &entries)
        }
        (None, true) => {
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            print_entries(&args, &tracked(&config, services.names(), &all).await?)
        }
        (Some(pinned), false) => live(&args, &pinned, services).await,
        (None, false) => anyhow::bail!(
            "mode ebpf is not in force on this node (nothing is pinned in {}), and only its programs tell of flows: \
             `flows --list` shows the entries of connection tracking, `conntrack -E` follows them",
            config.kernel.places.bpffs_root.display()
        ),
    }
}

/// The Services of the cluster, followed while we run.
struct Services {
    /// Of the source, in words.
    name: String,
    source: anyhow::Result<mpsc::Receiver<InputEvent>>,
    deriver: Deriver,
    names: Names,
    /// `names` are those of an earlier state.
    stale: bool,
}

impl Services {
    async fn follow(config: &Config) -> Self {
        let opened = async {
            let this = ThisNode::unresolved(config)?;
            let source = setup::source(config).await?;
            let deriver = Deriver::new(this.settings.clone());
            let name = source.to_string();
            let events = setup::follow(source, &this, seaway_cluster::stream);
            anyhow::Ok((name, events, deriver))
        };
        let (name, source, deriver) = match opened.await {
            Ok((name, events, deriver)) => (name, Ok(events), deriver),
            Err(error) => (String::new(), Err(error), Deriver::default()),
        };
        Self {
            name,
            source,
            deriver,
            names: Names::default(),
            stale: false,
        }
    }

    /// Waits until all are known.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let name = self.name.clone();
        let listing = async {
            while !self.deriver.is_synced() {
                self.change().await?;
            }
            anyhow::Ok(())
        };
        let waited = seaway_daemon::answer_of(&name, Some(NAMES_TIMEOUT), listing).await;
        waited.context("Services could not be listed (--kubeconfig, --manifests)")?
    }

    /// Takes in the next change. Cancel-safe.
    async fn change(&mut self) -> anyhow::Result<()> {
        let events = match &mut self.source {
            Ok(events) => events,
            Err(error) => return Err(std::mem::replace(error, anyhow::anyhow!("no source"))),
        };
        let event = events
            .recv()
            .await
            .context("the source of Services ended unexpectedly")?;
        self.stale |= self.deriver.absorb(event);
        Ok(())
    }

    fn names(&mut self) -> &Names {
        if self.stale && self.deriver.is_synced() {
            self.stale = false;
            let _diagnostics = self.deriver.derive();
            self.names = Names::of(self.deriver.desired());
        }
        &self.names
    }
}

/// Prints events as they come.
async fn live(args: &FlowsArgs, pinned: &Pinned, mut services: Services) -> anyhow::Result<()> {
    let wants = if args.drops {
        WANT_DROPS
    } else {
        WANT_DROPS | WANT_FLOWS
    };
    let mut listening = Listening::start(pinned, wants, args.sample)?;
    let mut stop = Box::pin(seaway_daemon::stop_signal().context("cannot handle signals")?);
    let mut renewal = interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut followed = services.source.is_ok();
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = renewal.tick() => match listening.renew()? {
                None => anyhow::bail!("mode ebpf is no longer in force on this node"),
                Some(0) => {}
                Some(lost) => eprintln!("{lost} events were lost: more than can be printed; see --sample"),
            },
            changed = services.change(), if followed => followed = changed.is_ok(),
            events = listening.next() => {
                let clock = Clock { monotonic: Listening::now(), wall: SystemTime::now() };
                let node_netns = listening.node_netns();
                let names = services.names();
                let happened = events
                    .into_iter()
                    .map(|event| Happened::new(&event, clock, names, node_netns))
                    .filter(|happened| args.service.is_none() || happened.service == args.service);
                let lines = happened.map(|h| if args.json { h.json().to_string() } else { h.to_string() });
                if !print(lines)? {
                    return Ok(());
                }
            }
        }
    }
}

/// The entries of connection tracking that are flows of Services.
async fn tracked(
    config: &Config,
    names: &Names,
    protocols: &[Protocol],
) -> anyhow::Result<BTreeSet<Entry>> {
    let this = ThisNode::unresolved(config)?;
    let own = setup::own_addresses().await?;
    let served = this.node_port_addresses;
    let is_node = |ip: &IpAddr| {
        own.contains(ip)
            && served
                .as_ref()
                .is_none_or(|ranges| ranges.iter().any(|range| range.contains(*ip)))
    };
    let mut entries = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        for protocol in protocols {
            let filter = Filter::new(family, protocol.number());
            // An error leaves half an answer in the socket.
            Conntrack::open()?.list(&filter, |flows| {
                let of_services = flows
                    .iter()
                    .filter_map(|flow| Entry::of_conntrack(flow, names, is_node));
                entries.extend(of_services);
            })?;
        }
    }
    Ok(entries)
}

fn print_entries(args: &FlowsArgs, entries: &BTreeSet<Entry>) -> anyhow::Result<()> {
    let shown = entries
        .iter()
        .filter(|entry| args.service.is_none() || entry.service == args.service);
    print(shown.map(|entry| match args.json {
        true => Value::to_string(&entry.json()),
        false => entry.to_string(),
    }))?;
    Ok(())
}

/// Prints lines at once; `false` if nobody reads any more, as behind `head`.
fn print(mut lines: impl Iterator<Item = String>) -> anyhow::Result<bool> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = lines.try_for_each(|line| writeln!(out, "{line}"));
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write"),
    }
}
