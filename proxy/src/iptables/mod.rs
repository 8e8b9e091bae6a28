//! iptables mode: Services as rules of the nat table, with a few fixed ones in filter.
//!
//! ```text
//! Desired ─ plan (service, dispatch, fixed) ─► chains ─┐
//! iptables-save ─ parse ─► image ──────────────────────┴─ transaction ─► iptables-restore --noflush
//! ```
//!
//! [`rule`] has the types, [`plan`] decides, [`transaction`] and [`render`] write, [`parse`] reads back, [`tool`]
//! runs the programs, [`watch`] notices strangers, [`walk`] leads a packet through the rules without a kernel.
//!
//! Parity with kube-proxy's iptables mode with `--iptables-localhost-nodeports=false`: node ports are not served on
//! loopback addresses.

use std::fmt;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use seaway_kernel::Capabilities;
use seaway_kernel::capabilities::{IptablesProgram, IptablesVariant};
use seaway_model::{Change, Delta, Desired, Family};

use crate::dataplane::{ApplyError, Dataplane, Report};

pub mod dispatch;
pub mod fixed;
pub mod names;
pub mod parse;
pub mod plan;
pub mod render;
pub mod rule;
pub mod service;
pub mod tool;
pub mod transaction;
pub mod walk;
pub mod watch;

use plan::{FamilyPlan, Image, Settings};
use tool::{Tool, VARIANTS};
use transaction::Transaction;
use watch::Generation;

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesConfig {
    /// `--cluster-cidr`: sources in here are pods.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// Serve IPv6 as well; needs ip6tables.
    pub ipv6: bool,
    /// Drop forwarded packets that connection tracking calls invalid. Off where it is told to be liberal
    /// (`net.netfilter.nf_conntrack_tcp_be_liberal`) or where routes are not symmetric.
    pub drop_invalid: bool,
}

impl Default for IptablesConfig {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            masquerade_all: false,
            ipv6: false,
            drop_invalid: true,
        }
    }
}

/// The rules of this network namespace.
#[derive(Debug)]
pub struct IptablesDataplane {
    default_variant: Option<IptablesVariant>,
    families: Vec<OneFamily>,
    /// Set by [`Dataplane::observe`].
    variant: Option<IptablesVariant>,
    /// The other variant holds rules of ours: they go once the first plan is applied.
    leftovers: bool,
    generation: Option<Generation>,
    /// The generation that the image is known to describe.
    known_generation: Option<u32>,
    /// How long the last look at the kernel took.
    last_look: Duration,
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
    pub fn new(config: &IptablesConfig, capabilities: &Capabilities) -> Self {
        let random_fully = capabilities
            .iptables
            .as_ref()
            .is_none_or(knows_random_fully);
        let family = |family| OneFamily {
            settings: Settings {
                masquerade_all: config.masquerade_all,
                drop_invalid: config.drop_invalid,
                random_fully,
                ..Settings::new(family, &config.cluster_cidrs)
            },
            image: Image::default(),
        };
        let mut families = vec![family(Family::V4)];
        if config.ipv6 {
            families.push(family(Family::V6));
        }
        Self {
            default_variant: capabilities.iptables.as_ref().map(|p| p.variant),
            families,
            variant: None,
            leftovers: false,
            generation: None,
            known_generation: None,
            last_look: Duration::ZERO,
        }
    }

    /// Reads both variants of all families and settles on one variant.
    async fn detect(&mut self) -> Result<IptablesVariant, ApplyError> {
        let mut saved = Vec::new();
        for tool in every_tool(self.families.iter().map(|f| f.settings.family)) {
            if let Some(text) = tool.save_if_installed().await? {
                saved.push((tool.variant, text));
            }
        }
        let variant =
            tool::choose(&saved, self.default_variant).ok_or_else(|| ApplyError::Missing {
                what: "iptables".into(),
                remedy: "install the iptables package (1.8 or newer) or use --mode ebpf".into(),
            })?;
        let ours = |text: &str| !parse::saved(text, Family::V4).is_empty();
        self.leftovers = saved.iter().any(|(v, text)| *v != variant && ours(text));
        self.variant = Some(variant);
        Ok(variant)
    }

    async fn settled(&mut self) -> Result<IptablesVariant, ApplyError> {
        match self.variant {
            Some(variant) => Ok(variant),
            None => self.detect().await,
        }
    }

    /// The generation now; `None` in the legacy variant or where the kernel does not say.
    fn generation(&mut self) -> Option<u32> {
        if self.variant != Some(IptablesVariant::NfTables) {
            return None;
        }
        if self.generation.is_none() {
            self.generation = Generation::open().ok();
        }
        self.generation.as_ref()?.now().ok().flatten()
    }

    /// Compares the kernel with the image.
    async fn look(&mut self) -> Result<Option<String>, ApplyError> {
        let variant = self.settled().await?;
        let before = self.generation();
        let started = Instant::now();
        for one in &self.families {
            let family = one.settings.family;
            let text = Tool { family, variant }.save().await?;
            let actual = parse::saved(&text, family);
            if let Some(difference) = watch::difference(&one.image.chains, &actual) {
                return Ok(Some(format!("{}: {difference}", family_name(family))));
            }
        }
        self.last_look = started.elapsed();
        self.known_generation = before;
        Ok(None)
    }

    async fn remove_leftovers(&mut self, in_use: IptablesVariant) -> Result<(), ApplyError> {
        for tool in every_tool(self.families.iter().map(|f| f.settings.family)) {
            if tool.variant != in_use {
                remove_all(tool).await?;
            }
        }
        self.leftovers = false;
        Ok(())
    }
}

impl Dataplane for IptablesDataplane {
    const USES_IPTABLES: bool = true;

    type Plan = Plan;

    async fn observe(&mut self) -> Result<(), ApplyError> {
        let variant = self.detect().await?;
        let generation = self.generation();
        for one in &mut self.families {
            let family = one.settings.family;
            let text = Tool { family, variant }.save().await?;
            one.image = Image::observed(parse::saved(&text, family));
        }
        self.known_generation = generation;
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
        let before = self.generation();
        let mut commits: u32 = 0;
        for family_plan in plan.families {
            let transaction = &family_plan.transaction;
            if !transaction.is_empty() {
                let family = family_plan.family;
                Tool { family, variant }.restore(transaction).await?;
                report.operations += transaction.operations;
                report.deletions += transaction.deletions;
                commits += transaction.commits;
            }
            let own = |one: &&mut OneFamily| one.settings.family == family_plan.family;
            if let Some(one) = self.families.iter_mut().find(own) {
                one.image.learn(family_plan);
            }
        }
        // Each table is one change of the rules. If nobody else made one meanwhile, there is nothing to look at.
        if before == self.known_generation {
            let expected = before.map(|generation| generation.wrapping_add(commits));
            if self.generation() == expected {
                self.known_generation = expected;
            }
        }
        if self.leftovers {
            self.remove_leftovers(variant).await?;
        }
        report.took = started.elapsed();
        Ok(report)
    }

    async fn watch(&mut self) -> Result<String, ApplyError> {
        loop {
            tokio::time::sleep(watch::pause(self.last_look)).await;
            let generation = self.generation();
            if generation.is_some() && generation == self.known_generation {
                continue;
            }
            if let Some(reason) = self.look().await? {
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
        for one in &mut self.families {
            one.image = Image::default();
        }
        Ok(removed)
    }
}

/// Removes every chain of ours and every jump to one, then looks again.
async fn remove_all(tool: Tool) -> Result<Option<String>, ApplyError> {
    let Some(text) = tool.save_if_installed().await? else {
        return Ok(None);
    };
    let mut delta = Delta::new();
    delta.replace_observed(parse::saved(&text, tool.family));
    if delta.is_in_sync() {
        return Ok(None);
    }
    let chains = delta.iter_observed().filter(|(id, _)| id.name.is_ours());
    let chains = chains.count();
    let transaction = Transaction::new(tool.family, &delta);
    tool.restore(&transaction).await?;
    let left = parse::saved(&tool.save().await?, tool.family);
    if let Some((id, _)) = left.first_key_value() {
        return Err(ApplyError::Failed {
            what: format!("cleanup of {}", tool.name()),
            reason: format!(
                "{} chains are left or came back, {} of table {} among them; is another proxy running?",
                left.len(),
                id.name,
                id.table.as_str()
            ),
        });
    }
    let jumps = transaction.deletions - chains;
    Ok(Some(format!(
        "{}: {chains} chains and {jumps} jumps to them",
        tool.name()
    )))
}

fn every_tool(families: impl Iterator<Item = Family>) -> impl Iterator<Item = Tool> {
    families.flat_map(|family| VARIANTS.map(|variant| Tool { family, variant }))
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// iptables 1.6.2 was the first with MASQUERADE `--random-fully`.
fn knows_random_fully(program: &IptablesProgram) -> bool {
    let mut numbers = program
        .version
        .split('.')
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= (1, 6, 2)
}
