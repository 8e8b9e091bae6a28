//! A running hash of a set of chains: a number that tells two sets apart, moved on at the cost of the change.
//!
//! The digest of the image is kept by what transactions did to chains; the digest of what is wanted is kept by what
//! Services have asked for. After every partial sync the two must be equal, or the chains are not those of a full
//! build: a chain was forgotten, or two Services share one.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::rule::{ChainId, Rule};

/// Sum of the hashes of the members; the order does not matter, and each can be taken out again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of a single chain.
    pub fn of<'a>(id: &ChainId, rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        for rule in rules {
            rule.hash(&mut hasher);
        }
        Self(hasher.finish())
    }

    /// With the members of another set.
    pub fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// Without the members of another set, which must be in this one.
    pub fn without(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl FromIterator<Digest> for Digest {
    fn from_iter<T: IntoIterator<Item = Digest>>(members: T) -> Self {
        members.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::parse;
    use crate::iptables::rule::ChainName;
    use seaway_model::Family;

    fn chain(name: &str, rules: &[&str]) -> Digest {
        let id = ChainId::nat(&ChainName::new(name));
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| parse::rule(rule, Family::V4))
            .collect();
        Digest::of(&id, &rules)
    }

    #[test]
    fn order_counts_in_a_chain_and_not_among_chains() {
        let (a, b) = ("-j ACCEPT", "-j RETURN");
        assert_ne!(chain("A", &[a, b]), chain("A", &[b, a]));
        assert_ne!(chain("A", &[a]), chain("B", &[a]));
        assert_ne!(chain("A", &[]), Digest::default());
        let both = chain("A", &[a]).with(chain("B", &[b]));
        assert_eq!(both, chain("B", &[b]).with(chain("A", &[a])));
        assert_eq!(both.without(chain("A", &[a])), chain("B", &[b]));
    }
}
