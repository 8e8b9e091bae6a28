//! Desired state and change → what the chains should hold → the transaction that gets there.
//!
//! Pure, one family at a time. The cost is that of the Services in the change; [`Change::Full`] builds everything
//! anew and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_model::ownership::MARK_MASQUERADE;
use seaway_model::{Change, Delta, Desired, DetectLocal, Family, FrontendAddr, ObjectKey};

use super::digest::Digest;
use super::dispatch::{self, Slots, Tree, TreeEdit};
use super::fixed;
use super::names;
use super::render;
use super::rule::{
    AddrMask, ChainId, ChainName, LinkPattern, Mark, Match, Rule, Rules, Table, Target,
};
use super::service::{self, Entry};
use super::transaction::Transaction;
use crate::changes::TableChange;

#[cfg(test)]
mod tests;

/// What shapes the rules of a family besides the Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub family: Family,
    /// What comes from there comes from a pod (`--detect-local-mode`); of this family only.
    pub pods: Vec<PodSource>,
    /// Local addresses on which node ports are served (`--nodeport-addresses`), of this family only. `None`: on all
    /// but loopback.
    pub node_port_ranges: Option<Vec<AddrMask>>,
    /// Masquerade all cluster IP traffic.
    pub masquerade_all: bool,
    /// The kernel and the tool know `--random-fully`.
    pub random_fully: bool,
    /// Drop forwarded packets that connection tracking calls invalid.
    pub drop_invalid: bool,
    /// Say in the first rule of a Service's port whose it is. Legacy iptables pays for it with half as much again for
    /// every change: 288 bytes a comment, all of them copied.
    pub comments: bool,
    /// Where a packet is refused that asks a cluster IP for a port that it does not have. In filter, so that a change
    /// of endpoints does not concern the table: legacy iptables pays for every rule in it. In nat where that is kept
    /// by another program than filter, which then has a few fixed rules only.
    pub unknown_ports: Table,
}

impl Settings {
    /// What of `detect_local` concerns `family`, and the defaults for the rest.
    pub fn new(family: Family, detect_local: &DetectLocal) -> Self {
        let pods = match detect_local {
            DetectLocal::ClusterCidr(cidrs) | DetectLocal::NodeCidr(cidrs) => {
                let ranges = of_family(cidrs, family).into_iter();
                ranges.map(PodSource::Range).collect()
            }
            DetectLocal::BridgeInterface(name) => vec![PodSource::Link(LinkPattern::link(name))],
            DetectLocal::InterfaceNamePrefix(prefix) => {
                vec![PodSource::Link(LinkPattern::prefix(prefix))]
            }
            DetectLocal::None => Vec::new(),
        };
        Self {
            family,
            pods,
            node_port_ranges: None,
            masquerade_all: false,
            random_fully: true,
            drop_invalid: true,
            comments: true,
            unknown_ports: Table::Filter,
        }
    }

    /// Serves node ports on local addresses in these ranges only.
    pub fn node_ports_on(self, ranges: Option<&[IpNetwork]>) -> Self {
        Self {
            node_port_ranges: ranges.map(|ranges| of_family(ranges, self.family)),
            ..self
        }
    }

    /// The rule that marks for the masquerade what does not come from a pod; `None` if that cannot be told.
    pub fn mark(&self) -> Option<Rule> {
        let mark = Target::SetMark(Mark::bit(MARK_MASQUERADE));
        Some(match self.pods.as_slice() {
            _ if self.masquerade_all => Rule::new([], mark),
            [] => return None,
            [PodSource::Range(range)] => Rule::new([Match::NotSource(*range)], mark),
            [PodSource::Link(link)] => Rule::new([Match::NotInLink(link.clone())], mark),
            _ => Rule::new([], Target::Jump(ChainName::new(names::NOT_FROM_POD))),
        })
    }

    /// Takes that mark back.
    pub fn unmark(&self) -> Mark {
        Mark {
            value: 0,
            mask: MARK_MASQUERADE,
        }
    }
}

fn of_family(networks: &[IpNetwork], family: Family) -> Vec<AddrMask> {
    let networks = networks.iter().filter(|n| Family::of(n.ip()) == family);
    networks.copied().map(AddrMask::from).collect()
}

/// Where packets of pods come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodSource {
    Range(AddrMask),
    Link(LinkPattern),
}

impl PodSource {
    /// The match that is true for packets of pods.
    pub fn matches(&self) -> Match {
        match self {
            Self::Range(range) => Match::Source(*range),
            Self::Link(link) => Match::InLink(link.clone()),
        }
    }
}

/// All chains of ours with their content, and our jumps in the built-in ones.
pub type Chains = BTreeMap<ChainId, Rules>;

/// What the kernel holds of ours in one family, as far as we know, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub chains: Chains,
    layout: Layout,
    /// Of our chains and of our jumps in built-in ones, by what transactions did to them.
    digest: Digest,
    /// How many rules each table has.
    rules: [usize; Table::ALL.len()],
}

/// Who has put what where. Empty until the first full plan was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    services: BTreeMap<ObjectKey, Footprint>,
    tree: Tree,
    /// Addresses of frontends, and how many frontends have each.
    addresses: BTreeMap<IpAddr, usize>,
    /// Of the chains that Services, the dispatch and the settings ask for.
    digest: Digest,
}

impl Layout {
    /// Counts the addresses of a Service that was changed. Returns whether one is new or gone.
    fn count(&mut self, after: Option<&Footprint>, before: Option<&Footprint>) -> bool {
        let mut moved = false;
        for addr in after.into_iter().flat_map(Footprint::addresses) {
            let count = self.addresses.entry(addr).or_insert(0);
            moved |= *count == 0;
            *count += 1;
        }
        for addr in before.into_iter().flat_map(Footprint::addresses) {
            if let Some(count) = self.addresses.get_mut(&addr) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&addr);
                    moved = true;
                }
            }
        }
        moved
    }
}

/// What a Service has in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Footprint {
    chains: Vec<ChainName>,
    entries: Vec<Entry>,
    digest: Digest,
}

impl Footprint {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().filter_map(|e| match e.frontend.addr {
            FrontendAddr::Ip(ip) => Some(ip),
            FrontendAddr::AnyNodeAddress(_) => None,
        })
    }
}

/// What is to be done in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyPlan {
    pub family: Family,
    /// What the kernel is told.
    pub transaction: Transaction,
    /// A partial plan would not have ended at the chains of a full build; this is a full one in its place.
    pub corrected: bool,
    /// What the image learns once the kernel has taken it.
    learn: Lesson,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lesson {
    full: bool,
    services: BTreeMap<ObjectKey, Option<Footprint>>,
    tree: Tree,
    chains: BTreeMap<ChainId, Option<Rules>>,
    /// Of the image and of the layout, once this is learnt.
    digest: Digest,
    wanted: Digest,
}

impl Image {
    /// The image of a kernel that was read, before anything is known of who wanted it.
    pub fn observed(chains: Chains) -> Self {
        let ours = chains.iter().filter(|(id, _)| counts(id));
        let mut counted = [0; Table::ALL.len()];
        for (id, rules) in &chains {
            counted[id.table as usize] += rules.len();
        }
        Self {
            rules: counted,
            digest: ours
                .map(|(id, rules)| Digest::of(id, rules.iter()))
                .collect(),
            chains,
            layout: Layout::default(),
        }
    }

    /// Stands for all chains of ours; equal to that of a full build of the same state.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The transaction that brings the kernel from here to `desired`, for what `change` touches. Without an earlier
    /// full plan every change is taken as full.
    pub fn plan(&self, desired: &Desired, change: &Change, settings: &Settings) -> FamilyPlan {
        match change {
            Change::Services(keys) if !self.layout.tree.is_empty() => {
                let edit = Edit::of(&self.layout, desired, keys, settings);
                let plan = self.compare(edit, settings, false);
                if plan.learn.digest == plan.learn.wanted {
                    plan
                } else {
                    FamilyPlan {
                        corrected: true,
                        ..self.full_plan(desired, settings)
                    }
                }
            }
            _ => self.full_plan(desired, settings),
        }
    }

    fn full_plan(&self, desired: &Desired, settings: &Settings) -> FamilyPlan {
        let nothing = Layout::default();
        let mut edit = Edit::of(&nothing, desired, &desired.keys(), settings);
        for (id, rules) in fixed::chains(settings) {
            edit.wanted = edit.wanted.with(Digest::of(&id, rules.iter()));
            edit.chains.insert(id, Some(rules));
        }
        // Somebody's own chain that jumps to one of ours is let be; only cleanup has to break it.
        for id in self.chains.keys().filter(|id| counts(id)) {
            edit.chains.entry(id.clone()).or_insert(None);
        }
        self.compare(edit, settings, true)
    }

    /// What a plan that was made of this image changes, chain by chain.
    pub fn changes(&self, plan: &FamilyPlan) -> impl Iterator<Item = TableChange> {
        let family = plan.family;
        plan.learn.chains.iter().filter_map(move |(id, after)| {
            // A built-in one is there in any case.
            let none = (!id.name.is_ours()).then_some(&[][..]);
            TableChange::of_chain(
                (family, id.table.as_str(), id.name.as_str()),
                self.chains.get(id).map(|rules| &rules[..]).or(none),
                after.as_ref().map(|rules| &rules[..]).or(none),
                |rule| render::rule(rule, family),
            )
        })
    }

    /// Every address that some frontend has, node ports apart.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.layout.addresses.keys().copied()
    }

    /// Whether some frontend has an address in this network, node ports apart.
    pub fn has_address_in(&self, network: IpNetwork) -> bool {
        let range = network.network()..=network.broadcast();
        self.layout.addresses.range(range).next().is_some()
    }

    /// How many rules of ours a table has.
    pub fn rules(&self, table: Table) -> usize {
        self.rules[table as usize]
    }

    /// Takes a plan as done. Returns whether an address of a frontend came or went.
    pub fn learn(&mut self, plan: FamilyPlan) -> bool {
        let Lesson {
            full,
            services,
            tree,
            chains,
            digest,
            wanted,
        } = plan.learn;
        if full {
            self.layout = Layout::default();
        }
        self.digest = digest;
        self.layout.digest = wanted;
        let mut moved = full;
        for (key, footprint) in services {
            let before = self.layout.services.remove(&key);
            moved |= self.layout.count(footprint.as_ref(), before.as_ref());
            if let Some(footprint) = footprint {
                self.layout.services.insert(key, footprint);
            }
        }
        for (id, slots) in tree {
            if slots.is_empty() && !dispatch::is_root(&id) {
                self.layout.tree.remove(&id);
            } else {
                self.layout.tree.insert(id, slots);
            }
        }
        for (id, rules) in chains {
            let table = id.table;
            let after = rules.as_ref().map_or(0, |rules| rules.len());
            let before = match rules {
                Some(rules) => self.chains.insert(id, rules),
                None => self.chains.remove(&id),
            };
            let count = &mut self.rules[table as usize];
            *count = *count + after - before.map_or(0, |rules| rules.len());
        }
        moved
    }

    /// Drops from an edit what the kernel already has.
    fn compare(&self, edit: Edit, settings: &Settings, full: bool) -> FamilyPlan {
        let mut delta: Delta<ChainId, Rules> = Delta::new();
        for (id, wanted) in edit.chains {
            if let Some(rules) = self.chains.get(&id) {
                delta.observe(id.clone(), rules.clone());
            }
            if let Some(rules) = wanted {
                delta.set_desired(id, rules);
            }
        }
        let chains: BTreeMap<ChainId, Option<Rules>> = delta
            .pending_updates()
            .map(|(id, rules)| (id.clone(), Some(rules.clone())))
            .chain(delta.pending_deletions().map(|(id, _)| (id.clone(), None)))
            .collect();
        let digest = match full {
            // It ends at what is wanted, whatever the sum was before.
            true => edit.wanted,
            false => chains.iter().fold(self.digest, |sum, (id, after)| {
                let of = |rules: &Rules| Digest::of(id, rules.iter());
                let before = self.chains.get(id).map(of).unwrap_or_default();
                let after = after.as_ref().map(of).unwrap_or_default();
                sum.without(before).with(after)
            }),
        };
        FamilyPlan {
            family: settings.family,
            transaction: Transaction::new(settings.family, &delta),
            corrected: false,
            learn: Lesson {
                full,
                services: edit.services,
                tree: edit.tree,
                chains,
                digest,
                wanted: edit.wanted,
            },
        }
    }
}

/// New content for some chains; `None`: not wanted.
struct Edit {
    services: BTreeMap<ObjectKey, Option<Footprint>>,
    tree: Tree,
    chains: BTreeMap<ChainId, Option<Rules>>,
    /// Of everything that is wanted afterwards.
    wanted: Digest,
}

impl Edit {
    /// What changes when these Services become what they are in `desired`.
    fn of(
        layout: &Layout,
        desired: &Desired,
        keys: &BTreeSet<ObjectKey>,
        settings: &Settings,
    ) -> Self {
        let mut tree = TreeEdit::new(&layout.tree, settings);
        let mut chains = BTreeMap::new();
        let mut services = BTreeMap::new();
        let mut wanted = layout.digest;
        for key in keys {
            let before = layout.services.get(key);
            if let Some(before) = before {
                wanted = wanted.without(before.digest);
                let gone = before.chains.iter().map(|name| (ChainId::nat(name), None));
                chains.extend(gone);
            }
            let after = desired
                .services
                .get(key)
                .map(|service| service::chains(key, service, settings));
            let entries_before = before.map_or(&[][..], |b| &b.entries);
            let entries_after = after.as_ref().map_or(&[][..], |a| &a.entries);
            tree.replace(key, entries_before, entries_after);
            let footprint = after.map(|after| {
                let mut digest = Digest::default();
                let mut names = Vec::with_capacity(after.chains.len());
                for (name, rules) in after.chains {
                    let id = ChainId::nat(&name);
                    digest = digest.with(Digest::of(&id, rules.iter()));
                    chains.insert(id, Some(rules));
                    names.push(name);
                }
                Footprint {
                    chains: names,
                    entries: after.entries,
                    digest,
                }
            });
            wanted = wanted.with(footprint.as_ref().map(|f| f.digest).unwrap_or_default());
            services.insert(key.clone(), footprint);
        }
        let tree = tree.finish();
        for (id, slots) in &tree {
            let of = |slots: &Slots| Digest::of(id, slots.values().flat_map(|rules| rules.iter()));
            let before = layout.tree.get(id).map(of).unwrap_or_default();
            wanted = wanted.without(before);
            let exists = !slots.is_empty() || dispatch::is_root(id);
            if exists {
                wanted = wanted.with(of(slots));
            }
            let rules = slots.values().flat_map(|rules| rules.iter().cloned());
            chains.insert(id.clone(), exists.then(|| rules.collect()));
        }
        Self {
            services,
            tree,
            chains,
            wanted,
        }
    }
}

/// Whether it is for us to say what the chain holds.
fn counts(id: &ChainId) -> bool {
    id.name.is_ours() || fixed::is_built_in(id)
}
