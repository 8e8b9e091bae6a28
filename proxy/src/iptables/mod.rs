//! iptables mode: Services as rules of the nat table, with a few fixed ones in filter.
//!
//! ```text
//! Desired ─ plan (service, dispatch, fixed) ─► chains ─┐
//! iptables-save ─ parse ─► image ──────────────────────┴─ transaction ─► iptables-restore --noflush
//! ```
//!
//! [`config`] says what is wanted, [`rule`] has the types, [`plan`] decides, [`transaction`] and [`render`] write,
//! [`parse`] reads back, [`tool`] runs the programs under the lock of [`xlock`], [`selftest`] tries them, [`routes`]
//! lets refusals be reached, [`digest`] verifies and [`watch`] notices strangers. [`walk`] leads a packet through the
//! rules and [`fake`] takes a transaction, both without a kernel.
//!
//! Parity with kube-proxy's iptables mode with `--iptables-localhost-nodeports=false`: node ports are not served on
//! loopback addresses.

use std::fmt;
use std::time::Instant;

use seaway_kernel::Capabilities;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Change, Desired, Family};

use crate::dataplane::{ApplyError, Dataplane, Report};

mod cleanup;
pub mod config;
pub mod digest;
pub mod dispatch;
pub mod fake;
pub mod fixed;
pub mod names;
pub mod parse;
pub mod plan;
pub mod render;
pub mod routes;
pub mod rule;
pub mod selftest;
pub mod service;
pub mod tool;
pub mod transaction;
pub mod walk;
pub mod watch;
pub mod xlock;

use cleanup::{every_tool, remove_all, remove_routes};
pub use config::{IptablesConfig, without_ipv6};
use plan::{FamilyPlan, Image, Settings};
use tool::{Locking, Tool};
use watch::{Stamp, Watcher};

/// The rules of this network namespace.
#[derive(Debug)]
pub struct IptablesDataplane {
    default_variant: Option<IptablesVariant>,
    families: Vec<OneFamily>,
    /// Set by [`Dataplane::observe`].
    variant: Option<IptablesVariant>,
    /// The other variant holds rules of ours: they go once the first plan is applied.
    leftovers: bool,
    /// What the self-test has found; before the first apply it has not run.
    tested: Option<Locking>,
    /// To be said once.
    without_ipv6: Option<String>,
    /// Frontends have come or gone since the routes were last looked at.
    routes_pending: bool,
    watcher: Watcher,
}

#[derive(Debug)]
struct OneFamily {
    settings: Settings,
    image: Image,
}

/// What [`Dataplane::apply`] will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub families: Vec<FamilyPlan>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in &self.families {
            if plan.transaction.is_empty() {
                writeln!(f, "# {}: nothing to do", family_name(plan.family))?;
            } else {
                writeln!(f, "# {}", family_name(plan.family))?;
                write!(f, "{}", plan.transaction)?;
            }
        }
        Ok(())
    }
}

impl IptablesDataplane {
    /// A data plane for the network namespace in which its methods run. Reads nothing yet.
    pub fn new(config: &IptablesConfig, machine: &Capabilities) -> Self {
        let families = config.families(machine).into_iter();
        let missing = without_ipv6(machine).filter(|_| config.ipv6);
        Self {
            default_variant: machine.iptables.as_ref().map(|p| p.variant),
            families: families
                .map(|settings| OneFamily {
                    settings,
                    image: Image::default(),
                })
                .collect(),
            variant: None,
            leftovers: false,
            tested: None,
            without_ipv6: missing.map(str::to_owned),
            routes_pending: true,
            watcher: Watcher::default(),
        }
    }

    fn family_list(&self) -> Vec<Family> {
        self.families.iter().map(|f| f.settings.family).collect()
    }

    /// Reads both variants of all families and settles on one variant.
    async fn detect(&mut self) -> Result<IptablesVariant, ApplyError> {
        self.read().await.map(|(variant, _)| variant)
    }

    /// The same, with what the variant has saved.
    async fn read(&mut self) -> Result<(IptablesVariant, Vec<(Tool, String)>), ApplyError> {
        let mut saved = Vec::new();
        for tool in every_tool(self.family_list().into_iter()) {
            if let Some(text) = tool.save_if_installed().await? {
                saved.push((tool, text));
            }
        }
        let variant =
            tool::choose(&saved, self.default_variant).ok_or_else(|| ApplyError::Missing {
                what: "iptables".into(),
                remedy: "install the iptables package (1.8 or newer) or use --mode ebpf".into(),
            })?;
        let ours = |text: &str| !parse::saved(text, Family::V4).is_empty();
        self.leftovers = saved
            .iter()
            .any(|(tool, text)| tool.variant != variant && ours(text));
        if self.variant != Some(variant) {
            self.watcher.reset();
        }
        self.variant = Some(variant);
        saved.retain(|(tool, _)| tool.variant == variant);
        Ok((variant, saved))
    }

    async fn settled(&mut self) -> Result<IptablesVariant, ApplyError> {
        match self.variant {
            Some(variant) => Ok(variant),
            None => self.detect().await,
        }
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let families = self.family_list();
        self.watcher.stamp(self.variant?, &families)
    }

    /// Tries every kind of rule on the very program and kernel that are going to be used. A node on which IPv6 does
    /// not work serves IPv4; the error of IPv4 names what is missing. Leaves nothing behind.
    pub async fn self_test(&mut self) -> Result<(), ApplyError> {
        let variant = self.settled().await?;
        let before = self.stamp();
        let mut locking = Locking::Its;
        for settings in self
            .families
            .iter()
            .map(|one| one.settings.clone())
            .collect::<Vec<_>>()
        {
            let family = settings.family;
            let tool = Tool { family, variant };
            if family == Family::V4 {
                locking = tool.locking().await?;
            }
            match (tool.try_rules(&settings, locking).await, family) {
                (Ok(()), _) => {}
                (Err(error), Family::V4) => return Err(error),
                (Err(error), Family::V6) => {
                    self.families.retain(|one| one.settings.family != family);
                    self.without_ipv6 = Some(error.to_string());
                }
            }
        }
        self.tested = Some(locking);
        if let Some(reason) = self.without_ipv6.take() {
            tracing::warn!(reason, "serving IPv4 only");
        }
        let after = self.stamp();
        let tests = 4 * u32::try_from(self.families.len()).unwrap_or(0);
        self.watcher.changed_by_us(before, after, tests);
        Ok(())
    }

    /// Compares the kernel with the image.
    async fn look(&mut self, stamp: Option<Stamp>) -> Result<Option<String>, ApplyError> {
        let variant = self.settled().await?;
        let started = Instant::now();
        for one in &self.families {
            let family = one.settings.family;
            let text = Tool { family, variant }.save().await?;
            let actual = parse::saved(&text, family);
            if let Some(difference) = watch::difference(&one.image.chains, &actual) {
                return Ok(Some(format!("{}: {difference}", family_name(family))));
            }
        }
        self.watcher.looked(stamp, started.elapsed());
        Ok(None)
    }

    async fn remove_leftovers(&mut self, in_use: IptablesVariant) -> Result<(), ApplyError> {
        for tool in every_tool(self.family_list().into_iter()) {
            if tool.variant != in_use {
                remove_all(tool).await?;
            }
        }
        self.leftovers = false;
        Ok(())
    }

    /// Without them refusals of a node without a default route are not as they should be, and nothing else: no
    /// reason to hold back rules.
    async fn sync_routes(&mut self) {
        let addresses = self.families.iter().flat_map(|one| one.image.addresses());
        match routes::sync(&addresses.collect()).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "frontends without a route have one of ours"),
            Err(error) => {
                tracing::warn!(%error, "frontends without a route are unreachable, not refused");
            }
        }
        self.routes_pending = false;
    }
}

impl Dataplane for IptablesDataplane {
    const USES_IPTABLES: bool = true;

    type Plan = Plan;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        // Taken before reading where it can be: what is changed meanwhile is noticed afterwards.
        let stamp = self.stamp();
        let (_, saved) = self.read().await?;
        for one in &mut self.families {
            let family = one.settings.family;
            let text = saved.iter().find(|(tool, _)| tool.family == family);
            let text = text.map_or("", |(_, text)| text);
            one.image = Image::observed(parse::saved(text, family));
        }
        self.watcher.set_known(stamp);
        self.routes_pending = true;
        Ok(())
    }

    fn plan(&self, desired: &Desired, change: &Change) -> Plan {
        Plan {
            families: self
                .families
                .iter()
                .map(|one| one.image.plan(desired, change, &one.settings))
                .collect(),
        }
    }

    async fn apply(&mut self, plan: Plan) -> Result<Report, ApplyError> {
        let variant = self.settled().await?;
        let started = Instant::now();
        let mut report = Report::default();
        if self.tested.is_none() {
            self.self_test().await?;
        }
        let locking = self.tested.unwrap_or(Locking::Its);
        let before = self.stamp();
        let mut commits: u32 = 0;
        for family_plan in plan.families {
            let family = family_plan.family;
            let own = |one: &&mut OneFamily| one.settings.family == family;
            // The self-test may have found that a family cannot be served.
            let Some(one) = self.families.iter_mut().find(own) else {
                continue;
            };
            if family_plan.corrected {
                tracing::error!(
                    family = family_name(family),
                    "a partial sync would not have ended at the rules of a full one; wrote those"
                );
                report.corrections += 1;
            }
            let transaction = &family_plan.transaction;
            if !transaction.is_empty() {
                let tool = Tool { family, variant };
                report.lock_wait += tool.restore(transaction.as_str(), locking).await?;
                report.operations += transaction.operations;
                report.deletions += transaction.deletions;
                commits += transaction.commits;
            }
            self.routes_pending |= one.image.learn(family_plan);
            let counted =
                rule::Table::ALL.map(|table| (family, table.as_str(), one.image.rules(table)));
            report.rules.extend(counted);
        }
        let after = self.stamp();
        self.watcher.changed_by_us(before, after, commits);
        if self.leftovers {
            self.remove_leftovers(variant).await?;
        }
        if self.routes_pending {
            self.sync_routes().await;
        }
        report.took = started.elapsed();
        Ok(report)
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        loop {
            self.watcher.tick().await;
            let stamp = self.stamp();
            if self.watcher.is_due(stamp.as_ref())
                && let Some(reason) = self.look(stamp).await?
            {
                return Ok(reason);
            }
        }
    }

    async fn dump(&mut self) -> Result<String, ApplyError> {
        use fmt::Write;
        let variant = self.settled().await?;
        let mut text = String::new();
        for one in &self.families {
            let family = one.settings.family;
            let tool = Tool { family, variant };
            let saved = tool.save().await?;
            let actual = parse::saved(&saved, family);
            let rules: usize = actual.values().map(|rules| rules.len()).sum();
            let state = match watch::difference(&one.image.chains, &actual) {
                _ if one.image == Image::default() => "as found".to_owned(),
                None => "as wanted".to_owned(),
                Some(difference) => format!("not as wanted: {difference}"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# {}: {} chains, {rules} rules, {state}",
                tool.name(),
                actual.len(),
            );
            for (id, rules) in &actual {
                let table = id.table.as_str();
                for rule in rules.iter() {
                    let rule = render::rule(rule, family);
                    let _ = writeln!(text, "{table} {} {rule}", id.name);
                }
            }
        }
        Ok(text)
    }

    async fn cleanup(&mut self) -> Result<Vec<String>, ApplyError> {
        let mut removed = Vec::new();
        for tool in every_tool([Family::V4, Family::V6].into_iter()) {
            removed.extend(remove_all(tool).await?);
        }
        removed.extend(remove_routes().await?);
        for one in &mut self.families {
            one.image = Image::default();
        }
        Ok(removed)
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
