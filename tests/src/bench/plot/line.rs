//! One line of what `--json` prints.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    Programming,
    Datapath,
    Overlay,
    Cni,
}

/// One figure.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(flatten)]
    of: Of,
    pub(super) metric: String,
    pub(super) value: f64,
}

/// What the figure is of.
#[derive(Debug, Deserialize)]
#[serde(tag = "scenario", rename_all = "lowercase")]
enum Of {
    Programming(Proxy),
    Datapath(Proxy),
    Overlay {
        /// Of the ratios, there is none.
        way: Option<Way>,
        congestion: Option<String>,
    },
    Cni {
        chain: Option<String>,
    },
}

#[derive(Debug, Deserialize)]
struct Proxy {
    proxy: String,
    mode: String,
    variant: Option<String>,
    nat: Option<String>,
    services: u64,
    endpoints: u64,
    when: Option<String>,
    path: Option<String>,
}

/// How much there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Size {
    pub(super) services: u64,
    pub(super) endpoints: u64,
}

/// From pod to pod.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    Underlay,
    FlannelBare,
    Flannel,
    Iptables,
    Ebpf,
}

/// How chains of Debian's plugins begin.
const REFERENCE: &str = "reference";

impl Line {
    pub(super) fn scenario(&self) -> Scenario {
        match self.of {
            Of::Programming(_) => Scenario::Programming,
            Of::Datapath(_) => Scenario::Datapath,
            Of::Overlay { .. } => Scenario::Overlay,
            Of::Cni { .. } => Scenario::Cni,
        }
    }

    /// As people say it, such as `seaway-proxy iptables (nft)`; `None` if the figure compares some.
    pub(super) fn contender(&self) -> Option<String> {
        match &self.of {
            Of::Programming(proxy) | Of::Datapath(proxy) => Some(proxy.contender()),
            Of::Overlay { way, .. } => way.map(|way| way.name().to_owned()),
            Of::Cni { chain } => Some(match is_reference(chain.as_deref()) {
                true => "reference plugins".to_owned(),
                false => "seaway-cni".to_owned(),
            }),
        }
    }

    /// Whether that is one of ours.
    pub(super) fn ours(&self) -> bool {
        match &self.of {
            Of::Programming(proxy) | Of::Datapath(proxy) => proxy.proxy == "seaway-proxy",
            Of::Overlay { way, .. } => matches!(way, Some(Way::Iptables | Way::Ebpf)),
            Of::Cni { chain } => !is_reference(chain.as_deref()),
        }
    }

    /// `None` where there are no Services.
    pub(super) fn size(&self) -> Option<Size> {
        match &self.of {
            Of::Programming(proxy) | Of::Datapath(proxy) => Some(Size {
                services: proxy.services,
                endpoints: proxy.endpoints,
            }),
            Of::Overlay { .. } | Of::Cni { .. } => None,
        }
    }

    /// Which of several figures of a metric, such as `service` of `path`.
    pub(super) fn part(&self) -> Option<&str> {
        match &self.of {
            Of::Programming(proxy) | Of::Datapath(proxy) => {
                proxy.when.as_deref().or(proxy.path.as_deref())
            }
            Of::Overlay { congestion, .. } => congestion.as_deref(),
            Of::Cni { chain } => chain.as_deref()?.split(' ').find(|word| *word != REFERENCE),
        }
    }
}

impl Proxy {
    fn contender(&self) -> String {
        let nat = self.nat.as_ref().map(|nat| format!("nat {nat}"));
        let extra: Vec<String> = self.variant.clone().into_iter().chain(nat).collect();
        let name = format!("{} {}", self.proxy, self.mode);
        match extra.as_slice() {
            [] => name,
            extra => format!("{name} ({})", extra.join(", ")),
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Underlay => "node to node, no overlay",
            Self::FlannelBare => "flannel alone",
            Self::Flannel => "flannel and kube-proxy",
            Self::Iptables => "Seaway, iptables",
            Self::Ebpf => "Seaway, eBPF",
        }
    }
}

fn is_reference(chain: Option<&str>) -> bool {
    chain.is_some_and(|chain| chain.starts_with(REFERENCE))
}

/// All lines of a file. `name` is what messages call it.
pub(super) fn read(name: &str, text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = serde_json::from_str(line).with_context(|| {
            let number = index + 1;
            format!(
                "{name}:{number}: no figure as `programming`, `datapath`, `overlay` and `cni` print it with `--json`"
            )
        })?;
        lines.push(line);
    }
    ensure!(
        !lines.is_empty(),
        "{name} is empty: that run did not end well"
    );
    Ok(lines)
}
