//! The commands that look and change nothing: `plan`, `dump`, `explain`.

mod dumped;

use std::net::SocketAddr;

use anyhow::Context;
use seaway_model::{Change, Desired, Family, NodeContext, Origin, Packet, Protocol};
use serde::Serialize;

use dumped::{Dumped, Wanted};

use super::setup::{self, LIST_TIMEOUT, ThisNode};
use crate::changes::Changes;
use crate::cli::{DumpArgs, ExplainArgs, Mode, PlanArgs};
use crate::companion::{self, Share};
use crate::config::Config;
use crate::dataplane::Dataplane;
use crate::explain::{Asker, World, explain as explain_packet};
use crate::iptables::{Held, IptablesDataplane};
use crate::privileges;
use crate::reconcile::Deriver;

/// `seaway-proxy plan`.
pub async fn plan(args: PlanArgs) -> anyhow::Result<()> {
    let config = Config::load(args.node)?;
    setup::check_mode(&config)?;
    let (this, deriver) = inputs(&config).await?;
    let (plan, beside) = match config.mode {
        Mode::Iptables => {
            let plane = setup::iptables(&this).await?;
            (planned(plane, deriver.desired()).await?, None)
        }
        Mode::Ebpf => {
            let plane = setup::ebpf(&config, &this)?;
            let plan = planned(plane, deriver.desired()).await?;
            let beside = match left_to_netfilter(&deriver) {
                Some(share) => Some(planned(rules_beside(&this).await?, &share).await?),
                None => None,
            };
            (plan, beside)
        }
    };
    if args.json {
        let beside = beside.map(|beside| beside.changes).unwrap_or_default();
        return print_json(&Told {
            mode: config.mode.as_str(),
            told: plan.changes.and(beside),
        });
    }
    // That of mode ebpf is a list of changes as it is.
    let is_list = config.mode == Mode::Ebpf;
    print!("{}", plan.show(args.diff && !is_list));
    if let Some(beside) = beside {
        print!("# {LEFT_TO_NETFILTER}\n{}", beside.show(args.diff));
    }
    Ok(())
}

/// What a command says of a mode, for programs.
#[derive(Serialize)]
struct Told<T> {
    mode: &'static str,
    #[serde(flatten)]
    told: T,
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// What has to be done, as the data plane would, and as a list of changes.
#[derive(Serialize)]
#[serde(transparent)]
struct Planned {
    #[serde(skip)]
    text: String,
    changes: Changes,
}

impl Planned {
    fn show(&self, diff: bool) -> String {
        match diff {
            true => self.changes.to_string(),
            false => self.text.clone(),
        }
    }
}

async fn planned(mut dataplane: impl Dataplane, desired: &Desired) -> anyhow::Result<Planned> {
    dataplane.observe().await?;
    let plan = dataplane.plan(desired, &Change::Full);
    Ok(Planned {
        text: plan.to_string(),
        changes: dataplane.changes(&plan),
    })
}

const LEFT_TO_NETFILTER: &str = "by rules, since the programs do not carry it:";

/// What eBPF mode leaves to netfilter, if there is any.
fn left_to_netfilter(deriver: &Deriver) -> Option<Desired> {
    Some(Share::of(deriver.desired())).filter(|share| !share.services.is_empty())
}

async fn rules_beside(this: &ThisNode) -> anyhow::Result<IptablesDataplane> {
    Ok(companion::dataplane(&setup::rules_of(this)).await?)
}

/// Everything that the source has now, derived.
async fn inputs(config: &Config) -> anyhow::Result<(ThisNode, Deriver)> {
    setup::tell(&config.notes);
    let source = setup::source(config).await?;
    let listing = async {
        let (this, _) = ThisNode::resolve(config, &source, seaway_cluster::stream).await?;
        let mut events = setup::follow(source.clone(), &this, seaway_cluster::stream);
        let mut deriver = Deriver::new(this.settings.clone());
        while !deriver.is_synced() {
            let event = events
                .recv()
                .await
                .context("the source of Services ended unexpectedly")?;
            deriver.absorb(event);
        }
        anyhow::Ok((this, deriver))
    };
    let listed = seaway_daemon::answer_of(&source.to_string(), Some(LIST_TIMEOUT), listing).await;
    let (this, mut deriver) = listed.context(
        "Services, EndpointSlices and this Node could not be listed (--kubeconfig names the server, --manifests a directory in \
         place of one)",
    )??;
    let (_, diagnostics) = deriver.derive();
    if let Some(missing) = deriver.missing_node() {
        eprintln!("warning: {missing}");
    }
    for d in diagnostics {
        eprintln!("warning: {} {}: {}", d.object, d.field, d.consequence);
    }
    Ok((this, deriver))
}

/// `seaway-proxy dump`.
pub async fn dump(args: DumpArgs) -> anyhow::Result<()> {
    let config = Config::load(args.node)?;
    privileges::check(config.mode)?;
    let (this, deriver) = if args.actual {
        setup::tell(&config.notes);
        (ThisNode::unresolved(&config)?, None)
    } else {
        let (this, deriver) = inputs(&config).await?;
        (this, Some(deriver))
    };
    let desired = deriver.as_ref().map(|deriver| deriver.desired());
    let mode = config.mode.as_str();
    match config.mode {
        Mode::Iptables => {
            let told = dumped(setup::iptables(&this).await?, desired).await?;
            if args.json {
                return print_json(&Told { mode, told });
            }
            print!("{told}");
        }
        Mode::Ebpf => {
            let plane = setup::ebpf(&config, &this)?;
            let plane = match desired {
                Some(desired) => plane.naming(desired),
                None => plane,
            };
            let programs = dumped(plane, desired).await?;
            let share = deriver.as_ref().map(left_to_netfilter);
            let rules = match &share {
                Some(None) => None,
                Some(Some(share)) => Some(dumped(rules_beside(&this).await?, Some(share)).await?),
                None => rules_left(&this).await?,
            };
            if args.json {
                let told = Beside {
                    told: programs,
                    left_to_netfilter: rules,
                };
                return print_json(&Told { mode, told });
            }
            print!("{programs}");
            if let Some(rules) = rules {
                if !args.actual {
                    println!("{LEFT_TO_NETFILTER}");
                }
                print!("{rules}");
            }
        }
    }
    Ok(())
}

/// Of mode ebpf, with the rules beside it, if there are any.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Beside<T, R> {
    #[serde(flatten)]
    told: T,
    left_to_netfilter: Option<R>,
}

/// Rules of ours beside eBPF mode, if there are any.
async fn rules_left<'a>(this: &ThisNode) -> anyhow::Result<Option<Dumped<'a, Held>>> {
    let Ok(plane) = rules_beside(this).await else {
        return Ok(None);
    };
    let found = dumped(plane, None).await?;
    Ok(Some(found).filter(|found| found.actual.has_chains_of_ours()))
}

async fn dumped<D: Dataplane>(
    mut dataplane: D,
    desired: Option<&Desired>,
) -> anyhow::Result<Dumped<'_, D::Held>> {
    // First as it is found.
    let actual = dataplane.held().await?;
    let to_do = match desired {
        Some(desired) => Some(planned(dataplane, desired).await?),
        None => None,
    };
    Ok(Dumped {
        desired: desired.map(Wanted),
        actual,
        to_do,
    })
}

/// `seaway-proxy explain`.
pub async fn explain(args: ExplainArgs) -> anyhow::Result<()> {
    let config = Config::load(args.node)?;
    let (this, deriver) = inputs(&config).await?;
    let node = this.context().await?;
    let to = &args.destination;
    let address = to.address(args.source, deriver.inputs());
    let address = address.map_err(anyhow::Error::msg)?;
    let packet = packet(args.source, address, to.protocol, &node, &deriver)?;
    let world = World {
        inputs: deriver.inputs(),
        desired: deriver.desired(),
        node: &node,
        settings: &this.settings,
    };
    let explanation = explain_packet(world, &packet);
    if args.json {
        return print_json(&explanation);
    }
    print!("{explanation}");
    Ok(())
}

fn packet(
    source: Asker,
    destination: SocketAddr,
    protocol: Protocol,
    node: &NodeContext,
    deriver: &Deriver,
) -> anyhow::Result<Packet> {
    let family = Family::of(destination.ip());
    let source = match source {
        Asker::Node => *node
            .addresses
            .iter()
            .find(|ip| Family::of(**ip) == family)
            .context("this node has no address of the family of the destination")?,
        Asker::Address(address) => address,
    };
    anyhow::ensure!(
        Family::of(source) == family,
        "{source} and {destination} are not of one family"
    );
    let origin = if node.is_node(source) || source.is_loopback() {
        Origin::NodeProcess
    } else if deriver
        .own_node()
        .is_some_and(|own| own.pod_cidrs.iter().any(|cidr| cidr.contains(source)))
    {
        Origin::LocalPod
    } else {
        Origin::External
    };
    Ok(Packet {
        source,
        destination,
        protocol,
        origin,
    })
}
