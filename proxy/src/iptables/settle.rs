//! Where our tables are to be: reading both variants, and trying the programs that are chosen.

use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::Family;

use super::placement::{self, Evidence, NatVariant, Node, Placement, VARIANTS};
use super::rule::Table;
use super::tool::{Locking, Tool};
use super::watch::Commits;
use super::{IptablesDataplane, selftest};
use crate::dataplane::{ApplyError, Dataplane};

/// What became of trying every kind of rule.
enum Tried {
    /// All that is needed works, but for families that were given up.
    Works(Locking),
    /// Not our nat rules in the nft variant, for this reason.
    NotInNft(ApplyError),
}

impl IptablesDataplane {
    /// Where our tables are, or are to be; and why our nat rules are not in the nft variant where they should be.
    pub async fn placement(&mut self) -> Result<(Placement, Option<&str>), ApplyError> {
        let placement = self.settled().await?;
        Ok((placement, self.obstacle.as_deref()))
    }

    pub(super) async fn settled(&mut self) -> Result<Placement, ApplyError> {
        match self.placement {
            Some(placement) => Ok(placement),
            None => self.read().await.map(|(placement, _)| placement),
        }
    }

    /// Reads both variants of all families and settles on where our tables belong. Returns what the variants in use
    /// have saved.
    pub(super) async fn read(&mut self) -> Result<(Placement, Vec<(Tool, String)>), ApplyError> {
        let mut saved = Vec::new();
        let node = Node {
            nft: self.ask(IptablesVariant::NfTables, &mut saved).await?,
            legacy: self.ask(IptablesVariant::Legacy, &mut saved).await?,
            plain: self.plain,
            kernel: self.kernel,
            nft_refused: self.nft_refused.clone(),
        };
        let choice =
            placement::choose(&node, self.nat_variant).ok_or_else(|| ApplyError::Missing {
                what: "iptables".into(),
                remedy: "install the iptables package (1.8 or newer) or use --mode ebpf".into(),
            })?;
        let placement = choice.placement;
        if let (Some(reason), NatVariant::Nft) = (&choice.obstacle, self.nat_variant) {
            return Err(cannot_be_in_nft(reason));
        }
        self.obstacle = choice.obstacle;
        let evidence = |variant| match variant {
            IptablesVariant::NfTables => node.nft.as_ref().ok(),
            IptablesVariant::Legacy => node.legacy.as_ref().ok(),
        };
        let misplaced = |variant: &IptablesVariant| {
            let tables = placement.foreign_tables(*variant);
            evidence(*variant).is_some_and(|evidence| evidence.has_ours_in(&tables))
        };
        self.leftovers = VARIANTS.into_iter().filter(misplaced).collect();
        if self.placement != Some(placement) {
            self.placement = Some(placement);
            for one in &mut self.families {
                one.settings.comments = placement.nat == IptablesVariant::NfTables;
                one.settings.unknown_ports = if placement.is_split() {
                    Table::Nat
                } else {
                    Table::Filter
                };
            }
            self.watcher.place(placement);
            self.tested = None;
        }
        let used = placement.shares().into_iter().map(|share| share.variant);
        let used: Vec<_> = used.collect();
        saved.retain(|(tool, _)| used.contains(&tool.variant));
        Ok((placement, saved))
    }

    /// What a variant has saved in all families. One that the node does not rely on may fail: it cannot be used then.
    async fn ask(
        &self,
        variant: IptablesVariant,
        saved: &mut Vec<(Tool, String)>,
    ) -> Result<Result<Evidence, String>, ApplyError> {
        let in_use = self
            .placement
            .is_some_and(|p| p.shares().iter().any(|share| share.variant == variant));
        let relied_on = in_use || self.plain == Some(variant);
        let mut evidence = Evidence::default();
        for family in self.family_list() {
            let tool = Tool { family, variant };
            match tool.save_if_installed().await {
                Ok(Some(text)) => {
                    evidence.add(&text);
                    saved.push((tool, text));
                }
                Ok(None) => return Ok(Err(format!("{} is not installed", tool.name()))),
                Err(error) if relied_on => return Err(error),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        Ok(Ok(evidence))
    }

    /// Tries every kind of rule where it is going to be, on the very programs and kernel. A node on which IPv6 does not
    /// work serves IPv4; a legacy node whose nft variant does not work keeps everything in the legacy one, unless told
    /// otherwise; any other error names what is missing. Leaves nothing behind.
    pub async fn self_test(&mut self) -> Result<(), ApplyError> {
        loop {
            let locking = match self.try_programs().await? {
                Tried::Works(locking) => locking,
                Tried::NotInNft(error) if self.nat_variant == NatVariant::Auto => {
                    self.nft_refused = Some(error.to_string());
                    self.observe().await?;
                    continue;
                }
                Tried::NotInNft(error) => return Err(cannot_be_in_nft(&error.to_string())),
            };
            self.tested = Some(locking);
            if let Some(reason) = self.without_ipv6.take() {
                tracing::warn!(reason, "serving IPv4 only");
            }
            if let Some(placement) = self.placement {
                tracing::info!("iptables: {placement}");
            }
            if let Some(reason) = &self.obstacle {
                tracing::warn!(
                    reason,
                    "our nat rules stay in the legacy variant of iptables, which reads and replaces all of them for each \
                     change: some 70 ms of processor time with 10,000 Services, where the nft variant takes some 10"
                );
            }
            return Ok(());
        }
    }

    async fn try_programs(&mut self) -> Result<Tried, ApplyError> {
        let placement = self.settled().await?;
        let before = self.stamps();
        let mut locking = Locking::Its;
        let mut commits = Commits::default();
        for share in placement.shares() {
            let variant = share.variant;
            if variant == IptablesVariant::Legacy {
                let family = Family::V4;
                locking = Tool { family, variant }.locking().await?;
            }
            let settings: Vec<_> = self.families.iter().map(|f| f.settings.clone()).collect();
            for settings in settings {
                let family = settings.family;
                let tool = Tool { family, variant };
                for table in share.tables {
                    commits.add(*table, selftest::COMMITS);
                }
                let Err(error) = tool.try_rules(share.tables, &settings, locking).await else {
                    continue;
                };
                if variant != placement.filter {
                    return Ok(Tried::NotInNft(error));
                }
                if family == Family::V4 {
                    return Err(error);
                }
                self.families.retain(|one| one.settings.family != family);
                self.without_ipv6 = Some(error.to_string());
            }
        }
        let after = self.stamps();
        self.watcher.changed_by_us(&before, after, commits);
        Ok(Tried::Works(locking))
    }
}

fn cannot_be_in_nft(reason: &str) -> ApplyError {
    ApplyError::Missing {
        what: "the nft variant of iptables for our nat rules (--iptables-nat-variant=nft)".into(),
        remedy: format!("{reason}; repair that, or use --iptables-nat-variant=auto"),
    }
}
