//! What `iptables-save` prints, back to rules.
//!
//! Foreign bytes: nothing here fails or panics. Other tables and other people's rules are skipped; a rule of ours in
//! a form that we do not write is kept as text. A typed rule is only believed when it renders back to the very words
//! that were read.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use seaway_model::ownership::CHAIN_PREFIX;
use seaway_model::{Family, Protocol};

use super::render;
use super::rule::{
    AddrMask, ChainId, ChainName, CtState, LinkPattern, Mark, Match, Rule, Rules, Table, Target,
    is_ours,
};

#[cfg(test)]
mod tests;

/// Our chains with all of their rules, and of other chains those rules that lead into ours.
pub fn saved(text: &str, family: Family) -> BTreeMap<ChainId, Rules> {
    saved_in(text, family, &Table::ALL)
}

/// The same of some tables.
pub fn saved_in(text: &str, family: Family, tables: &[Table]) -> BTreeMap<ChainId, Rules> {
    let mut chains = BTreeMap::new();
    let mut lines = lines(text, tables).peekable();
    while let Some(first) = lines.peek().copied() {
        // One allocation a chain: its lines come one after the other.
        let mut rules = Vec::new();
        while let Some(line) = lines.next_if(|line| line.is_of_chain(&first)) {
            rules.extend(line.rule.map(|spec| rule(spec, family)));
        }
        let known: &mut Rules = chains.entry(first.id()).or_default();
        *known = known.iter().cloned().chain(rules).collect();
    }
    chains
}

/// One line about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub table: Table,
    pub chain: &'a str,
    /// What stands behind `-A CHAIN `; `None` where the chain is declared.
    pub rule: Option<&'a str>,
}

impl Line<'_> {
    /// The chain in its table.
    pub fn id(&self) -> ChainId {
        ChainId {
            table: self.table,
            name: ChainName::new(self.chain),
        }
    }

    fn is_of_chain(&self, other: &Self) -> bool {
        (self.table, self.chain) == (other.table, other.chain)
    }
}

/// The lines of some tables that declare our chains, are in them, or lead into them.
pub fn lines<'a>(text: &'a str, tables: &'a [Table]) -> impl Iterator<Item = Line<'a>> {
    let mut table = None;
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('*') {
            table = tables.iter().find(|t| t.as_str() == name.trim()).copied();
            return None;
        }
        let table = table?;
        if let Some(declaration) = line.strip_prefix(':') {
            let chain = declaration.split_whitespace().next().unwrap_or_default();
            let rule = None;
            return is_ours(chain).then_some(Line { table, chain, rule });
        }
        let (chain, spec) = appended(line)?;
        let rule = Some(spec);
        (is_ours(chain) || leads_to_ours(spec)).then_some(Line { table, chain, rule })
    })
}

/// Chain and rest of an `-A` line; packet counters in front (`iptables-save -c`) do not matter.
fn appended(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(counted) => counted.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    // A name ends where that of a declaration does.
    Some(rest.split_once(char::is_whitespace).unwrap_or((rest, "")))
}

/// Whether a rule, as text, jumps to one of our chains.
pub(super) fn leads_to_ours(spec: &str) -> bool {
    // Most rules of others do not name us at all.
    spec.contains(CHAIN_PREFIX)
        && words(spec)
            .windows(2)
            .any(|pair| matches!(pair[0].as_str(), "-j" | "-g") && is_ours(&pair[1]))
}

/// Everything behind `-A CHAIN `, back to a rule.
pub fn rule(spec: &str, family: Family) -> Rule {
    let read = words(spec);
    let mut remaining = read.iter().map(String::as_str).peekable();
    match typed(&mut remaining, family) {
        Some(rule) if words(&render::rule(&rule, family)) == read => rule,
        _ => Rule::opaque(spec.trim()),
    }
}

/// Splits as a shell would: blanks separate, double quotes hold together, a backslash in them takes the next
/// character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn typed<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, family: Family) -> Option<Rule> {
    let mut matches = Vec::new();
    let mut comment = None;
    let mut target = None;
    while let Some(word) = words.next() {
        let negated = word == "!";
        let word = if negated { words.next()? } else { word };
        let part = match (word, negated) {
            ("-s", false) => Match::Source(net(words.next()?)?),
            ("-s", true) => Match::NotSource(net(words.next()?)?),
            ("-d", false) => Match::Destination(net(words.next()?)?),
            ("-d", true) => Match::NotDestination(net(words.next()?)?),
            ("-i", false) => Match::InLink(link(words.next()?)),
            ("-i", true) => Match::NotInLink(link(words.next()?)),
            ("-p", false) => Match::Protocol(protocol(words.next()?)?),
            ("-m", false) => match words.next()? {
                "comment" => {
                    expect(words, "--comment")?;
                    comment = Some(Arc::from(words.next()?));
                    continue;
                }
                name => extension(name, words, family)?,
            },
            ("-j", false) => {
                target = Some(jump(words)?);
                break;
            }
            _ => return None,
        };
        matches.push(part);
    }
    Some(Rule {
        matches,
        target: target?,
        comment,
    })
}

fn extension<'a>(
    name: &str,
    words: &mut Peekable<impl Iterator<Item = &'a str>>,
    family: Family,
) -> Option<Match> {
    match name {
        "tcp" | "udp" | "sctp" => {
            expect(words, "--dport")?;
            let text = words.next()?;
            let (first, last) = text.split_once(':').unwrap_or((text, text));
            Some(Match::DestinationPorts(
                protocol(name)?,
                first.parse().ok()?,
                last.parse().ok()?,
            ))
        }
        "addrtype" => match (words.next()?, words.next()?) {
            ("--src-type", "LOCAL") => Some(Match::SourceIsLocal),
            ("--dst-type", "LOCAL") => Some(Match::DestinationIsLocal),
            _ => None,
        },
        "conntrack" => {
            expect(words, "--ctstate")?;
            Some(Match::Conntrack(match words.next()? {
                "NEW" => CtState::New,
                "INVALID" => CtState::Invalid,
                "RELATED,ESTABLISHED" => CtState::RelatedOrEstablished,
                "DNAT" => CtState::Dnat,
                _ => return None,
            }))
        }
        "mark" => {
            let negated = words.next_if_eq(&"!").is_some();
            expect(words, "--mark")?;
            let mark = mark(words.next()?)?;
            Some(if negated {
                Match::NotMark(mark)
            } else {
                Match::Mark(mark)
            })
        }
        "statistic" => {
            expect(words, "--mode")?;
            expect(words, "random")?;
            expect(words, "--probability")?;
            render::read_probability(words.next()?).map(Match::Random)
        }
        "recent" => recent(words),
        "bpf" => {
            expect(words, "--bytecode")?;
            (words.next()? == render::same_address(family)).then_some(Match::SameAddress)
        }
        _ => None,
    }
}

fn recent<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> Option<Match> {
    let seconds = match words.next()? {
        "--set" => None,
        "--update" => {
            expect(words, "--seconds")?;
            let seconds = words.next()?.parse().ok()?;
            expect(words, "--reap")?;
            Some(seconds)
        }
        _ => return None,
    };
    expect(words, "--name")?;
    let list = Arc::from(words.next()?);
    // The mask has one value only, which rendering back compares.
    expect(words, "--mask")?;
    words.next()?;
    expect(words, "--rsource")?;
    Some(match seconds {
        None => Match::RecentSet { list },
        Some(seconds) => Match::RecentUpdate { list, seconds },
    })
}

fn jump<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> Option<Target> {
    Some(match words.next()? {
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        "RETURN" => Target::Return,
        "REJECT" => {
            expect(words, "--reject-with")?;
            match words.next()? {
                "tcp-reset" => Target::RejectWithReset,
                _ => Target::Reject,
            }
        }
        "MARK" => {
            expect(words, "--set-xmark")?;
            Target::SetMark(mark(words.next()?)?)
        }
        "DNAT" => {
            expect(words, "--to-destination")?;
            Target::Dnat(words.next()?.parse::<SocketAddr>().ok()?)
        }
        "MASQUERADE" => Target::Masquerade {
            random_fully: words.next_if_eq(&"--random-fully").is_some(),
        },
        chain => Target::Jump(ChainName::new(chain)),
    })
}

fn expect<'a>(words: &mut impl Iterator<Item = &'a str>, wanted: &str) -> Option<()> {
    (words.next()? == wanted).then_some(())
}

fn net(text: &str) -> Option<AddrMask> {
    if let Ok(network) = text.parse::<IpNetwork>() {
        return Some(AddrMask {
            addr: network.ip(),
            mask: network.mask(),
        });
    }
    let (addr, mask) = text.split_once('/')?;
    let (addr, mask): (IpAddr, IpAddr) = (addr.parse().ok()?, mask.parse().ok()?);
    (Family::of(addr) == Family::of(mask)).then_some(AddrMask { addr, mask })
}

fn link(text: &str) -> LinkPattern {
    match text.strip_suffix('+') {
        Some(prefix) => LinkPattern::prefix(prefix),
        None => LinkPattern::link(text),
    }
}

fn mark(text: &str) -> Option<Mark> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(text)?, u32::MAX),
    };
    Some(Mark { value, mask })
}

fn protocol(text: &str) -> Option<Protocol> {
    render::PROTOCOLS.into_iter().find(|p| p.as_str() == text)
}
