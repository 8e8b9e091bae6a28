//! The table in the kernel: made with the first element, then only its elements change.

use std::collections::{BTreeMap, BTreeSet};

use seaway_kernel::Conntrack;
use seaway_kernel::conntrack::{Family, Filter, Flow, UDP};
use seaway_kernel::nftables::{Element, Field, Hook, Match, Nftables, Statement, Transaction};
use seaway_model::ownership::{HOST_PORTS_TABLE, POD_LINK_PREFIX};

use super::elements::{Kind, digits_of};
use super::{Tag, Wanted};
use crate::protocol::{Code, Error, Protocol};

/// Where nft(8) puts the two kinds of address translation.
const DNAT: i32 = -100;
const SNAT: i32 = 100;

/// How often two plugins may get into each other's way while the table is made.
const ATTEMPTS: usize = 4;

/// Makes the elements of an attachment, and the table if there is none.
pub fn add(wanted: &Wanted, tag: &Tag) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let elements = wanted.elements(tag);
    let mut nft = Nftables::open()?;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut with = Transaction::new(HOST_PORTS_TABLE);
        fill(&mut with, &elements);
        match nft.commit(&with) {
            Ok(()) => {
                forget_flows(wanted)?;
                return Ok(());
            }
            Err(error) if error.is_present() => return Err(conflict(&mut nft, &elements)?),
            Err(error) if !error.is_absent() => return Err(error.into()),
            Err(error) => last = Some(error),
        }
        let mut table = Transaction::new(HOST_PORTS_TABLE);
        make(&mut table);
        match nft.commit(&table) {
            // Another one was faster.
            Err(error) if error.is_present() => {}
            other => other?,
        }
    }
    Err(last.map_or_else(
        || Error::new(Code::TryAgainLater, "the nftables table comes and goes"),
        Error::from,
    ))
}

/// What was removed from the table. The kernel frees it after a while, and lets nobody close a socket of netfilter until it
/// has (`nft_rcv_nl_event` in net/netfilter/nf_tables_api.c): so the socket is kept, and what else takes a while is done
/// meanwhile.
#[derive(Debug)]
#[must_use = "closing the socket waits"]
pub struct Removed {
    _socket: Nftables,
    /// Pods (address and port, as in the values of the maps) that UDP ports led to.
    pods: Vec<Vec<u8>>,
}

impl Removed {
    /// Waits, and has connection tracking forget clients of UDP ports.
    pub fn finish(self) -> Result<(), Error> {
        forget_flows_to(&self.pods)
    }
}

/// Removes the elements of an attachment; it is fine if there is none.
pub fn remove(tag: &Tag) -> Result<Removed, Error> {
    let comment = tag.comment();
    remove_if(|element| element.comment == comment)
}

/// Removes the elements of a network that belong to none of these attachments (by their digits).
pub fn remove_unless(network: &str, valid: &BTreeSet<String>) -> Result<Removed, Error> {
    remove_if(|element| {
        digits_of(&element.comment, network).is_some_and(|digits| !valid.contains(digits))
    })
}

/// Fails if an element of an attachment is missing, or rules that look for it.
pub fn check(wanted: &Wanted, tag: &Tag) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut nft = Nftables::open()?;
    let mut sets: BTreeMap<&str, BTreeSet<Element>> = BTreeMap::new();
    for (kind, ipv4, element) in wanted.elements(tag) {
        let name = kind.name(ipv4);
        if !sets.contains_key(name) {
            let present = nft.elements(HOST_PORTS_TABLE, name)?.unwrap_or_default();
            sets.insert(name, present.into_iter().collect());
        }
        if !sets[name].contains(&element) {
            let message = format!(
                "set {name} of the nftables table {HOST_PORTS_TABLE} lacks an element of this pod: its host ports \
                 are not served"
            );
            return Err(Error::new(Code::CheckFailed, message));
        }
    }
    let mut table = Transaction::new(HOST_PORTS_TABLE);
    make(&mut table);
    if nft.rules(HOST_PORTS_TABLE)? < table.rules() {
        let message = format!(
            "the nftables table {HOST_PORTS_TABLE} lacks rules: host ports are not served. Delete it, and have the pods \
             of this node that have some made anew"
        );
        return Err(Error::new(Code::CheckFailed, message));
    }
    Ok(())
}

fn fill(transaction: &mut Transaction<'_>, elements: &[(Kind, bool, Element)]) {
    for kind in Kind::ALL {
        for ipv4 in [true, false] {
            let some = of(elements, kind, ipv4);
            if !some.is_empty() {
                transaction.add_elements(kind.name(ipv4), &some);
            }
        }
    }
}

fn of(elements: &[(Kind, bool, Element)], kind: Kind, ipv4: bool) -> Vec<Element> {
    elements
        .iter()
        .filter(|(k, v4, _)| (*k, *v4) == (kind, ipv4))
        .map(|(_, _, element)| element.clone())
        .collect()
}

/// Says whose the element is that has the key of one of these.
fn conflict(nft: &mut Nftables, wanted: &[(Kind, bool, Element)]) -> Result<Error, Error> {
    for (kind, ipv4, element) in wanted {
        let present = nft.elements(HOST_PORTS_TABLE, kind.name(*ipv4))?;
        let same = present.iter().flatten().find(|e| e.key == element.key);
        if let Some(other) = same {
            // A key ends with its port, filled up to four bytes.
            let port = element
                .key
                .len()
                .checked_sub(4)
                .map(|at| &element.key[at..]);
            let what = match (kind, port) {
                (Kind::Any | Kind::At, Some([high, low, ..])) => {
                    format!("host port {}", u16::from_be_bytes([*high, *low]))
                }
                _ => "the pod's address".to_owned(),
            };
            let (digits, network) = other.comment.split_once(' ').unwrap_or_default();
            let message = format!(
                "{what} is in use: by the pod at link {POD_LINK_PREFIX}{digits} of network {network}"
            );
            return Ok(Error::new(Code::AlreadyAttached, message));
        }
    }
    Ok(Error::new(
        Code::TryAgainLater,
        "a host port was in use, and was freed meanwhile",
    ))
}

fn remove_if(mine: impl Fn(&Element) -> bool) -> Result<Removed, Error> {
    let mut nft = Nftables::open()?;
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::new(HOST_PORTS_TABLE);
        let mut pods = Vec::new();
        for kind in Kind::ALL {
            for ipv4 in [true, false] {
                let name = kind.name(ipv4);
                let Some(present) = nft.elements(HOST_PORTS_TABLE, name)? else {
                    // Without one of its sets it is no table of ours.
                    return Ok(Removed {
                        _socket: nft,
                        pods: Vec::new(),
                    });
                };
                let gone: Vec<_> = present.into_iter().filter(&mine).collect();
                let udp = gone
                    .iter()
                    .filter(|element| kind.protocol(element) == Some(17));
                pods.extend(udp.map(|element| element.value.clone()));
                if !gone.is_empty() {
                    transaction.delete_elements(name, &gone);
                }
            }
        }
        match nft.commit(&transaction) {
            Ok(()) => {
                return Ok(Removed { _socket: nft, pods });
            }
            // Another call for the same pod has removed one meanwhile.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(
        Code::TryAgainLater,
        "host ports change all the time",
    ))
}

/// Sets and maps, and the rules that use them.
fn make(table: &mut Transaction<'_>) {
    table.create_table();
    for kind in Kind::ALL {
        for ipv4 in [true, false] {
            table.create_set(kind.set(ipv4));
        }
    }
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        table.create_nat_chain(chain, hook, DNAT);
        for ipv4 in [true, false] {
            let address = if ipv4 {
                Field::Ipv4Destination
            } else {
                Field::Ipv6Destination
            };
            let find = |fields, kind: Kind| Match::Find {
                fields,
                map: kind.name(ipv4),
            };
            let at: &[Field] = &[address, Field::Protocol, Field::DestinationPort];
            let any: &[Field] = &[Field::Protocol, Field::DestinationPort];
            let then = Statement::Redirect { ipv4 };
            table.append_rule(chain, &[Match::Ipv4(ipv4), find(at, Kind::At)], then);
            let matches = [Match::Ipv4(ipv4), Match::ToThisNode, find(any, Kind::Any)];
            table.append_rule(chain, &matches, then);
        }
    }
    make_postrouting(table);
}

fn make_postrouting(table: &mut Transaction<'_>) {
    let chain = "postrouting";
    table.create_nat_chain(chain, Hook::Postrouting, SNAT);
    for ipv4 in [true, false] {
        let (source, destination): (Field, Field) = if ipv4 {
            (Field::Ipv4Source, Field::Ipv4Destination)
        } else {
            (Field::Ipv6Source, Field::Ipv6Destination)
        };
        let pair = [source, destination];
        // A pod that reaches itself through the node must see the answer come from the node.
        let hairpin = [
            Match::Ipv4(ipv4),
            Match::WasRedirected,
            Match::In {
                fields: &pair,
                set: Kind::Hairpin.name(ipv4),
            },
        ];
        table.append_rule(chain, &hairpin, Statement::Masquerade);
        let (mask, multicast): (&[u8], &[u8]) = if ipv4 {
            (&[0xf0, 0, 0, 0], &[0xe0, 0, 0, 0])
        } else {
            (&[0xff, 0, 0, 0], &[0xff, 0, 0, 0])
        };
        let leaving = [
            Match::Ipv4(ipv4),
            Match::In {
                fields: &[source],
                set: Kind::Masquerade.name(ipv4),
            },
            Match::Is {
                field: destination,
                mask,
                value: multicast,
                not: true,
            },
            // To another pod of this node nothing leaves.
            Match::NotLeavingBy(POD_LINK_PREFIX),
        ];
        table.append_rule(chain, &leaving, Statement::Masquerade);
    }
    // From 127.0.0.1 nothing may leave the node: the pod would answer itself.
    let loopback = [
        Match::Ipv4(true),
        Match::WasRedirected,
        Match::Is {
            field: Field::Ipv4Source,
            mask: &[0xff, 0, 0, 0],
            value: &[127, 0, 0, 0],
            not: false,
        },
    ];
    table.append_rule(chain, &loopback, Statement::Masquerade);
}

/// Clients of a UDP port go on with what connection tracking remembers of it: the pod that had it before, or none.
fn forget_flows(wanted: &Wanted) -> Result<(), Error> {
    let udp: BTreeSet<u16> = wanted
        .mappings
        .iter()
        .filter(|mapping| mapping.protocol == Protocol::Udp)
        .map(|mapping| mapping.host_port)
        .collect();
    forget(&udp, |flow| {
        !wanted.addresses.contains(&flow.reply.source.ip())
    })
}

/// The same for pods that are gone. Connection tracking is looked
/// through in whole, which takes longer than all the rest: so only for those of UDP.
fn forget_flows_to(pods: &[Vec<u8>]) -> Result<(), Error> {
    let gone: Vec<_> = pods.iter().filter_map(|value| endpoint(value)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    forget_where(None, |flow| gone.contains(&flow.reply.source))
}

fn endpoint(value: &[u8]) -> Option<std::net::SocketAddr> {
    let (address, port) = value.split_at_checked(value.len().checked_sub(4)?)?;
    let ip: std::net::IpAddr = match address.len() {
        4 => <[u8; 4]>::try_from(address).ok()?.into(),
        _ => <[u8; 16]>::try_from(address).ok()?.into(),
    };
    Some((ip, u16::from_be_bytes([port[0], port[1]])).into())
}

fn forget(ports: &BTreeSet<u16>, which: impl Fn(&Flow) -> bool) -> Result<(), Error> {
    for port in ports {
        forget_where(Some(*port), &which)?;
    }
    Ok(())
}

fn forget_where(port: Option<u16>, which: impl Fn(&Flow) -> bool) -> Result<(), Error> {
    for family in [Family::V4, Family::V6] {
        let filter = Filter {
            destination_port: port,
            ..Filter::new(family, UDP)
        };
        let mut flows = Vec::new();
        Conntrack::open()?.list(&filter, |some| {
            flows.extend(some.iter().filter(|flow| which(flow)).copied());
        })?;
        let mut table = Conntrack::open()?;
        for flow in &flows {
            table.delete(flow)?;
        }
    }
    Ok(())
}
