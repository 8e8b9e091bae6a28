//! What `check` has found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::ebpf::Probed;
use crate::peers::Peer;

/// Everything that is told; its `Display` is for people, its JSON for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) kernel: String,
    /// None: not installed.
    pub(super) iptables: Option<Program>,
    pub(super) ip6tables: Option<Program>,
    pub(super) modes: Modes,
    /// With `--mode ebpf`.
    pub(super) ebpf_needs: Option<Needs>,
    /// None where mode iptables cannot run.
    pub(super) tables: Option<Tables>,
    pub(super) bridges: String,
    pub(super) other_proxies: Vec<Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Program {
    pub(super) version: String,
    pub(super) variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Modes {
    pub(super) iptables: Verdict,
    pub(super) ebpf: Verdict,
}

/// Whether a mode can run, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    pub(super) can_run: bool,
    pub(super) reason: Option<String>,
}

impl Verdict {
    pub(super) fn of(outcome: &anyhow::Result<()>) -> Self {
        let reason = outcome.as_ref().err().map(|error| format!("{error:#}"));
        Self {
            can_run: reason.is_none(),
            reason,
        }
    }
}

/// What mode ebpf needs of the kernel, and what it meets on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Needs {
    pub(super) features: Vec<Probed>,
    /// Why the kernel could not be asked.
    pub(super) error: Option<String>,
    pub(super) remarks: Vec<String>,
}

/// Where our tables are or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tables {
    pub(super) placement: Option<String>,
    /// Why it is not known, or why it is not the one that is wanted.
    pub(super) reason: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel: {}", self.kernel)?;
        for (name, program) in [("iptables", &self.iptables), ("ip6tables", &self.ip6tables)] {
            match program {
                Some(Program { version, variant }) => writeln!(f, "{name}: {version} ({variant})")?,
                None => writeln!(f, "{name}: not installed")?,
            }
        }
        let Modes { iptables, ebpf } = &self.modes;
        for (mode, verdict) in [("iptables", iptables), ("ebpf", ebpf)] {
            match &verdict.reason {
                None => writeln!(f, "mode {mode}: can run")?,
                Some(reason) => writeln!(f, "mode {mode}: cannot run: {reason}")?,
            }
        }
        if let (true, Some(reason)) = (ebpf.can_run, &iptables.reason) {
            writeln!(
                f,
                "mode ebpf: would not serve SCTP, which takes rules: {reason}"
            )?;
        }
        if let Some(needs) = &self.ebpf_needs {
            write!(f, "{needs}")?;
        }
        match &self.tables {
            Some(Tables {
                placement: Some(placement),
                reason: None,
            }) => {
                writeln!(f, "iptables tables: {placement}")?;
            }
            Some(Tables {
                placement: Some(placement),
                reason: Some(reason),
            }) => {
                writeln!(f, "iptables tables: {placement} (not nft: {reason})")?;
            }
            Some(Tables {
                placement: None,
                reason,
            }) => {
                let reason = reason.as_deref().unwrap_or_default();
                writeln!(f, "iptables tables: unknown: {reason}")?;
            }
            None => {}
        }
        writeln!(f, "bridges: {}", self.bridges)?;
        if self.other_proxies.is_empty() {
            writeln!(f, "other proxies: none")?;
        }
        self.other_proxies
            .iter()
            .try_for_each(|peer| writeln!(f, "other proxy: {peer}"))
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => writeln!(f, "what mode ebpf needs (feature, Linux, here, for):")?,
            Some(error) => writeln!(f, "what mode ebpf needs cannot be asked: {error}")?,
        }
        for feature in &self.features {
            writeln!(f, "  {feature}")?;
        }
        self.remarks
            .iter()
            .try_for_each(|remark| writeln!(f, "mode ebpf: {remark}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn report() -> Report {
        let program = Program {
            version: "1.8.9".into(),
            variant: "nf_tables".into(),
        };
        Report {
            kernel: "6.1".into(),
            iptables: Some(program),
            ip6tables: None,
            modes: Modes {
                iptables: Verdict::of(&Ok(())),
                ebpf: Verdict::of(&Err(anyhow::anyhow!("no bpf_loop"))),
            },
            ebpf_needs: Some(Needs {
                features: vec![Probed {
                    name: "bpf_loop",
                    since: "5.17",
                    why: "finding an endpoint in a set",
                    there: false,
                    instead: None,
                }],
                error: None,
                remarks: vec!["programs are attached to links through tcx".into()],
            }),
            tables: Some(Tables {
                placement: Some("filter=legacy nat=legacy".into()),
                reason: Some("iptables-nft is not installed".into()),
            }),
            bridges: "none carries pods, so none has to pass netfilter".into(),
            other_proxies: vec![Peer {
                name: "kube-proxy",
                evidence: vec!["chain KUBE-SERVICES".into()],
                in_our_place: true,
                remedy: "stop it",
            }],
        }
    }

    #[test]
    fn for_people() {
        expect![[r#"
            kernel: 6.1
            iptables: 1.8.9 (nf_tables)
            ip6tables: not installed
            mode iptables: can run
            mode ebpf: cannot run: no bpf_loop
            what mode ebpf needs (feature, Linux, here, for):
              bpf_loop                                 5.17   MISSING  finding an endpoint in a set
            mode ebpf: programs are attached to links through tcx
            iptables tables: filter=legacy nat=legacy (not nft: iptables-nft is not installed)
            bridges: none carries pods, so none has to pass netfilter
            other proxy: kube-proxy (chain KUBE-SERVICES): stop it
        "#]]
        .assert_eq(&report().to_string());
        let bare = Report {
            iptables: None,
            modes: Modes {
                iptables: Verdict::of(&Err(anyhow::anyhow!("iptables is not installed"))),
                ebpf: Verdict::of(&Ok(())),
            },
            ebpf_needs: None,
            tables: None,
            other_proxies: Vec::new(),
            ..report()
        };
        expect![[r#"
            kernel: 6.1
            iptables: not installed
            ip6tables: not installed
            mode iptables: cannot run: iptables is not installed
            mode ebpf: can run
            mode ebpf: would not serve SCTP, which takes rules: iptables is not installed
            bridges: none carries pods, so none has to pass netfilter
            other proxies: none
        "#]]
        .assert_eq(&bare.to_string());
    }

    #[test]
    fn for_programs() {
        let json = serde_json::to_string_pretty(&report()).unwrap();
        expect![[r#"
            {
              "kernel": "6.1",
              "iptables": {
                "version": "1.8.9",
                "variant": "nf_tables"
              },
              "ip6tables": null,
              "modes": {
                "iptables": {
                  "canRun": true,
                  "reason": null
                },
                "ebpf": {
                  "canRun": false,
                  "reason": "no bpf_loop"
                }
              },
              "ebpfNeeds": {
                "features": [
                  {
                    "name": "bpf_loop",
                    "since": "5.17",
                    "why": "finding an endpoint in a set",
                    "there": false,
                    "instead": null
                  }
                ],
                "error": null,
                "remarks": [
                  "programs are attached to links through tcx"
                ]
              },
              "tables": {
                "placement": "filter=legacy nat=legacy",
                "reason": "iptables-nft is not installed"
              },
              "bridges": "none carries pods, so none has to pass netfilter",
              "otherProxies": [
                {
                  "name": "kube-proxy",
                  "evidence": [
                    "chain KUBE-SERVICES"
                  ],
                  "inOurPlace": true,
                  "remedy": "stop it"
                }
              ]
            }"#]]
        .assert_eq(&json);
    }
}
