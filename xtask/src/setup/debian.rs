//! Debian packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Requirement, State};
use crate::progress;

/// A package and the reason for it.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

const PACKAGES: &[Package] = &[
    package(
        "gcc",
        "C code in aws-lc (TLS of the control plane), and linking",
    ),
    package("libc6-dev", "as gcc"),
    package("iptables", "the iptables mode, nft and legacy variants"),
    package(
        "iproute2",
        "network namespaces and links, by hand and in diagnosis",
    ),
    package("util-linux", "nsenter: looking inside a node or pod"),
    package("conntrack", "flow table, in diagnosis and tests"),
    package(
        "nftables",
        "what the nft variant of iptables wrote, in diagnosis",
    ),
    package("tcpdump", "captures, in diagnosis"),
    package(
        "bpftool",
        "programs and maps of the eBPF mode, in diagnosis",
    ),
    package("ethtool", "offload settings of links, in tests"),
    package("unzip", "unpacking kubectl where the system has none"),
    package(
        "rustc-web",
        "compiles the eBPF programs: has the prebuilt core for BPF",
    ),
    package("libstd-rust-web-dev-bpf", "the prebuilt core for BPF"),
    package(
        "containerd",
        "a container runtime over the plugin, in tests; brings runc",
    ),
    package("podman", "another one, with its CNI backend"),
    package(
        "containernetworking-plugins",
        "the reference plugins: chained with ours, measured beside it",
    ),
    package("busybox-static", "what runs in the containers of tests"),
    package(
        "protobuf-compiler",
        "the client by which tests drive containerd",
    ),
    package("golang-go", "a client of Debian's libcni, in tests"),
    package("golang-github-appc-cni-dev", "libcni"),
];

/// What is done about a missing package.
pub(crate) const PLAN: &str = "apt-get install";

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// The packages of the list that are not installed.
pub(crate) fn missing() -> Result<Vec<Package>> {
    let installed = installed()?;
    Ok(PACKAGES
        .iter()
        .copied()
        .filter(|package| !installed.contains_key(package.name))
        .collect())
}

pub(crate) fn survey() -> Result<Vec<Requirement>> {
    let installed = installed()?;
    Ok(PACKAGES
        .iter()
        .map(|package| Requirement {
            name: package.name.into(),
            why: package.why,
            state: match installed.get(package.name) {
                Some(version) => State::Present(version.clone()),
                None => State::Missing(PLAN.into()),
            },
        })
        .collect())
}

/// A mirror that stumbles once is asked again.
const RETRY: &str = "-oAcquire::Retries=3";

pub(crate) fn install(packages: &[Package], log: &Path) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    install_names(&names, log)
}

pub(crate) fn install_names(names: &[&str], log: &Path) -> Result<()> {
    progress::logged(Command::new("apt-get").args(["update", "-qq", RETRY]), log)?;
    progress::logged(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", RETRY, "--no-install-recommends"])
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive"),
        log,
    )
}

/// Installed packages of the list, with their versions.
fn installed() -> Result<BTreeMap<String, String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package}\t${db:Status-Status}\t${Version}\n"])
        .args(PACKAGES.iter().map(|package| package.name))
        .output()
        .context("dpkg-query does not run: set-up knows Debian 12 only")?;
    // It exits 1 when some of them are unknown, and still lists the others.
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(listing: &str) -> BTreeMap<String, String> {
    listing
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (name, status, version) = (fields.next()?, fields.next()?, fields.next()?);
            (status == "installed").then(|| (name.to_owned(), version.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listing =
            "iptables\tinstalled\t1.8.9-2\nbpftool\tconfig-files\t7.1\njq\tnot-installed\t\n";
        let installed = parse(listing);
        assert_eq!(installed.len(), 1);
        assert_eq!(installed["iptables"], "1.8.9-2");
    }
}
