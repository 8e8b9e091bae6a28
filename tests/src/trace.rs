//! What is on the machine, as lists that can be compared: before and after must be the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use seaway_kernel::{Command, NetNs, Netlink, cgroup};
use seaway_lab::eventually;
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

/// What a namespace has that anyone could have left behind, a line each: links, addresses, routes, permanent neighbours,
/// and the rules of both variants of iptables in both families.
pub async fn of_namespace(netns: &NetNs) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (what, args) in [
        ("link", &["-o", "link"][..]),
        ("address", &["-o", "address"]),
        ("route", &["route", "show", "table", "all"]),
        ("route", &["-6", "route", "show", "table", "all"]),
        ("rule", &["rule"]),
        ("rule", &["-6", "rule"]),
        ("neighbour", &["neigh", "show", "nud", "permanent"]),
    ] {
        let output = Command::new("ip").args(args).netns(netns).output().await?;
        let text = output.text();
        // What the kernel gives every link by itself, some time after it is up.
        let by_itself = |line: &&str| !["fe80:", "ff00:"].iter().any(|own| line.contains(own));
        let lines = text.lines().filter(by_itself);
        found.extend(lines.map(|line| format!("{what}: {line}")));
    }
    for variant in ["legacy", "nft"] {
        for family in ["iptables", "ip6tables"] {
            let command = Command::new(format!("{family}-{variant}-save"));
            let output = command.env("PATH", path()).netns(netns).output().await?;
            let text = output.text();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let bare = lines.map(|line| line.split(" [").next().unwrap_or(line));
            found.extend(bare.map(|line| format!("{family}, {variant}: {line}")));
        }
    }
    // Tables may stay for the next pod, their elements may not.
    let output = Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .env("PATH", path())
        .netns(netns)
        .output()
        .await?;
    let text = output.text();
    let elements = text.split("elements = {").skip(1);
    let elements = elements.filter_map(|rest| rest.split_once('}'));
    found.extend(elements.map(|(inside, _)| format!("nft elements: {}", inside.trim())));
    Ok(found)
}

/// Waits until a namespace has what it had before, no more and no less.
pub async fn is_again(netns: &NetNs, before: &BTreeSet<String>) -> Result<()> {
    let same = eventually(
        "all as it was before",
        Duration::from_secs(30),
        async || {
            let now = of_namespace(netns).await.map_err(|e| e.to_string())?;
            let (more, less): (Vec<_>, Vec<_>) = (
                now.difference(before).collect(),
                before.difference(&now).collect(),
            );
            if more.is_empty() && less.is_empty() {
                return Ok(());
            }
            Err(format!("left behind: {more:#?}\ngone: {less:#?}"))
        },
    );
    Ok(same.await?)
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
