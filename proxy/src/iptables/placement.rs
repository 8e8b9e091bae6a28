//! Which variant of iptables keeps which of our tables.
//!
//! The legacy variant reads and replaces a whole table for each change, so what a change costs grows with the number
//! of Services, whatever we do (docs/adr/0007). The nft variant changes what is told. On a node whose `iptables` is
//! legacy, our nat rules can be kept by the nft program all the same: the kernel asks the nat rules of both until one
//! of them has set up a translation. Our filter rules stay in the node's own variant: what one filter table accepts the
//! other may still drop.

use std::fmt;

use clap::ValueEnum;
use seaway_kernel::capabilities::IptablesVariant;

use super::parse;
use super::rule::Table;

#[cfg(test)]
mod tests;

/// Both variants, the newer first.
pub const VARIANTS: [IptablesVariant; 2] = [IptablesVariant::NfTables, IptablesVariant::Legacy];

/// Chains by which the kubelet says which variant the node uses (KEP-3178).
const KUBELET_HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];

/// Before Linux 4.18 only one of the two variants could have a nat table.
const NAT_OF_BOTH: (u32, u32) = (4, 18);

/// `--iptables-nat-variant`: which variant keeps our nat rules on a node whose `iptables` is legacy. Without meaning
/// on other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum NatVariant {
    /// The nft variant where program and kernel can; else the node's own, with a warning.
    #[default]
    Auto,
    /// The node's own, as the filter rules.
    Same,
    /// The nft variant, or nothing.
    Nft,
}

/// Which variant keeps each of our tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The node's own variant.
    pub filter: IptablesVariant,
    pub nat: IptablesVariant,
}

/// The tables that one variant keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub variant: IptablesVariant,
    pub tables: &'static [Table],
}

impl Placement {
    /// Both tables in one variant.
    pub fn whole(variant: IptablesVariant) -> Self {
        Self {
            filter: variant,
            nat: variant,
        }
    }

    /// On a node of this variant where nothing is in the way.
    pub fn usual(own: IptablesVariant, setting: NatVariant) -> Self {
        let nat = match setting {
            NatVariant::Same => own,
            NatVariant::Auto | NatVariant::Nft => IptablesVariant::NfTables,
        };
        Self { filter: own, nat }
    }

    /// The variant of a table.
    pub fn of(self, table: Table) -> IptablesVariant {
        match table {
            Table::Filter => self.filter,
            Table::Nat => self.nat,
        }
    }

    /// Whether the tables are in two variants.
    pub fn is_split(self) -> bool {
        self.filter != self.nat
    }

    /// The variants in use, in the order in which they are told of a change: as the tables of one transaction.
    pub fn shares(self) -> Vec<Share> {
        let share = |variant, tables| Share { variant, tables };
        if self.is_split() {
            vec![
                share(self.filter, &[Table::Filter]),
                share(self.nat, &[Table::Nat]),
            ]
        } else {
            vec![share(self.filter, &Table::ALL)]
        }
    }

    /// What a variant has to hold nothing of.
    pub fn foreign_tables(self, variant: IptablesVariant) -> Vec<Table> {
        let elsewhere = |table: &Table| self.of(*table) != variant;
        Table::ALL.into_iter().filter(elsewhere).collect()
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [filter, nat] = [self.filter, self.nat].map(short);
        write!(f, "filter={filter} nat={nat}")
    }
}

/// As programs and flags are called.
pub fn short(variant: IptablesVariant) -> &'static str {
    match variant {
        IptablesVariant::Legacy => "legacy",
        IptablesVariant::NfTables => "nft",
    }
}

/// What of the rules of a variant, in all families, counts for the choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The kubelet has left its sign.
    hinted: bool,
    /// Tables in which there is a chain of ours.
    ours: Vec<Table>,
    /// Rules that are not ours.
    foreign_rules: usize,
}

impl Evidence {
    /// Adds what `iptables-save` has printed for a family.
    pub fn add(&mut self, saved: &str) {
        self.hinted |= saved
            .lines()
            .any(|line| KUBELET_HINTS.iter().any(|hint| line.starts_with(hint)));
        let mut own_rules = 0;
        for line in parse::lines(saved, &Table::ALL) {
            if line.rule.is_some() {
                own_rules += 1;
            } else if !self.ours.contains(&line.table) {
                self.ours.push(line.table);
            }
        }
        let rules = saved.lines().filter(|line| line.starts_with('-')).count();
        self.foreign_rules += rules.saturating_sub(own_rules);
    }

    /// Whether there is a chain of ours in one of these tables.
    pub fn has_ours_in(&self, tables: &[Table]) -> bool {
        self.ours.iter().any(|table| tables.contains(table))
    }
}

/// What is known of the node. A variant that cannot be used says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub nft: Result<Evidence, String>,
    pub legacy: Result<Evidence, String>,
    /// What plain `iptables` is.
    pub plain: Option<IptablesVariant>,
    /// `major.minor` of the kernel.
    pub kernel: (u32, u32),
    /// What the self-test has said of our nat rules in the nft variant.
    pub nft_refused: Option<String>,
}

/// Where our tables belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub placement: Placement,
    /// Why our nat rules are not where the setting would have them.
    pub obstacle: Option<String>,
}

/// Decides; `None` if neither variant can be used. The same answer before and after our rules are written.
pub fn choose(node: &Node, setting: NatVariant) -> Option<Choice> {
    let own = own_variant(node)?;
    let usual = Placement::usual(own, setting);
    let obstacle = usual.is_split().then(|| obstacle(node)).flatten();
    let placement = match obstacle {
        Some(_) => Placement::whole(own),
        None => usual,
    };
    Some(Choice {
        placement,
        obstacle,
    })
}

fn obstacle(node: &Node) -> Option<String> {
    let (major, minor) = node.kernel;
    if node.kernel < NAT_OF_BOTH {
        return Some(format!(
            "Linux {major}.{minor} has room for one nat table only, 4.18 for both"
        ));
    }
    let unusable = node.nft.as_ref().err();
    unusable.or(node.nft_refused.as_ref()).cloned()
}

/// The variant that the node uses: the kubelet's sign counts first, then filter rules of our own (nat rules may be
/// elsewhere), then which one has more rules of others, as `iptables-wrappers` decides for kube-proxy's image.
fn own_variant(node: &Node) -> Option<IptablesVariant> {
    let usable = |variant| match variant {
        IptablesVariant::NfTables => node.nft.as_ref().ok(),
        IptablesVariant::Legacy => node.legacy.as_ref().ok(),
    };
    let with = |wanted: &dyn Fn(&Evidence) -> bool| {
        VARIANTS
            .into_iter()
            .find(|variant| usable(*variant).is_some_and(wanted))
    };
    let rules = |variant| usable(variant).map_or(0, |evidence| evidence.foreign_rules);
    with(&|evidence| evidence.hinted)
        .or_else(|| with(&|evidence| evidence.has_ours_in(&[Table::Filter])))
        .or_else(|| {
            let (nft, legacy) = (
                rules(IptablesVariant::NfTables),
                rules(IptablesVariant::Legacy),
            );
            match nft.cmp(&legacy) {
                std::cmp::Ordering::Greater => Some(IptablesVariant::NfTables),
                std::cmp::Ordering::Less => Some(IptablesVariant::Legacy),
                std::cmp::Ordering::Equal => None,
            }
        })
        .or(node.plain.filter(|variant| usable(*variant).is_some()))
        .or_else(|| with(&|_| true))
}
