//! Rules as data: what the kernel is to hold, with no syntax.
//!
//! Only what this project writes has a type. A rule in any other form is [`Match::Opaque`]: kept as text, never
//! understood, always different from everything that is wanted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_model::Protocol;
use seaway_model::ownership::{CHAIN_PREFIX, CHAINS_OF_OVERLAY};

/// The tables that we write to. Filter comes first, also in a transaction: its rules act on marks that only the nat
/// rules set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Filter,
    Nat,
}

impl Table {
    /// All of them, in the order of a transaction.
    pub const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// The name as iptables writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// Name of a chain. Kernel limit: 28 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainName(Arc<str>);

impl ChainName {
    /// The name as given.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// See [`is_ours`].
    pub fn is_ours(&self) -> bool {
        is_ours(&self.0)
    }
}

/// Whether a chain of this name belongs to the proxy: our prefix, but not the overlay's.
pub fn is_ours(chain: &str) -> bool {
    chain.starts_with(CHAIN_PREFIX) && !CHAINS_OF_OVERLAY.contains(&chain)
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain in its table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    pub table: Table,
    pub name: ChainName,
}

impl ChainId {
    /// A chain of the nat table.
    pub fn nat(name: &ChainName) -> Self {
        Self {
            table: Table::Nat,
            name: name.clone(),
        }
    }

    /// A chain of the filter table.
    pub fn filter(name: &ChainName) -> Self {
        Self {
            table: Table::Filter,
            name: name.clone(),
        }
    }
}

/// The content of a chain. Of a chain that is not ours: the rules in it that jump to one of ours.
pub type Rules = Arc<[Rule]>;

/// One rule: all matches must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// In the order in which iptables prints them: addresses, protocol, then the extensions.
    pub matches: Vec<Match>,
    pub target: Target,
    /// Whom it belongs to, for people.
    pub comment: Option<Arc<str>>,
}

impl Rule {
    /// A rule without a comment.
    pub fn new(matches: impl Into<Vec<Match>>, target: Target) -> Self {
        Self {
            matches: matches.into(),
            target,
            comment: None,
        }
    }

    /// The same rule with a comment.
    pub fn comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Its text, if it is in a syntax that we do not write.
    pub fn opaque_text(&self) -> Option<&str> {
        match self.matches.as_slice() {
            [Match::Opaque(text)] => Some(text),
            _ => None,
        }
    }

    /// A rule in a syntax that we do not write.
    pub fn opaque(text: &str) -> Self {
        Self::new([Match::Opaque(text.into())], Target::None)
    }
}

/// An address and which of its bits count; the mask need not be a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrMask {
    pub addr: IpAddr,
    pub mask: IpAddr,
}

impl AddrMask {
    /// Just this address.
    pub fn host(addr: IpAddr) -> Self {
        let mask = match addr {
            IpAddr::V4(_) => IpAddr::from([0xff; 4]),
            IpAddr::V6(_) => IpAddr::from([0xff; 16]),
        };
        Self { addr, mask }
    }

    /// Whether the address has these bits.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, self.mask, addr) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(addr)) => own & mask == addr & mask,
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(addr)) => own & mask == addr & mask,
            _ => false,
        }
    }
}

impl From<IpNetwork> for AddrMask {
    fn from(network: IpNetwork) -> Self {
        Self {
            addr: network.network(),
            mask: network.mask(),
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    Source(AddrMask),
    NotSource(AddrMask),
    Destination(AddrMask),
    NotDestination(AddrMask),
    /// Came in through this link.
    InLink(LinkPattern),
    NotInLink(LinkPattern),
    Protocol(Protocol),
    /// Inclusive range; needs a [`Match::Protocol`] before it.
    DestinationPorts(Protocol, u16, u16),
    /// The source is an address of this node.
    SourceIsLocal,
    /// The destination is an address of this node.
    DestinationIsLocal,
    Conntrack(CtState),
    Mark(Mark),
    NotMark(Mark),
    /// True with probability `n / 2^31`: the kernel's own resolution (`xt_statistic`).
    Random(u32),
    /// Puts the source on a list, or renews it there; always true (`xt_recent`).
    RecentSet {
        list: Arc<str>,
    },
    /// Whether the source was put on the list within so many seconds; renews it if so.
    RecentUpdate {
        list: Arc<str>,
        seconds: u32,
    },
    /// Source and destination are the same address.
    SameAddress,
    /// The text of a rule in a syntax that we do not write.
    Opaque(Arc<str>),
}

/// The name of a link, or the beginning of some: `+` at the end stands for anything (`xtables`' own notation).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkPattern(Arc<str>);

impl LinkPattern {
    /// Just this link.
    pub fn link(name: &str) -> Self {
        Self(name.into())
    }

    /// All links whose names begin so.
    pub fn prefix(prefix: &str) -> Self {
        Self(format!("{prefix}+").into())
    }

    /// As iptables writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for a link of this name.
    pub fn matches(&self, link: &str) -> bool {
        match self.0.strip_suffix('+') {
            Some(prefix) => link.starts_with(prefix),
            None => *link == *self.0,
        }
    }
}

/// What connection tracking says of the packet's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtState {
    New,
    Invalid,
    RelatedOrEstablished,
    /// Its destination was translated.
    Dnat,
}

/// Bits of the packet mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub value: u32,
    pub mask: u32,
}

impl Mark {
    /// The bit that is set.
    pub fn bit(bit: u32) -> Self {
        Self {
            value: bit,
            mask: bit,
        }
    }
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Goes through that chain, and on behind this rule if it comes back.
    Jump(ChainName),
    Accept,
    Drop,
    Return,
    /// Refuses with a TCP reset; needs [`Match::Protocol`] TCP.
    RejectWithReset,
    /// Refuses with ICMP port unreachable.
    Reject,
    /// Replaces the bits under the mask; goes on.
    SetMark(Mark),
    /// Needs a [`Match::Protocol`].
    Dnat(SocketAddr),
    Masquerade {
        /// Random source ports (`--random-fully`): two clients do not race for one port.
        random_fully: bool,
    },
    /// Nothing to say: the text of [`Match::Opaque`] says it.
    None,
}
