//! `seaway-proxy check`: what this machine can do, and who else is on it.

use seaway_kernel::{Capabilities, LinkKind, Netlink, sysctl};

use super::setup;
use crate::cli::{CheckArgs, Mode};
use crate::iptables::{IptablesConfig, IptablesDataplane};
use crate::{ebpf, peers, privileges};

/// Fails if no mode can run, or the one asked for, or if another proxy is in our place.
pub async fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let machine = Capabilities::probe().await?;
    let (major, minor) = machine.kernel;
    println!("kernel: {major}.{minor}");
    for (name, program) in [
        ("iptables", &machine.iptables),
        ("ip6tables", &machine.ip6tables),
    ] {
        match program {
            Some(program) => println!("{name}: {} ({})", program.version, program.variant),
            None => println!("{name}: not installed"),
        }
    }
    let iptables = privileges::check(Mode::Iptables).and_then(|()| setup::has_iptables(&machine));
    let ebpf = setup::check_ebpf(&args.places);
    for (mode, verdict) in [(Mode::Iptables, &iptables), (Mode::Ebpf, &ebpf)] {
        match verdict {
            Ok(()) => println!("mode {}: can run", mode.as_str()),
            Err(error) => println!("mode {}: cannot run: {error:#}", mode.as_str()),
        }
    }
    if let (Ok(()), Err(error)) = (&ebpf, &iptables) {
        println!("mode ebpf: would not serve SCTP, which takes rules: {error:#}");
    }
    if args.mode == Some(Mode::Ebpf) {
        needs_of_ebpf().await?;
    }
    if iptables.is_ok() {
        println!("{}", tables(&machine).await);
    }
    for line in bridges().await? {
        println!("{line}");
    }
    let found = peers::find(&peers::observe().await?);
    if found.is_empty() {
        println!("other proxies: none");
    }
    for peer in &found {
        println!("other proxy: {peer}");
    }
    match args.mode {
        Some(Mode::Iptables) => iptables?,
        Some(Mode::Ebpf) => ebpf?,
        None => anyhow::ensure!(
            iptables.is_ok() || ebpf.is_ok(),
            "this node can run neither mode"
        ),
    }
    peers::refuse(&found)
}

/// Everything that the programs need, and what else mode ebpf meets here.
async fn needs_of_ebpf() -> anyhow::Result<()> {
    match ebpf::report() {
        Ok(report) => {
            println!("what mode ebpf needs (feature, Linux, here, for):");
            for probed in report {
                println!("  {probed}");
            }
        }
        Err(error) => println!("what mode ebpf needs cannot be asked: {error}"),
    }
    for remark in ebpf::remarks().await? {
        println!("mode ebpf: {remark}");
    }
    Ok(())
}

/// Where our tables are or would be. Whether the kernel takes our rules there is tried by `run` only.
async fn tables(machine: &Capabilities) -> String {
    let mut dataplane = IptablesDataplane::new(&IptablesConfig::default(), machine);
    match dataplane.placement().await {
        Ok((placement, None)) => format!("iptables tables: {placement}"),
        Ok((placement, Some(obstacle))) => {
            format!("iptables tables: {placement} (not nft: {obstacle})")
        }
        Err(error) => format!("iptables tables: unknown: {error}"),
    }
}

const BRIDGE_NETFILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Pods behind a bridge reach each other without passing the rules, unless the bridge hands its packets over; then a
/// pod that reaches a pod of the same bridge through a Service gets an answer from an address that it never asked.
async fn bridges() -> anyhow::Result<Vec<String>> {
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
        return Ok(vec![
            "bridges: none carries pods, so none has to pass netfilter".to_owned(),
        ]);
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
    Ok(vec![format!(
        "bridges: {} carry pods; {BRIDGE_NETFILTER} {verdict}",
        bridges.join(", ")
    )])
}
