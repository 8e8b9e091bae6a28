//! One line of what `--json` prints.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    Programming,
    Datapath,
}

/// One figure.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) scenario: Scenario,
    proxy: String,
    mode: String,
    variant: Option<String>,
    nat: Option<String>,
    services: u64,
    endpoints: u64,
    when: Option<String>,
    path: Option<String>,
    pub(super) metric: String,
    pub(super) value: f64,
}

/// How much there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Size {
    pub(super) services: u64,
    pub(super) endpoints: u64,
}

impl Line {
    /// As people say it, such as `seaway-proxy iptables (nft)`.
    pub(super) fn contender(&self) -> String {
        let nat = self.nat.as_ref().map(|nat| format!("nat {nat}"));
        let extra: Vec<String> = self.variant.clone().into_iter().chain(nat).collect();
        let name = format!("{} {}", self.proxy, self.mode);
        match extra.as_slice() {
            [] => name,
            extra => format!("{name} ({})", extra.join(", ")),
        }
    }

    /// Whether that is our own proxy.
    pub(super) fn ours(&self) -> bool {
        self.proxy == "seaway-proxy"
    }

    pub(super) fn size(&self) -> Size {
        Size {
            services: self.services,
            endpoints: self.endpoints,
        }
    }

    /// Which of several figures of a metric, such as `service` of `path`.
    pub(super) fn part(&self) -> Option<&str> {
        self.when.as_deref().or(self.path.as_deref())
    }
}

/// All lines of a file. `name` is what messages call it.
pub(super) fn read(name: &str, text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = serde_json::from_str(line).with_context(|| {
            let number = index + 1;
            format!(
                "{name}:{number}: no figure as `programming --json` or `datapath --json` print it"
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
