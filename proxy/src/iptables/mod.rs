//! iptables mode: Services as rules of the nat table, with a few fixed ones in filter.
//!
//! ```text
//! Desired ─ plan (service, dispatch, fixed) ─► chains ─┐
//! iptables-save ─ parse ─► image ──────────────────────┴─ transaction ─► iptables-restore --noflush
//! ```
//!
//! [`config`] says what is wanted, [`rule`] has the types, [`plan`] decides, [`transaction`] and [`render`] write,
//! [`parse`] reads back, [`placement`] chooses the program for each table, [`tool`] runs it under the lock of [`xlock`],
//! [`selftest`] tries it, [`routes`] lets refusals be reached, [`digest`] verifies, [`watch`] notices strangers and
//! [`audit`] says what they did. [`walk`] leads a packet through the rules and [`fake`] takes a transaction, both
//! without a kernel.
//!
//! Parity with kube-proxy's iptables mode with `--iptables-localhost-nodeports=false`: node ports are not served on
//! loopback addresses.

use std::fmt;
use std::time::{Duration, Instant};

use seaway_kernel::Capabilities;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Change, Desired, Family};

use crate::changes::Changes;
use crate::dataplane::{ApplyError, Dataplane, Report};

pub mod audit;
mod cleanup;
pub mod config;
pub mod digest;
pub mod dispatch;
pub mod fake;
pub mod fixed;
mod held;
pub mod names;
pub mod parse;
pub mod placement;
pub mod plan;
pub mod render;
pub mod routes;
pub mod rule;
pub mod selftest;
pub mod service;
mod settle;
pub mod tool;
pub mod transaction;
pub mod walk;
pub mod watch;
pub mod xlock;

use cleanup::{every_tool, keep_flows, remove_from, remove_routes};
pub use config::{IptablesConfig, without_ipv6};
pub use held::Held;
use held::{HeldByTool, State};
pub use placement::{NatVariant, Placement};
use placement::{Share, short};
use plan::{FamilyPlan, Image, Settings};
use rule::Table;
use tool::{Locking, Tool};
use transaction::Transaction;
use watch::{Commits, Stamp, Stamps, Watcher};

/// The rules of this network namespace.
#[derive(Debug)]
pub struct IptablesDataplane {
    /// What plain `iptables` is.
    plain: Option<IptablesVariant>,
    kernel: (u32, u32),
    nat_variant: NatVariant,
    families: Vec<OneFamily>,
    /// Where our tables are; set by [`Dataplane::observe`].
    placement: Option<Placement>,
    /// Why our nat rules are not in the nft variant although they should be.
    obstacle: Option<String>,
    /// What the self-test has said of our nat rules in the nft variant.
    nft_refused: Option<String>,
    /// Variants with rules of ours in tables that belong elsewhere: they go once the first plan is applied.
    leftovers: Vec<IptablesVariant>,
    /// What the self-test has found; before the first plan it has not run.
    tested: Option<Locking>,
    /// To be said once.
    without_ipv6: Option<String>,
    /// Frontends, or routes of the node, have come or gone since the routes were last looked at.
    routes_pending: bool,
    roads: routes::Follower,
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
        let plain = machine.iptables.as_ref().map(|p| p.variant);
        let mut watcher = Watcher::default();
        // Most probably: then the rules need not be read once more when they have been.
        if let Some(likely) = plain {
            watcher.place(Placement::usual(likely, config.nat_variant));
        }
        Self {
            plain,
            kernel: machine.kernel,
            nat_variant: config.nat_variant,
            families: families
                .map(|settings| OneFamily {
                    settings,
                    image: Image::default(),
                })
                .collect(),
            placement: None,
            obstacle: None,
            nft_refused: None,
            leftovers: Vec::new(),
            tested: None,
            without_ipv6: missing.map(str::to_owned),
            routes_pending: true,
            roads: routes::Follower::default(),
            watcher,
        }
    }

    fn family_list(&self) -> Vec<Family> {
        self.families.iter().map(|f| f.settings.family).collect()
    }

    fn stamps(&mut self) -> Stamps {
        let families = self.family_list();
        self.watcher.stamps(&families)
    }

    /// Compares tables with the image.
    async fn look(
        &mut self,
        share: Share,
        stamp: Option<Stamp>,
    ) -> Result<Option<String>, ApplyError> {
        let Share { variant, tables } = share;
        let started = Instant::now();
        for one in &self.families {
            let family = one.settings.family;
            let saved = Tool { family, variant }.save_tables(tables).await?;
            let chains = &one.image.chains;
            if let Some(difference) = audit::difference(chains, &saved, family, tables) {
                return Ok(Some(format!("{}: {difference}", family_name(family))));
            }
        }
        self.watcher.looked(share, stamp, started.elapsed());
        Ok(None)
    }

    /// Everything that is where it does not belong.
    async fn remove_leftovers(&mut self, placement: Placement) -> Result<(), ApplyError> {
        for tool in every_tool(self.family_list().into_iter()) {
            if self.leftovers.contains(&tool.variant) {
                let tables = placement.foreign_tables(tool.variant);
                if let Some(removed) = remove_from(tool, &tables, None).await? {
                    tracing::info!("removed what belongs elsewhere now: {removed}");
                }
            }
        }
        self.leftovers.clear();
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
    type Plan = Plan;
    type Held = Held;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        // Taken before reading where it can be: what is changed meanwhile is noticed afterwards.
        let stamps = match self.placement {
            Some(_) => self.stamps(),
            None => self.watcher.first_stamps(),
        };
        let (placement, saved) = self.read().await?;
        for one in &mut self.families {
            let family = one.settings.family;
            // The old one goes first: two of ten thousand Services need not be there at once.
            one.image = Image::default();
            let mut chains = plan::Chains::new();
            for Share { variant, tables } in placement.shares() {
                let tool = Tool { family, variant };
                let text = saved.iter().find(|(of, _)| *of == tool);
                let text = text.map_or("", |(_, text)| text);
                chains.append(&mut parse::saved_in(text, family, tables));
            }
            one.image = Image::observed(chains);
        }
        self.watcher.set_known(stamps);
        self.routes_pending = true;
        Ok(())
    }

    async fn rehearse(&mut self) -> Result<(), ApplyError> {
        if self.tested.is_none() {
            self.self_test().await?;
        }
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

    fn changes(&self, plan: &Plan) -> Changes {
        let families = self.families.iter();
        let changed = families.flat_map(|one| {
            let own = |plan: &&FamilyPlan| plan.family == one.settings.family;
            let plans = plan.families.iter().filter(own);
            plans.flat_map(|plan| one.image.changes(plan))
        });
        Changes {
            tables: changed.collect(),
            ..Changes::default()
        }
    }

    async fn apply(&mut self, plan: Plan) -> Result<Report, ApplyError> {
        let placement = self.settled().await?;
        let started = Instant::now();
        let mut report = Report::default();
        let locking = self.tested.unwrap_or(Locking::Its);
        let before = self.stamps();
        let mut commits = Commits::default();
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
                report.lock_wait += tell(transaction, family, placement, locking).await?;
                report.operations += transaction.operations;
                report.deletions += transaction.deletions;
                for (table, _) in transaction.inputs() {
                    commits.add(table, 1);
                }
            }
            self.routes_pending |= one.image.learn(family_plan);
            let counted = Table::ALL.map(|table| (family, table.as_str(), one.image.rules(table)));
            report.rules.extend(counted);
        }
        let after = self.stamps();
        self.watcher.changed_by_us(&before, after, commits);
        if !self.leftovers.is_empty() {
            self.remove_leftovers(placement).await?;
        }
        if self.routes_pending {
            self.sync_routes().await;
        }
        report.places = Table::ALL
            .map(|table| (table.as_str(), short(placement.of(table))))
            .to_vec();
        report.took = started.elapsed();
        Ok(report)
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        loop {
            tokio::select! {
                () = self.watcher.tick() => {}
                event = self.roads.next() => {
                    let families = &self.families;
                    let has_frontend =
                        |network| families.iter().any(|one| one.image.has_address_in(network));
                    self.routes_pending |=
                        event.is_none_or(|event| routes::concerns(&event, has_frontend));
                    continue;
                }
            }
            // At most once a tick, however much happens.
            if self.routes_pending {
                self.sync_routes().await;
            }
            let stamps = self.stamps();
            for (share, stamp) in self.watcher.due(stamps) {
                if let Some(reason) = self.look(share, stamp).await? {
                    return Ok(reason);
                }
            }
        }
    }

    async fn held(&mut self) -> Result<Held, ApplyError> {
        let placement = self.settled().await?;
        let mut tools = Vec::new();
        for one in &self.families {
            let family = one.settings.family;
            for Share { variant, tables } in placement.shares() {
                let tool = Tool { family, variant };
                let saved = tool.save_tables(tables).await?;
                let image = &one.image;
                let state = match audit::difference(&image.chains, &saved, family, tables) {
                    _ if *image == Image::default() => State::AsFound,
                    None => State::AsWanted,
                    Some(difference) => State::NotAsWanted(difference),
                };
                let chains = parse::saved_in(&saved, family, tables);
                tools.push(HeldByTool::new(tool, tables, state, &chains));
            }
        }
        Ok(Held {
            tools,
            leftovers: self.leftovers.iter().copied().map(short).collect(),
        })
    }

    async fn cleanup(&mut self) -> Result<Vec<String>, ApplyError> {
        self.remove(None).await
    }
}

impl IptablesDataplane {
    /// Removes our rules, but lets connection tracking go on with the flows that began with them: one chain without a
    /// packet stays. It goes with the next [`apply`](Dataplane::apply) of a full plan, or [`cleanup`](Dataplane::cleanup).
    ///
    /// # Errors
    ///
    /// As [`cleanup`](Dataplane::cleanup).
    pub async fn retire(&mut self) -> Result<Vec<String>, ApplyError> {
        let placement = self.settled().await?;
        self.remove(Some(placement.of(Table::Nat))).await
    }

    /// Removes everything of ours; `keeping` is the variant in which flows are to be kept alive.
    async fn remove(
        &mut self,
        keeping: Option<IptablesVariant>,
    ) -> Result<Vec<String>, ApplyError> {
        let mut removed = Vec::new();
        let mut failed = None;
        let keep = keep_flows();
        let served = self.family_list();
        for tool in every_tool([Family::V4, Family::V6].into_iter()) {
            let keeps = keeping == Some(tool.variant) && served.contains(&tool.family);
            // One program that fails does not keep what others hold.
            match remove_from(tool, &Table::ALL, keeps.then_some(&keep)).await {
                Ok(line) => removed.extend(line),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        removed.extend(remove_routes().await?);
        for one in &mut self.families {
            one.image = Image::default();
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(removed),
        }
    }
}

/// Tells the programs, in the order of the tables: of both at once where both are in one variant.
async fn tell(
    transaction: &Transaction,
    family: Family,
    placement: Placement,
    locking: Locking,
) -> Result<Duration, ApplyError> {
    let tool = |table| Tool {
        family,
        variant: placement.of(table),
    };
    if !placement.is_split() {
        let input = transaction.as_str();
        return tool(Table::Filter).restore(input, locking).await;
    }
    let mut waited = Duration::ZERO;
    for (table, input) in transaction.inputs() {
        waited += tool(table).restore(input, locking).await?;
    }
    Ok(waited)
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
