//! Whether this very program and this kernel take every kind of rule that we write.
//!
//! One rule of each kind goes into a chain that nothing leads to, and comes out again. `--test` would not do: it
//! asks the program and not the kernel. Done once, before the first rules are written, so that what is missing is
//! named by its module instead of by a line in the middle of ten thousand.

use std::fmt::Write;

use seaway_model::{Family, Protocol};

use super::names;
use super::render;
use super::rule::{AddrMask, ChainName, CtState, LinkPattern, Mark, Match, Rule, Table, Target};

#[cfg(test)]
mod tests;

/// Something that our rules need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The kernel's module; the program's extension has the same name with `lib` in front.
    pub module: &'static str,
    /// What a node without it could not do.
    pub used_for: &'static str,
    /// The table whose program and kernel have to know it.
    pub table: Table,
    rule: Rule,
}

/// All of them in one family.
pub fn needs(family: Family, random_fully: bool) -> Vec<Need> {
    let need = |module, used_for, table, rule| Need {
        module,
        used_for,
        table,
        rule,
    };
    let nat = |module, used_for, part: Match| {
        need(
            module,
            used_for,
            Table::Nat,
            Rule::new([part], Target::Return),
        )
    };
    let port = |protocol, module| {
        let parts = [
            Match::Protocol(protocol),
            Match::DestinationPorts(protocol, 1, 2),
        ];
        let rule = Rule::new(parts, Target::Return).comment("self-test of seaway-proxy");
        need(module, "ports of Services", Table::Nat, rule)
    };
    let tcp = Match::Protocol(Protocol::Tcp);
    let list = || "SEAWAY-PROBE".into();
    let (addr, to) = match family {
        Family::V4 => ([127, 0, 0, 1].into(), ([127, 0, 0, 1], 9).into()),
        Family::V6 => (
            std::net::Ipv6Addr::LOCALHOST.into(),
            (std::net::Ipv6Addr::LOCALHOST, 9).into(),
        ),
    };
    vec![
        port(Protocol::Tcp, "xt_tcpudp"),
        port(Protocol::Sctp, "xt_sctp"),
        nat("xt_addrtype", "node ports", Match::DestinationIsLocal),
        nat(
            "xt_statistic",
            "choice among endpoints",
            Match::Random(render::one_in(2)),
        ),
        nat(
            "xt_recent",
            "session affinity",
            Match::RecentSet { list: list() },
        ),
        nat(
            "xt_recent",
            "session affinity",
            Match::RecentUpdate {
                list: list(),
                seconds: 1,
            },
        ),
        nat(
            "xt_conntrack",
            "masquerade",
            Match::Conntrack(CtState::Dnat),
        ),
        nat(
            "xt_bpf",
            "endpoints that reach themselves",
            Match::SameAddress,
        ),
        nat("xt_mark", "masquerade", Match::NotMark(Mark::bit(1 << 16))),
        nat(
            "ip_tables",
            "addresses and links",
            Match::Destination(AddrMask::host(addr)),
        ),
        nat(
            "ip_tables",
            "addresses and links",
            Match::InLink(LinkPattern::prefix("sw")),
        ),
        need(
            "xt_mark",
            "masquerade and refusals",
            Table::Nat,
            Rule::new([], Target::SetMark(Mark::bit(1 << 16))),
        ),
        need(
            "xt_nat",
            "translation to endpoints",
            Table::Nat,
            Rule::new([tcp.clone()], Target::Dnat(to)),
        ),
        need(
            "xt_MASQUERADE",
            "masquerade",
            Table::Nat,
            Rule::new([], Target::Masquerade { random_fully }),
        ),
        // The filter rules may be for another program than the nat rules.
        need(
            "xt_conntrack",
            "refusals",
            Table::Filter,
            Rule::new([Match::Conntrack(CtState::New)], Target::Return),
        ),
        need(
            "xt_mark",
            "masquerade and refusals",
            Table::Filter,
            Rule::new([Match::Mark(Mark::bit(1 << 16))], Target::Return),
        ),
        need(
            reject_module(family),
            "Services without endpoints",
            Table::Filter,
            Rule::new([tcp], Target::RejectWithReset),
        ),
        need(
            reject_module(family),
            "Services without endpoints",
            Table::Filter,
            Rule::new([], Target::Reject),
        ),
    ]
}

fn reject_module(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipt_REJECT",
        Family::V6 => "ip6t_REJECT",
    }
}

/// The input that puts these into a chain of each table. [`removal`] takes them out.
pub fn trial(needs: &[Need], family: Family) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let of_table: Vec<_> = needs.iter().filter(|need| need.table == table).collect();
        if of_table.is_empty() {
            continue;
        }
        let chain = scratch();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "*{}\n:{chain} - [0:0]", table.as_str());
        for need in of_table {
            let _ = writeln!(text, "-A {chain} {}", render::rule(&need.rule, family));
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// The input that leaves no trace of a [`trial`] of these tables, whether it was taken or not.
pub fn removal(tables: &[Table]) -> String {
    let chain = scratch();
    let of = |table: &Table| {
        let table = table.as_str();
        format!("*{table}\n:{chain} - [0:0]\n-X {chain}\nCOMMIT\n")
    };
    tables.iter().map(of).collect()
}

/// How many commits to each of these tables [`trial`] and [`removal`] are.
pub const COMMITS: u32 = 2;

fn scratch() -> ChainName {
    ChainName::new(names::PROBE)
}

/// One sentence for those that were refused, each with what the program said.
pub fn complaint(refused: &[(Need, String)]) -> String {
    let mut modules: Vec<(&str, &str, &str)> = refused
        .iter()
        .map(|(need, said)| {
            (
                need.module,
                need.used_for,
                said.lines().next().unwrap_or(""),
            )
        })
        .collect();
    modules.dedup_by_key(|(module, ..)| *module);
    modules
        .iter()
        .map(|(module, used_for, said)| format!("{module} (for {used_for}): {said}"))
        .collect::<Vec<_>>()
        .join("; ")
}
