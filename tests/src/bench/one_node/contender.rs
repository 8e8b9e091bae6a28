//! The proxy under test: ours, or another binary in its place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use seaway_kernel::Spawn;
use seaway_kernel::capabilities::IptablesVariant;
use serde_json::json;

use super::control::Control;
use super::running::Running;
use super::wiring::{CLUSTER_CIDR, Node};

/// Which of the two programs `iptables` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    Legacy,
    Nft,
}

impl Variant {
    fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }
}

impl From<IptablesVariant> for Variant {
    fn from(variant: IptablesVariant) -> Self {
        match variant {
            IptablesVariant::Legacy => Self::Legacy,
            IptablesVariant::NfTables => Self::Nft,
        }
    }
}

/// What our proxy is told about its nat rules on a legacy node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Nat {
    Auto,
    Same,
    Nft,
}

impl Nat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Same => "same",
            Self::Nft => "nft",
        }
    }
}

/// `--peer NAME=PATH,mode=MODE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    kind: Kind,
    program: PathBuf,
    mode: String,
}

/// How a program is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SeawayProxy,
    KubeProxy,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SeawayProxy => "seaway-proxy",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write NAME=/PATH,mode=MODE with kube-proxy or seaway-proxy as the name";
        let parts = || {
            let (name, rest) = text.split_once('=')?;
            let (program, mode) = rest.rsplit_once(",mode=")?;
            let kinds = [Kind::SeawayProxy, Kind::KubeProxy];
            let kind = kinds.into_iter().find(|kind| kind.name() == name)?;
            Some(Self {
                kind,
                program: program.into(),
                mode: mode.to_owned(),
            })
        };
        parts().ok_or_else(|| form.to_owned())
    }
}

/// At the veths of the node, which `auto` leaves alone.
const XDP: &str = "native";

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub struct Contender {
    peer: Peer,
    variant: Variant,
    /// `--iptables-nat-variant`, if it is not left alone.
    nat: Option<Nat>,
    /// With `--xdp`.
    xdp: bool,
}

impl Contender {
    /// Our own proxy, beside our other binaries.
    pub fn ours(mode: &str, variant: Variant, nat: Option<Nat>) -> Result<Self> {
        let peer = Peer {
            kind: Kind::SeawayProxy,
            program: seaway_lab::topology::binaries()?.join("seaway-proxy"),
            mode: mode.to_owned(),
        };
        Ok(Self {
            nat,
            ..Self::other(peer, variant)
        })
    }

    /// Another one.
    pub fn other(peer: Peer, variant: Variant) -> Self {
        Self {
            peer,
            variant,
            nat: None,
            xdp: false,
        }
    }

    /// The same with XDP at its uplinks.
    pub fn at_driver(self) -> Self {
        Self { xdp: true, ..self }
    }

    /// Whether there is such a program: found before minutes are spent on the others.
    pub fn check(&self) -> Result<()> {
        let program = &self.peer.program;
        ensure!(program.is_file(), "{} is no program", program.display());
        Ok(())
    }

    /// What it is called in progress lines.
    pub fn title(&self) -> String {
        let words: Vec<&str> = self.labels().into_iter().map(|(_, value)| value).collect();
        words.join(" ")
    }

    /// What tells its figures from those of others.
    pub fn labels(&self) -> Vec<(&'static str, &str)> {
        let mut labels = vec![
            ("proxy", self.peer.kind.name()),
            ("mode", self.peer.mode.as_str()),
        ];
        if self.uses_iptables() {
            labels.push(("variant", self.variant.as_str()));
        }
        if let Some(nat) = self.nat {
            labels.push(("nat", nat.as_str()));
        }
        if self.xdp {
            labels.push(("xdp", XDP));
        }
        labels
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.peer.program
    }

    /// Whether it leaves pins that outlive the node.
    pub fn leaves_pins(&self) -> bool {
        self.peer.mode == "ebpf"
    }

    /// Whether it is ours in eBPF mode.
    pub fn writes_maps(&self) -> bool {
        self.peer.kind == Kind::SeawayProxy && self.peer.mode == "ebpf"
    }

    fn uses_iptables(&self) -> bool {
        self.peer.mode == "iptables"
    }

    /// Whether it changes the kernel through programs that it tells everything by a pipe.
    pub fn tells_through_pipes(&self) -> bool {
        self.peer.mode != "ebpf"
    }

    /// Starts it on the node.
    pub fn start<'a>(&'a self, node: &'a Node, control: &Control) -> Result<Running<'a>> {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (log, cgroup) = (
            node.scratch.join(format!("proxy-{number}.log")),
            node.fresh_cgroup(number)?,
        );
        let args = match self.peer.kind {
            Kind::SeawayProxy => {
                let mut args = vec![
                    "run".to_owned(),
                    format!("--mode={}", self.peer.mode),
                    format!("--kubeconfig={}", control.kubeconfig.display()),
                    format!("--hostname-override={}", control.name),
                    format!("--cluster-cidr={CLUSTER_CIDR}"),
                ];
                args.extend(seaway_flags(node));
                let nat = self.nat.map(Nat::as_str);
                args.extend(nat.map(|nat| format!("--iptables-nat-variant={nat}")));
                args.extend(self.xdp.then(|| format!("--xdp={XDP}")));
                args
            }
            Kind::KubeProxy => {
                let config = node.scratch.join(format!("kube-proxy-{number}.json"));
                let gates = feature_gates(&self.peer.mode, &self.version()?);
                fs::write(&config, self.kube_proxy_config(control, &gates).to_string())?;
                vec![format!("--config={}", config.display())]
            }
        };
        let child = Spawn::new(&self.peer.program)
            .args(args)
            .env("PATH", self.path(node)?)
            // Else every user of the legacy variant on this machine waits for every other, in whatever namespace.
            .env("XTABLES_LOCKFILE", node.scratch.join("xtables.lock"))
            .netns(&node.netns()?)
            .cgroup(&cgroup)
            .stdout(&log)
            .stderr(&log)
            .start()?;
        Ok(Running::new(self, node, child, cgroup, log))
    }

    /// What the program says of itself.
    fn version(&self) -> Result<String> {
        let program = &self.peer.program;
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("run {}", program.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What matters is as in kube-proxy's defaults; the rest keeps it from what the node does not have: metrics of
    /// other namespaces, a writable `nf_conntrack_max`, an API that speaks protobuf.
    fn kube_proxy_config(&self, control: &Control, gates: &serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.peer.mode,
            "featureGates": gates,
            "clusterCIDR": CLUSTER_CIDR,
            "detectLocalMode": "ClusterCIDR",
            "hostnameOverride": control.name,
            "clientConnection": {
                "kubeconfig": control.kubeconfig,
                "contentType": "application/json",
                "acceptContentTypes": "application/json",
            },
            "conntrack": { "maxPerCore": 0, "min": 0 },
        })
    }

    /// Ours, led by a directory in which `iptables` is the variant under test.
    fn path(&self, node: &Node) -> Result<String> {
        let own = std::env::var("PATH").unwrap_or_default();
        let own = format!("{own}:/usr/sbin:/sbin");
        let directory = node.scratch.join(self.variant.as_str());
        if self.uses_iptables() && !directory.exists() {
            fs::create_dir(&directory)?;
            for (family, verb) in ["iptables", "ip6tables"]
                .into_iter()
                .flat_map(|family| ["", "-save", "-restore"].map(|verb| (family, verb)))
            {
                let program = format!("{family}-{}{verb}", self.variant.as_str());
                let found = find(&program, &own)?;
                symlink(found, directory.join(format!("{family}{verb}")))?;
            }
        }
        Ok(format!("{}:{own}", directory.display()))
    }
}

/// What kube-proxy has to be told before it takes this mode. `printed` is what `kube-proxy --version` says, such as
/// `Kubernetes v1.30.5`. Nftables mode is alpha, so off, in 1.29 and 1.30 (KEP 3866); later the gate is on, then gone,
/// and a gate that is unknown ends kube-proxy.
fn feature_gates(mode: &str, printed: &str) -> serde_json::Value {
    let minor = || -> Option<u32> {
        let (_, version) = printed.split_once("v1.")?;
        version.split('.').next()?.parse().ok()
    };
    match (mode, minor()) {
        ("nftables", Some(29 | 30)) => json!({ "NFTablesProxyMode": true }),
        _ => json!({}),
    }
}

/// A program in a search path.
pub(super) fn find(program: &str, path: &str) -> Result<PathBuf> {
    let mut places = path.split(':').map(|place| Path::new(place).join(program));
    places
        .find(|place| place.is_file())
        .with_context(|| format!("{program} is not installed (package iptables)"))
}

pub(super) fn seaway_flags(node: &Node) -> [String; 3] {
    [
        format!("--cgroup-root={}", node.cgroup().display()),
        format!("--bpffs-root={}", node.bpffs.display()),
        format!("--run-dir={}", node.scratch.join("run").display()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_name_path_mode() {
        let peer: Peer = "kube-proxy=/opt/kube-proxy,mode=nftables".parse().unwrap();
        assert_eq!(peer.kind, Kind::KubeProxy);
        assert_eq!(peer.program, Path::new("/opt/kube-proxy"));
        assert_eq!(peer.mode, "nftables");
        for wrong in ["kube-proxy", "kube-proxy=/x", "other=/x,mode=y"] {
            assert!(wrong.parse::<Peer>().unwrap_err().contains("NAME=/PATH"));
        }
    }

    #[test]
    fn nftables_mode_is_asked_for_while_it_is_alpha() {
        for (mode, printed, asked) in [
            ("nftables", "Kubernetes v1.29.0\n", true),
            ("nftables", "Kubernetes v1.30.5\n", true),
            ("nftables", "Kubernetes v1.30.0-rc.1+k3s1\n", true),
            ("nftables", "Kubernetes v1.28.9\n", false),
            ("nftables", "Kubernetes v1.31.0\n", false),
            ("nftables", "Kubernetes v1.36.2\n", false),
            ("nftables", "Kubernetes v1.300.0\n", false),
            ("nftables", "Kubernetes v0.0.0-master+18a57d7\n", false),
            ("nftables", "", false),
            ("iptables", "Kubernetes v1.30.5\n", false),
        ] {
            let gates = feature_gates(mode, printed);
            assert_eq!(
                gates["NFTablesProxyMode"] == true,
                asked,
                "{mode} {printed}"
            );
        }
    }

    #[test]
    fn the_variant_is_named_where_it_matters() {
        let labels = |mode: &str| {
            let peer = format!("kube-proxy=/x,mode={mode}").parse().unwrap();
            Contender::other(peer, Variant::Legacy).title()
        };
        assert_eq!(labels("iptables"), "kube-proxy iptables legacy");
        assert_eq!(labels("nftables"), "kube-proxy nftables");
    }
}
