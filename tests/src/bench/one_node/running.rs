//! A proxy while it runs, and what has to go when it does not any more.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use seaway_kernel::{Command, Spawn};

use super::contender::{Contender, find, seaway_flags};
use super::usage::{Usage, map_mb};
use super::wiring::{Node, tail};

/// Of our proxy, on the node's loopback.
const METRICS_PORT: u16 = 10_249;

/// A proxy that runs; killed when dropped.
#[derive(Debug)]
pub struct Running<'a> {
    contender: &'a Contender,
    node: &'a Node,
    child: Child,
    cgroup: PathBuf,
    log: PathBuf,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        contender: &'a Contender,
        node: &'a Node,
        child: Child,
        cgroup: PathBuf,
        log: PathBuf,
    ) -> Self {
        Self {
            contender,
            node,
            child,
            cgroup,
            log,
        }
    }

    /// What it has cost so far.
    pub fn usage(&mut self) -> Result<Usage> {
        ensure!(
            self.child.try_wait()?.is_none(),
            "{} has ended:\n{}",
            self.contender.title(),
            self.log()
        );
        Usage::of(self.child.id(), &self.cgroup)
    }

    /// Memory of the eBPF maps that it has open, in 10^6 bytes.
    pub fn map_mb(&self) -> Result<f64> {
        map_mb(self.child.id())
    }

    /// How many syncs there were for IPv4, and how many seconds they took, as our proxy counts them itself.
    pub fn syncs(&self) -> Result<(f64, f64)> {
        let text = self.metrics()?;
        let of = |what: &str| {
            let name = format!("kubeproxy_sync_proxy_rules_duration_seconds_{what}");
            value(&text, &format!("{name}{{ip_family=\"IPv4\"}}"))
        };
        let both = of("count").zip(of("sum"));
        both.context("the metrics do not say how long syncs take")
    }

    /// After how many seconds our proxy had listed everything.
    pub fn lists_seconds(&self) -> Result<f64> {
        let found = value(&self.metrics()?, "seaway_proxy_lists_complete_seconds");
        found.context("the metrics do not say when everything was listed")
    }

    fn metrics(&self) -> Result<String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS_PORT))?;
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        self.node.netns()?.run(ask)?.context("ask for metrics")
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    /// Ends it and takes away what it left in the kernel.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        if self.contender.leaves_pins() {
            self.cleanup()?;
        }
        flush(self.node).await
    }

    fn cleanup(&self) -> Result<()> {
        let mut child = Spawn::new(self.contender.program())
            .arg("cleanup")
            .args(seaway_flags(self.node))
            .netns(&self.node.netns()?)
            .stdout(&self.log)
            .stderr(&self.log)
            .start()?;
        if !child.wait()?.success() {
            bail!("cleanup failed:\n{}", self.log());
        }
        Ok(())
    }
}

/// The value of a series in an exposition.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Ended already, unless the run was broken off: then what it left goes with the namespace, but for pins.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            if self.contender.leaves_pins() {
                let _ = self.cleanup();
            }
        }
    }
}

/// Empties all tables of the node, whoever filled them.
async fn flush(node: &Node) -> Result<()> {
    let netns = node.netns()?;
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let command = |program: &str| {
        Command::new(program)
            .env("PATH", &path)
            .env("XTABLES_LOCKFILE", node.scratch.join("xtables.lock"))
            .netns(&netns)
            .timeout(Duration::from_secs(120))
    };
    let tables = "*filter\nCOMMIT\n*nat\nCOMMIT\n*mangle\nCOMMIT\n";
    for (program, loaded) in [
        (
            "iptables-legacy-restore",
            "/proc/thread-self/net/ip_tables_names",
        ),
        (
            "ip6tables-legacy-restore",
            "/proc/thread-self/net/ip6_tables_names",
        ),
    ] {
        let names = netns.run(|| fs::read_to_string(loaded))?;
        // Only tables that are there: to name one makes it.
        let names = names.unwrap_or_default();
        let tables: String = names.lines().map(|t| format!("*{t}\nCOMMIT\n")).collect();
        if !tables.is_empty() {
            command(program).stdin(tables).output().await?;
        }
    }
    if find("nft", &path).is_ok() {
        command("nft").args(["flush", "ruleset"]).output().await?;
    } else {
        for program in ["iptables-nft-restore", "ip6tables-nft-restore"] {
            command(program).stdin(tables).output().await?;
        }
    }
    Ok(())
}
