//! `seaway-proxy check`: what this machine can do, and who else is on it.

mod report;

use seaway_kernel::capabilities::IptablesProgram;
use seaway_kernel::{Capabilities, LinkKind, Netlink, sysctl};

use super::setup;
use crate::cli::{CheckArgs, Mode};
use crate::iptables::{IptablesConfig, IptablesDataplane};
use crate::{ebpf, peers, privileges};
use report::{Modes, Needs, Program, Report, Tables, Verdict};

/// Fails if no mode can run, or the one asked for, or if another proxy is in our place.
pub async fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let machine = Capabilities::probe().await?;
    let iptables = privileges::check(Mode::Iptables).and_then(|()| setup::has_iptables(&machine));
    let ebpf = setup::check_ebpf(&args.places);
    let peers = peers::find(&peers::observe().await?);
    let (major, minor) = machine.kernel;
    let program = |program: &Option<IptablesProgram>| {
        program.as_ref().map(|program| Program {
            version: program.version.clone(),
            variant: program.variant.to_string(),
        })
    };
    let report = Report {
        kernel: format!("{major}.{minor}"),
        iptables: program(&machine.iptables),
        ip6tables: program(&machine.ip6tables),
        modes: Modes {
            iptables: Verdict::of(&iptables),
            ebpf: Verdict::of(&ebpf),
        },
        ebpf_needs: match args.mode {
            Some(Mode::Ebpf) => Some(needs_of_ebpf().await?),
            _ => None,
        },
        tables: match iptables {
            Ok(()) => Some(tables(&machine).await),
            Err(_) => None,
        },
        bridges: bridges().await?,
        other_proxies: peers,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    match args.mode {
        Some(Mode::Iptables) => iptables?,
        Some(Mode::Ebpf) => ebpf?,
        None => anyhow::ensure!(
            iptables.is_ok() || ebpf.is_ok(),
            "this node can run neither mode"
        ),
    }
    peers::refuse(&report.other_proxies)
}

/// Everything that the programs need, and what else mode ebpf meets here.
async fn needs_of_ebpf() -> anyhow::Result<Needs> {
    let (features, error) = match ebpf::report() {
        Ok(features) => (features, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Ok(Needs {
        features,
        error,
        remarks: ebpf::remarks().await?,
    })
}

/// Where our tables are or would be. Whether the kernel takes our rules there is tried by `run` only.
async fn tables(machine: &Capabilities) -> Tables {
    let mut dataplane = IptablesDataplane::new(&IptablesConfig::default(), machine);
    match dataplane.placement().await {
        Ok((placement, obstacle)) => Tables {
            placement: Some(placement.to_string()),
            reason: obstacle.map(str::to_owned),
        },
        Err(error) => Tables {
            placement: None,
            reason: Some(error.to_string()),
        },
    }
}

const BRIDGE_NETFILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Pods behind a bridge reach each other without passing the rules, unless the bridge hands its packets over; then a
/// pod that reaches a pod of the same bridge through a Service gets an answer from an address that it never asked.
async fn bridges() -> anyhow::Result<String> {
    let links = Netlink::new()?.links().await?;
    let carries_pods = |index: u32| {
        links
            .iter()
            .any(|link| link.master == Some(index) && link.kind == LinkKind::Veth)
    };
    let bridges: Vec<_> = links
        .iter()
        .filter(|link| link.kind == LinkKind::Bridge && carries_pods(link.index))
        .map(|link| link.name.as_str())
        .collect();
    if bridges.is_empty() {
        return Ok("none carries pods, so none has to pass netfilter".to_owned());
    }
    let verdict = match sysctl::read(BRIDGE_NETFILTER) {
        Ok(value) if value == "1" => "is on, as it has to be".to_owned(),
        Ok(value) => format!(
            "is {value}: in mode iptables, pods of one bridge will not reach each other through a Service; set it to 1"
        ),
        Err(error) if error.is_absent() => {
            "is not there: load the module br_netfilter and set it to 1, or pods of one bridge will not reach each \
             other through a Service in mode iptables"
                .to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    Ok(format!(
        "{} carry pods; {BRIDGE_NETFILTER} {verdict}",
        bridges.join(", ")
    ))
}
