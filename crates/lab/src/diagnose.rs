//! What one wants to see when a test has failed, before the lab is taken away.

use std::fmt::Write as _;
use std::path::Path;

use seaway_kernel::{Command, CommandError, NetNs};

use crate::daemon::{proxy_node_flags, tail};
use crate::{Daemon, Lab, LabError};

impl Lab {
    /// Rules, maps, routes, neighbours, pods, last log lines, and how to look inside. Never fails: what could not be
    /// had says why.
    pub async fn diagnose(&self) -> String {
        let mut report = format!("=== diagnosis of lab {} ===\n", self.name());
        let listing = [
            "get",
            "nodes,pods,services,endpointslices",
            "-A",
            "-o",
            "wide",
        ];
        let objects = self.kubectl(listing).await;
        let objects = objects.map(|done| done.stdout + &done.stderr);
        section(&mut report, "kubectl get", &objects);
        section(
            &mut report,
            "log of server",
            &Ok(tail(&Daemon::Server.log(self.name()))),
        );
        for node in &self.config().nodes {
            let path = format!("/run/netns/{}", self.name().node_netns(&node.name));
            let _ = writeln!(
                report,
                "\n=== {} ({}); look inside with: nsenter --net={path}",
                node.name, node.mode
            );
            match NetNs::open(Path::new(&path)) {
                Ok(netns) => self.node_report(&mut report, &node.name, &netns).await,
                Err(error) => section(&mut report, "namespace", &Err(error.into())),
            }
        }
        let _ = writeln!(report, "\nfiles and logs: {}", self.name().dir().display());
        report
    }

    async fn node_report(&self, report: &mut String, node: &str, netns: &NetNs) {
        let binaries = &self.config().binaries;
        let dump = proxy_node_flags(self.config(), node).map(|flags| {
            Command::new(binaries.join("seaway-proxy"))
                .arg("dump")
                .args(flags)
        });
        match dump {
            Ok(command) => section(report, "seaway-proxy dump", &output(command, netns).await),
            Err(error) => section(report, "seaway-proxy dump", &Err(error)),
        }
        for line in [
            "iptables-save",
            "ip -details -brief link",
            "ip address",
            "ip route",
            "ip neighbour",
            "ss -tunap",
            "bpftool net show",
        ] {
            let mut words = line.split(' ');
            let command = Command::new(words.next().unwrap_or_default()).args(words);
            section(report, line, &output(command, netns).await);
        }
        for daemon in Daemon::of_node(node) {
            let title = format!("log of {}", daemon.id());
            section(report, &title, &Ok(tail(&daemon.log(self.name()))));
        }
    }
}

async fn output(command: Command, netns: &NetNs) -> Result<String, LabError> {
    let command = command
        .env("PATH", crate::daemon::search_path())
        .netns(netns);
    match command.output().await {
        Ok(output) => Ok(output.text()),
        Err(CommandError::Failed { stdout, stderr, .. }) => {
            Ok(String::from_utf8_lossy(&stdout).into_owned() + &stderr)
        }
        Err(error) => Err(error.into()),
    }
}

fn section(report: &mut String, title: &str, content: &Result<String, LabError>) {
    let _ = writeln!(report, "--- {title}");
    let text = match content {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => format!("({error})"),
    };
    let _ = writeln!(report, "{text}");
}
