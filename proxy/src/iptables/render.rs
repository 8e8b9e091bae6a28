//! Rules to the text that iptables reads and prints; the only place that knows how to write it.
//!
//! The form is what `iptables-save` prints, so that what comes back can be compared.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use seaway_model::{Family, Protocol};

use super::rule::{AddrMask, CtState, Mark, Match, Rule, Target};

#[cfg(test)]
mod tests;

/// `xt_bpf` (classic BPF on the network header): true when the IPv4 source and destination are equal. Load the
/// source, keep it in X, load the destination, compare.
const SAME_ADDRESS_V4: &str = "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0";

/// The same for the four words of an IPv6 address each.
const SAME_ADDRESS_V6: &str = "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,\
32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,6 0 0 65535,6 0 0 0";

/// One over the kernel's resolution of a probability: 2^31.
const PROBABILITY_ONE: f64 = 2_147_483_648.0;

/// Everything behind `-A CHAIN ` of a rule.
pub fn rule(rule: &Rule, family: Family) -> String {
    let mut text = String::with_capacity(96);
    // Writing to a String cannot fail.
    let _ = write_rule(&mut text, rule, family);
    text
}

fn write_rule(out: &mut String, rule: &Rule, family: Family) -> fmt::Result {
    let split = rule
        .matches
        .iter()
        .position(is_extension)
        .unwrap_or(rule.matches.len());
    let (plain, extensions) = rule.matches.split_at(split);
    for part in plain {
        write_match(out, part, family)?;
    }
    if let Some(comment) = &rule.comment {
        out.push_str("-m comment --comment ");
        write_quoted(out, comment);
        out.push(' ');
    }
    for part in extensions {
        write_match(out, part, family)?;
    }
    write_target(out, &rule.target, family)?;
    out.truncate(out.trim_end().len());
    Ok(())
}

/// Extensions (`-m`) are printed behind the plain matches, the comment first among them.
fn is_extension(part: &Match) -> bool {
    !matches!(
        part,
        Match::Source(_)
            | Match::NotSource(_)
            | Match::Destination(_)
            | Match::NotDestination(_)
            | Match::InLink(_)
            | Match::NotInLink(_)
            | Match::Protocol(_)
    )
}

fn write_match(out: &mut String, part: &Match, family: Family) -> fmt::Result {
    match part {
        Match::Source(net) => write!(out, "-s {} ", Net(net)),
        Match::NotSource(net) => write!(out, "! -s {} ", Net(net)),
        Match::Destination(net) => write!(out, "-d {} ", Net(net)),
        Match::NotDestination(net) => write!(out, "! -d {} ", Net(net)),
        Match::InLink(link) => write!(out, "-i {} ", link.as_str()),
        Match::NotInLink(link) => write!(out, "! -i {} ", link.as_str()),
        Match::Protocol(protocol) => write!(out, "-p {protocol} "),
        Match::DestinationPorts(protocol, first, last) if first == last => {
            write!(out, "-m {protocol} --dport {first} ")
        }
        Match::DestinationPorts(protocol, first, last) => {
            write!(out, "-m {protocol} --dport {first}:{last} ")
        }
        Match::SourceIsLocal => write!(out, "-m addrtype --src-type LOCAL "),
        Match::DestinationIsLocal => write!(out, "-m addrtype --dst-type LOCAL "),
        Match::Conntrack(state) => write!(out, "-m conntrack --ctstate {} ", ct_state(*state)),
        Match::Mark(mark) => write!(out, "-m mark --mark {} ", Bits(mark)),
        Match::NotMark(mark) => write!(out, "-m mark ! --mark {} ", Bits(mark)),
        Match::Random(n) => write!(
            out,
            "-m statistic --mode random --probability {:.11} ",
            f64::from(*n) / PROBABILITY_ONE
        ),
        Match::RecentSet { list } => {
            write!(
                out,
                "-m recent --set --name {list} --mask {} --rsource ",
                full_mask(family)
            )
        }
        Match::RecentUpdate { list, seconds } => write!(
            out,
            "-m recent --update --seconds {seconds} --reap --name {list} --mask {} --rsource ",
            full_mask(family)
        ),
        Match::SameAddress => write!(out, "-m bpf --bytecode \"{}\" ", same_address(family)),
        Match::Opaque(text) => write!(out, "{text} "),
    }
}

fn write_target(out: &mut String, target: &Target, family: Family) -> fmt::Result {
    match target {
        Target::Jump(chain) => write!(out, "-j {chain}"),
        Target::Accept => write!(out, "-j ACCEPT"),
        Target::Drop => write!(out, "-j DROP"),
        Target::Return => write!(out, "-j RETURN"),
        Target::RejectWithReset => write!(out, "-j REJECT --reject-with tcp-reset"),
        Target::Reject => write!(out, "-j REJECT --reject-with {}", unreachable(family)),
        Target::SetMark(mark) => write!(
            out,
            "-j MARK --set-xmark 0x{:x}/0x{:x}",
            mark.value, mark.mask
        ),
        Target::Dnat(SocketAddr::V4(to)) => write!(out, "-j DNAT --to-destination {to}"),
        Target::Dnat(SocketAddr::V6(to)) => {
            write!(out, "-j DNAT --to-destination [{}]:{}", to.ip(), to.port())
        }
        Target::Masquerade { random_fully: true } => write!(out, "-j MASQUERADE --random-fully"),
        Target::Masquerade {
            random_fully: false,
        } => write!(out, "-j MASQUERADE"),
        Target::None => Ok(()),
    }
}

/// A network as iptables prints it: with its length when the mask is a prefix, else with the mask.
struct Net<'a>(&'a AddrMask);

impl fmt::Display for Net<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ipnetwork::ip_mask_to_prefix(self.0.mask) {
            Ok(prefix) => write!(f, "{}/{prefix}", self.0.addr),
            Err(_) => write!(f, "{}/{}", self.0.addr, self.0.mask),
        }
    }
}

/// A mark to be compared; a full mask is not printed.
struct Bits<'a>(&'a Mark);

impl fmt::Display for Bits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.mask {
            u32::MAX => write!(f, "0x{:x}", self.0.value),
            mask => write!(f, "0x{:x}/0x{mask:x}", self.0.value),
        }
    }
}

fn ct_state(state: CtState) -> &'static str {
    match state {
        CtState::New => "NEW",
        CtState::Invalid => "INVALID",
        CtState::RelatedOrEstablished => "RELATED,ESTABLISHED",
        CtState::Dnat => "DNAT",
    }
}

pub(super) fn same_address(family: Family) -> &'static str {
    match family {
        Family::V4 => SAME_ADDRESS_V4,
        Family::V6 => SAME_ADDRESS_V6,
    }
}

pub(super) fn unreachable(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    }
}

fn full_mask(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([0xff; 4]),
        Family::V6 => IpAddr::from([0xff; 16]),
    }
}

/// As iptables does: bare when it can be, else in quotes with backslashes (`xtables_save_string`).
fn write_quoted(out: &mut String, text: &str) {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(bare) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// The kernel's number for a probability of one in `n`.
pub fn one_in(n: usize) -> u32 {
    let n = u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let one = 1_u32 << 31;
    // Rounded, as the tool does.
    (one / n) + u32::from(one % n >= n.div_ceil(2))
}

/// Reads a printed probability back.
pub(super) fn read_probability(text: &str) -> Option<u32> {
    let p: f64 = text.parse().ok()?;
    (0.0..=1.0)
        .contains(&p)
        .then(|| (p * PROBABILITY_ONE).round() as u32)
}

/// The protocols that rules may name.
pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
