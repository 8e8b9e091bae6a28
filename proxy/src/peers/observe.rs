//! Looks at the node.

use std::collections::BTreeSet;
use std::path::Path;

use seaway_kernel::{Command, CommandError, Netlink};
use seaway_model::Family;

use super::{PINS, Traces};
use crate::iptables::placement::VARIANTS;
use crate::iptables::tool::Tool;

/// What is on this node now. What cannot be asked is left out: a tool that is missing has left nothing either.
pub async fn observe() -> anyhow::Result<Traces> {
    let mut chains = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        for variant in VARIANTS {
            if let Ok(Some(text)) = (Tool { family, variant }).save_if_installed().await {
                chains.extend(chains_of(&text).map(str::to_owned));
            }
        }
    }
    let links = Netlink::new()?.links().await?;
    Ok(Traces {
        chains: chains.into_iter().collect(),
        nft_tables: nft_tables().await,
        links: links.into_iter().map(|link| link.name).collect(),
        processes: processes(),
        pins: PINS
            .iter()
            .filter(|pin| Path::new(pin).exists())
            .map(|pin| (*pin).to_owned())
            .collect(),
    })
}

/// Lines such as `:KUBE-SERVICES - [0:0]`.
pub(super) fn chains_of(saved: &str) -> impl Iterator<Item = &str> {
    saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
}

async fn nft_tables() -> Vec<String> {
    match Command::new("nft").args(["list", "tables"]).output().await {
        Ok(output) => tables_of(&output.text()),
        Err(CommandError::Missing { .. }) => Vec::new(),
        Err(error) => {
            tracing::debug!(%error, "cannot list nftables tables");
            Vec::new()
        }
    }
}

/// Lines such as `table ip kube-proxy`.
pub(super) fn tables_of(listed: &str) -> Vec<String> {
    listed
        .lines()
        .filter_map(|line| line.strip_prefix("table "))
        .map(|table| table.trim().to_owned())
        .collect()
}

/// Names of the processes in our network namespace. In a container without the host's process table it sees its own
/// only, which is no error.
fn processes() -> Vec<(String, u32)> {
    let Ok(own) = std::fs::read_link("/proc/thread-self/ns/net") else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let netns = std::fs::read_link(path.join("ns/net")).ok()?;
            (netns == own).then(|| (name.trim_end().to_owned(), pid))
        })
        .collect()
}
