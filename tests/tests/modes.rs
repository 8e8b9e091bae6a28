//! The mode of a node is a flag: changed and restarted, nothing of the other mode is left.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use seaway_lab::traffic::Transport;
use seaway_lab::{Daemon, Lab, Mode};
use seaway_model::ownership::{CHAIN_PREFIX, CHAINS_OF_OVERLAY};
use seaway_tests::{fixture, reach, require, trace, workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_switched_node_has_nothing_of_its_former_mode() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        for (node, mode) in [("n1", Mode::Ebpf), ("n2", Mode::Iptables)] {
            works(lab, node).await?;
            lab.switch_mode(node, mode).await?;
            works(lab, node).await?;
            only(lab, node, mode).await?;
        }
        for (node, mode) in [("n1", Mode::Iptables), ("n2", Mode::Ebpf)] {
            lab.switch_mode(node, mode).await?;
            works(lab, node).await?;
            only(lab, node, mode).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_leaves_the_node_as_it_was_before() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        for node in ["n1", "n2"] {
            lab.stop(&Daemon::Proxy(node.into())).await?;
            let place = lab.node(node)?;
            for attempt in ["first", "second"] {
                let done = lab.proxy_cleanup(node).await?;
                ensure!(
                    done.code == Some(0),
                    "{attempt} cleanup of {node}: {}",
                    done.stderr
                );
            }
            let rules = trace::rules(Some(place.netns())).await?;
            ensure!(!proxy_chains(&rules), "{node} has rules left:\n{rules}");
            let pins = trace::names(&lab.name().bpffs(node));
            ensure!(pins.is_empty(), "{node} has pins left: {pins:?}");
            // And it can be started again.
            lab.start(&Daemon::Proxy(node.into())).await?;
            works(lab, node).await?;
        }
        Ok(())
    })
    .await;
}

async fn works(lab: &Lab, node: &str) -> Result<()> {
    let pods = workload::replicas(lab).await?;
    let service = workload::cluster_ip(lab, "echo").await?;
    let client = lab.pod(&format!("client-{node}")).await?;
    for transport in [Transport::Tcp, Transport::Udp] {
        reach::reaches(&client, transport, service, &pods).await?;
        for config in lab
            .config()
            .nodes
            .iter()
            .filter(|config| config.name == node)
        {
            reach::reaches(
                &lab.outside()?,
                transport,
                workload::node_port(config),
                &pods,
            )
            .await?;
        }
    }
    Ok(())
}

async fn only(lab: &Lab, node: &str, mode: Mode) -> Result<()> {
    let place = lab.node(node)?;
    let rules = trace::rules(Some(place.netns())).await?;
    match mode {
        Mode::Ebpf => {
            let others = rules.lines().filter(|line| !line.contains(KEEP_FLOWS));
            ensure!(
                !proxy_chains(&others.collect::<Vec<_>>().join("\n")),
                "{node} has iptables rules left:\n{rules}"
            );
        }
        Mode::Iptables => {
            // Sockets of the former mode see Services as their peers by hooks that stay until the last of them is closed.
            let root = lab.name().bpffs(node);
            let pins: BTreeSet<String> = trace::names(&root)
                .iter()
                .flat_map(|layout| trace::names(&root.join(layout)))
                .collect();
            let stay = ["links", "SOCKETS_TCP", "SOCKETS_UDP"].map(str::to_owned);
            ensure!(
                pins.is_subset(&stay.into()),
                "{node} has pins left: {pins:?}"
            );
            let programs = place.run("bpftool", ["net", "show"]).await?;
            ensure!(
                !programs.stdout.contains("seaway"),
                "{node}: {}",
                programs.stdout
            );
            let root = lab.name().cgroup()?.join(node);
            let hooks = place
                .run("bpftool", ["cgroup", "show", &root.to_string_lossy()])
                .await?;
            ensure!(
                !hooks.stdout.contains("connect4"),
                "{node}: {}",
                hooks.stdout
            );
        }
    }
    Ok(())
}

/// A chain without a jump to it: connection tracking goes on by it with what it knew before the mode changed.
const KEEP_FLOWS: &str = "SEAWAY-KEEP-FLOWS";

/// Chains of ours apart from those that belong to the overlay.
fn proxy_chains(rules: &str) -> bool {
    let of_overlay = |line: &str| CHAINS_OF_OVERLAY.iter().any(|chain| line.contains(chain));
    let mut lines = rules.lines();
    lines.any(|line| line.contains(CHAIN_PREFIX) && !of_overlay(line))
}
