//! What is on the machine, as lists that can be compared: before and after must be the same.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use seaway_kernel::{Command, NetNs, Netlink, cgroup};
use seaway_model::ownership::BPFFS_ROOT;

/// Links, rules, namespaces, cgroups and pins that anyone could have left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub links: BTreeSet<String>,
    pub rules: String,
    pub namespaces: BTreeSet<String>,
    pub cgroups: BTreeSet<String>,
    pub pins: BTreeSet<String>,
}

/// Looks at the machine, in the namespace of the caller.
pub async fn of_machine() -> Result<Trace> {
    let links = Netlink::new()?.links().await?;
    Ok(Trace {
        links: links.into_iter().map(|link| link.name).collect(),
        rules: rules(None).await?,
        namespaces: NetNs::list()?.into_iter().collect(),
        cgroups: names(&cgroup::mount_point()?.join("seaway-lab")),
        pins: names(Path::new(BPFFS_ROOT)),
    })
}

/// `iptables-save` without counters and comments: those change by themselves.
pub async fn rules(netns: Option<&NetNs>) -> Result<String> {
    let mut command = Command::new("iptables-save").env("PATH", path());
    if let Some(netns) = netns {
        command = command.netns(netns);
    }
    let text = command.output().await?.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines
        .map(|line| line.split(" [").next().unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// File names below a directory, whatever is there.
pub fn names(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/sbin")
}
