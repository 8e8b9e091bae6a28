//! Rules that choose a routing table by the source of a packet (ip-rule(8)). The calls block.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Batch, Error, RouteSocket};

/// What comes from an address is routed by a table, if that table has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRule {
    pub from: IpAddr,
    pub table: u32,
    /// Who made it (`FRA_PROTOCOL`).
    pub protocol: u8,
}

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

fn of_table(family: AddressFamily, table: u32, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Table(table));
    let protocol = RuleAttribute::Protocol(RouteProtocol::from(protocol));
    message.attributes.push(protocol);
    message
}

impl Batch {
    /// Adds a rule; it is fine if it is there.
    pub fn add_rule(&mut self, rule: SourceRule) {
        let family = crate::netlink::family(rule.from);
        let mut message = of_table(family, rule.table, rule.protocol);
        message.header.src_len = if rule.from.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RuleAttribute::Source(rule.from));
        self.push(
            RouteNetlinkMessage::NewRule(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "add",
            format!("rule for packets from {}", rule.from),
        );
        self.tolerate(Error::is_present);
    }
}

impl RouteSocket {
    /// Deletes the rules of both families that lead to a table and were made under that protocol number.
    pub fn delete_rules(&mut self, table: u32, protocol: u8) -> Result<(), Error> {
        for family in FAMILIES {
            let mut batch = Batch::default();
            let message = of_table(family, table, protocol);
            batch.push(
                RouteNetlinkMessage::DelRule(message),
                0,
                "delete",
                format!("rules of table {table}"),
            );
            // The kernel deletes one at a time.
            loop {
                match self.apply(&batch) {
                    Ok(()) => {}
                    Err(error) if error.is_absent() || error.is_unsupported_family() => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The rules by source address, of both families.
    pub fn source_rules(&mut self) -> Result<Vec<SourceRule>, Error> {
        let mut rules = Vec::new();
        for family in FAMILIES {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answers = self.dump(&RouteNetlinkMessage::GetRule(message), "rules")?;
            rules.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => convert(message),
                _ => None,
            }));
        }
        Ok(rules)
    }
}

fn convert(message: &RuleMessage) -> Option<SourceRule> {
    let (mut from, mut table, mut protocol) = (None, u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = Some(*ip),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Protocol(number) => protocol = u8::from(*number),
            _ => {}
        }
    }
    Some(SourceRule {
        from: from?,
        table,
        protocol,
    })
}
