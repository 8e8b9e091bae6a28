//! nftables over netlink (`NFNL_SUBSYS_NFTABLES`, linux/netfilter/nf_tables.h): tables of the family `inet`, changed in
//! transactions that the kernel takes whole or not at all. No program is executed.
//!
//! The calls block. A rule is a row of expressions over the registers `NFT_REG32_00` and on, four bytes each.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer,
};
use nix::sys::socket::SockProtocol;

use crate::netlink::blocking::{Blocking, End, each_message, read_end};
use crate::netlink::message::{Message, attribute, attributes};
use crate::netlink::{DUMP_ATTEMPTS, Failure, was_there};
use crate::{Error, NetNs};

mod expression;

pub use expression::{FRAGMENT, Field, Match, Statement};

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;
const NEW_OBJECT: u16 = SUBSYSTEM | 18;
const GET_OBJECT: u16 = SUBSYSTEM | 19;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;

/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NF_INET_INGRESS`.
const INGRESS: u32 = 5;
/// `NFT_SET_MAP`.
const MAP: u32 = 8;
/// `NFT_OBJECT_COUNTER`.
const COUNTER: u32 = 1;
/// Bytes of a comment that the kernel has room for.
const COMMENT_MAX: usize = 120;

/// Where a chain is hooked in (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    /// To this node.
    Input = 1,
    Output = 3,
    Postrouting = 4,
}

/// What the parts of a key or value are, by nft(8)'s numbers; the kernel keeps them for who lists the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
}

impl Part {
    fn length(self) -> u32 {
        match self {
            Self::Ipv6 => 16,
            // A register is four bytes, however short the part is.
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
        }
    }
}

/// A set, or with a value a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [Part],
    pub value: &'a [Part],
}

/// An element of a set; of a map with its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// In network order, each part filled up to four bytes.
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// What is beyond 120 bytes is left out, from the beginning of a character on.
    pub comment: String,
}

/// Changes that the kernel takes whole or not at all, of one table of the family `inet`.
#[derive(Debug)]
pub struct Transaction<'a> {
    table: &'a str,
    requests: Vec<(u16, u16, Vec<u8>)>,
    /// The kernel wants a number for each new set, by which later requests of the transaction name it.
    sets: u32,
}

impl<'a> Transaction<'a> {
    /// For that table.
    pub fn new(table: &'a str) -> Self {
        Self {
            table,
            requests: Vec::new(),
            sets: 0,
        }
    }

    /// Creates the table; all fails if it exists.
    pub fn create_table(&mut self) {
        let table = self.table;
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(NEW_TABLE, flags, |message| message.text(1, table));
    }

    /// Creates the table in place of one of that name, if there is any, with all that is in it.
    pub fn replace_table(&mut self) {
        let table = self.table;
        // To be deleted, it has to be there.
        for (kind, flags) in [
            (NEW_TABLE, NLM_F_CREATE),
            (DELETE_TABLE, 0),
            (NEW_TABLE, NLM_F_CREATE),
        ] {
            self.push(kind, flags, |message| message.text(1, table));
        }
    }

    /// Deletes the table with all that is in it; all fails if it is not there.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.push(DELETE_TABLE, 0, |message| message.text(1, table));
    }

    /// Creates a counter, for [`Statement::CountAndDrop`].
    pub fn create_counter(&mut self, name: &str) {
        let table = self.table;
        self.push(NEW_OBJECT, NLM_F_CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.put(3, &COUNTER.to_be_bytes());
            message.nested(4, |_| {});
        });
    }

    /// Creates a chain that lets packets pass or not.
    pub fn create_filter_chain(&mut self, name: &str, hook: Hook, priority: i32) {
        self.create_chain("filter", name, hook, priority);
    }

    /// Creates a chain that translates addresses of the first packet of a connection.
    pub fn create_nat_chain(&mut self, name: &str, hook: Hook, priority: i32) {
        self.create_chain("nat", name, hook, priority);
    }

    /// Creates a chain that sees what comes in by some links before anybody else does; all fails if one is not there.
    /// Needs Linux 5.10.
    pub fn create_ingress_chain(&mut self, name: &str, links: &[&str], priority: i32) {
        let table = self.table;
        self.push(NEW_CHAIN, NLM_F_CREATE, |message| {
            message.text(1, table);
            message.text(3, name);
            message.nested(4, |at| {
                at.put(1, &INGRESS.to_be_bytes());
                at.put(2, &priority.to_be_bytes());
                at.nested(4, |list| links.iter().for_each(|link| list.text(1, link)));
            });
            message.text(7, "filter");
        });
    }

    fn create_chain(&mut self, kind: &str, name: &str, hook: Hook, priority: i32) {
        let table = self.table;
        self.push(NEW_CHAIN, NLM_F_CREATE, |message| {
            message.text(1, table);
            message.text(3, name);
            message.nested(4, |at| {
                at.put(1, &(hook as u32).to_be_bytes());
                at.put(2, &priority.to_be_bytes());
            });
            message.text(7, kind);
        });
    }

    /// Creates a set or map.
    pub fn create_set(&mut self, set: Set<'_>) {
        self.sets += 1;
        let (table, id) = (self.table, self.sets);
        // nft(8) puts the numbers of the parts together, six bits each.
        let kind = |parts: &[Part]| parts.iter().fold(0, |kind, part| kind << 6 | *part as u32);
        let length = |parts: &[Part]| parts.iter().map(|part| part.length()).sum::<u32>();
        self.push(NEW_SET, NLM_F_CREATE, |message| {
            message.text(1, table);
            message.text(2, set.name);
            if !set.value.is_empty() {
                message.put(3, &MAP.to_be_bytes());
            }
            message.put(4, &kind(set.key).to_be_bytes());
            message.put(5, &length(set.key).to_be_bytes());
            if !set.value.is_empty() {
                message.put(6, &kind(set.value).to_be_bytes());
                message.put(7, &length(set.value).to_be_bytes());
            }
            message.put(10, &id.to_be_bytes());
        });
    }

    /// Appends a rule: what a packet must be, and what happens to it then.
    pub fn append_rule(&mut self, chain: &str, matches: &[Match<'_>], then: Statement<'_>) {
        let table = self.table;
        // `NLM_F_APPEND`.
        self.push(NEW_RULE, NLM_F_CREATE | 0x800, |message| {
            message.text(1, table);
            message.text(2, chain);
            message.nested(4, |expressions| {
                for one in matches {
                    one.write(expressions);
                }
                then.write(expressions);
            });
        });
    }

    /// Adds elements; all fails if one has the key of another that is there.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, NLM_F_CREATE | NLM_F_EXCL, set, elements);
    }

    /// Deletes elements; all fails if one is not there.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, 0, set, elements);
    }

    /// How many rules it appends.
    pub fn rules(&self) -> usize {
        let kinds = self.requests.iter().map(|(kind, ..)| *kind);
        kinds.filter(|kind| *kind == NEW_RULE).count()
    }

    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let table = self.table;
        // An attribute holds 64 KiB.
        for some in elements.chunks(128) {
            self.push(kind, flags, |message| {
                message.text(1, table);
                message.text(2, set);
                message.nested(3, |list| {
                    for element in some {
                        list.nested(1, |one| element.write(one));
                    }
                });
            });
        }
    }

    fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Message)) {
        let mut body = Message::body();
        body.raw(&[INET, 0, 0, 0]);
        write(&mut body);
        self.requests.push((kind, flags, body.into_body()));
    }
}

impl Element {
    fn write(&self, message: &mut Message) {
        message.nested(1, |key| key.put(1, &self.key));
        if !self.value.is_empty() {
            message.nested(2, |value| value.put(1, &self.value));
        }
        let comment = &self.comment[..self.comment.floor_char_boundary(COMMENT_MAX)];
        if !comment.is_empty() {
            // As nft(8) writes it and shows it: a type (0 is a comment), a length, and text with a zero at its end.
            let mut data = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
            data.extend(comment.as_bytes());
            data.push(0);
            message.put(6, &data);
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let inside = |wanted| attribute(&attribute(bytes, wanted)?, 1);
        let comment = attribute(bytes, 6).unwrap_or_default();
        let text = comment.get(2..).unwrap_or_default();
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        Some(Self {
            key: inside(1)?,
            value: inside(2).unwrap_or_default(),
            comment: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// The tables of one network namespace.
#[derive(Debug)]
pub struct Nftables {
    socket: Blocking,
}

impl Nftables {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Blocking::open(SockProtocol::NetlinkNetFilter, "nftables socket")?;
        Ok(Self { socket })
    }

    /// Of another namespace, whatever thread uses it.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, Error> {
        let _inside = netns.enter()?;
        Self::open()
    }

    /// Does all of it, or nothing. [`Error::is_absent`] when a table, chain, set or element is not there,
    /// [`Error::is_present`] when one that is to be new is.
    pub fn commit(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let failed = |failure: Failure| {
            failure.into_error("change", format!("nftables table {}", transaction.table))
        };
        if transaction.is_empty() {
            return Ok(());
        }
        // Ends of the batch name the subsystem in their resource field.
        let edge = |kind, flags, sequence| {
            let mut message = Message::new(kind, NLM_F_REQUEST | flags, sequence);
            message.raw(&[0, 0, 0, 10]);
            message.finish()
        };
        let first = self.socket.next_sequence();
        let mut bytes = edge(BEGIN, 0, first);
        let mut last = first;
        for (index, (kind, flags, body)) in transaction.requests.iter().enumerate() {
            last = self.socket.next_sequence();
            let ack = if index + 1 == transaction.requests.len() {
                NLM_F_ACK
            } else {
                0
            };
            let mut message = Message::new(*kind, NLM_F_REQUEST | flags | ack, last);
            message.raw(body);
            bytes.extend(message.finish());
        }
        let end = self.socket.next_sequence();
        bytes.extend(edge(END, 0, end));
        self.socket.send(&bytes).map_err(failed)?;
        // Each request that fails is answered, and the last in any case: the kernel goes on past a failure to find
        // all, and then takes none.
        let mut refused: Option<io::Error> = None;
        loop {
            let mut done = false;
            each_message(self.socket.receive().map_err(failed)?, |message| {
                let number = message.sequence_number();
                if number < first || number > end {
                    return;
                }
                done |= number == last || number == first || number == end;
                if let End::Refused(cause) = read_end(message) {
                    refused.get_or_insert(cause);
                }
            })
            .map_err(|reason| failed(Failure::Protocol(reason.into())))?;
            if done {
                return match refused {
                    None => Ok(()),
                    Some(cause) => Err(failed(Failure::Refused(cause))),
                };
            }
        }
    }

    /// Whether there is a table of that name.
    pub fn has_table(&mut self, name: &str) -> Result<bool, Error> {
        let sequence = self.socket.next_sequence();
        let mut message = Message::new(GET_TABLE, NLM_F_REQUEST | NLM_F_ACK, sequence);
        message.raw(&[INET, 0, 0, 0]);
        message.text(1, name);
        let answer = self.socket.change(&message.finish());
        was_there(answer, "look up", || format!("nftables table {name}"))
    }

    /// The names of the tables and chains of the family `ip` or `ip6`, where the nft variant of iptables has its own.
    pub fn chains(&mut self, ipv6: bool) -> Result<Vec<(String, String)>, Error> {
        let family = if ipv6 { IPV6 } else { IPV4 };
        let object = || "nftables chains".to_owned();
        self.dump(GET_CHAIN, family, &[], object, |message, chains| {
            let attributes = message.payload().get(4..).unwrap_or_default();
            let text = |kind| attribute(attributes, kind).map(|bytes| text_of(&bytes));
            chains.extend(text(1).zip(text(3)));
        })
    }

    /// How many packets a counter has counted; `None` if there is no such table or counter.
    pub fn count(&mut self, table: &str, counter: &str) -> Result<Option<u64>, Error> {
        let sequence = self.socket.next_sequence();
        let mut message = Message::new(GET_OBJECT, NLM_F_REQUEST | NLM_F_ACK, sequence);
        message.raw(&[INET, 0, 0, 0]);
        message.text(1, table);
        message.text(2, counter);
        message.put(3, &COUNTER.to_be_bytes());
        match self.read_count(&message.finish()) {
            Ok(packets) => Ok(packets),
            Err(failure) => {
                let what = format!("nftables counter {counter} of table {table}");
                let error = failure.into_error("read", what);
                if error.is_absent() {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    fn read_count(&mut self, request: &[u8]) -> Result<Option<u64>, Failure> {
        let mut packets = None;
        self.socket.ask(request, |message| {
            if message.message_type() == NEW_OBJECT {
                packets = packets.or(message.payload().get(4..).and_then(packets_of));
            }
        })?;
        Ok(packets)
    }

    /// How many rules all chains of a table have; none if there is no such table.
    pub fn rules(&mut self, table: &str) -> Result<usize, Error> {
        let object = || format!("rules of nftables table {table}");
        let rules = self.dump(GET_RULE, INET, &[(1, table)], object, |message, rules| {
            rules.extend((message.message_type() == NEW_RULE).then_some(()));
        })?;
        Ok(rules.len())
    }

    /// The elements of a set; `None` if there is no such table or set.
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Option<Vec<Element>>, Error> {
        let names = [(1, table), (2, set)];
        let object = || format!("nftables set {set} of table {table}");
        let listed = self.dump(GET_ELEMENTS, INET, &names, object, |message, elements| {
            let list = message.payload().get(4..).and_then(|b| attribute(b, 3));
            elements.extend(
                attributes(&list.unwrap_or_default()).filter_map(|one| Element::read(one.value())),
            );
        });
        match listed {
            Ok(elements) => Ok(Some(elements)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists what a request with these names asks for: again, if it changed meanwhile.
    fn dump<T>(
        &mut self,
        kind: u16,
        family: u8,
        names: &[(u16, &str)],
        object: impl Fn() -> String,
        read: impl Fn(&NetlinkBuffer<&[u8]>, &mut Vec<T>),
    ) -> Result<Vec<T>, Error> {
        let failed = |failure: Failure| failure.into_error("list", object());
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.socket.next_sequence();
            let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence);
            message.raw(&[family, 0, 0, 0]);
            for (attribute, name) in names {
                message.text(*attribute, name);
            }
            let mut listed = Vec::new();
            let interrupted = self
                .socket
                .ask(&message.finish(), |message| read(message, &mut listed))
                .map_err(failed)?;
            if !interrupted {
                return Ok(listed);
            }
        }
        let reason = "it changed during each of several listings".into();
        Err(failed(Failure::Protocol(reason)))
    }
}

/// A string with a zero at its end.
fn text_of(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// `NFTA_OBJ_DATA` and in it `NFTA_COUNTER_PACKETS`.
fn packets_of(bytes: &[u8]) -> Option<u64> {
    let packets = attribute(&attribute(bytes, 4)?, 2)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}

#[cfg(test)]
mod tests;
