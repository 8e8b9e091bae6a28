//! VXLAN from known peers only: one nftables table of our own, whatever keeps the node's other rules and whatever mode
//! the proxy is in. Each packet costs one look-up in a set; a stranger's is dropped and counted.
//!
//! Connection tracking is told to leave VXLAN between this node and its peers alone. The answer to a packet has another
//! source port, by the flow inside, so each would be the first of a connection for ever, and pass all rules for those.
//!
//! What is wanted is compared with what was told last. That nobody took the table away is asked with each reading of
//! the counter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seaway_kernel::nftables::{
    Element, FRAGMENT, Field, Hook, Match, Part, Set, Statement, Transaction,
};
use seaway_kernel::{Error, Nftables};
use seaway_model::ownership::NFT_TABLE_OVERLAY as TABLE;

/// The names in the table.
const V4: &str = "peers4";
const V6: &str = "peers6";
const STRANGERS: &str = "strangers";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const UPLINKS: &str = "uplinks";

/// Before the filters of others, behind defragmentation and connection tracking: packets are whole.
const PRIORITY: i32 = -1;

/// Before connection tracking (`NF_IP_PRI_RAW`).
const BEFORE_TRACKING: i32 = -300;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// What the table lets pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// UDP port of VXLAN.
    pub port: u16,
    /// Addresses of peers.
    pub known: BTreeSet<IpAddr>,
    /// Addresses of this node between which and those of peers tunnels are.
    pub own: Vec<IpAddr>,
    /// The links that have them, by name, with their index: one that is made anew under a name has no chain (before Linux 6.16).
    pub uplinks: BTreeMap<String, u32>,
}

/// What has to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// The table is made anew, in one step: there is no moment without it, and none at which a peer is a stranger.
    pub whole: bool,
    pub gone: Vec<IpAddr>,
    pub new: Vec<IpAddr>,
}

impl Rules {
    /// What leads here; `before` is what is there, `None` if that is not known.
    pub fn difference(&self, before: Option<&Self>) -> Difference {
        let fixed = |rules: &Self| (rules.port, rules.own.clone(), rules.uplinks.clone());
        match before.filter(|before| fixed(before) == fixed(self)) {
            Some(before) => Difference {
                whole: false,
                gone: before.known.difference(&self.known).copied().collect(),
                new: self.known.difference(&before.known).copied().collect(),
            },
            None => Difference {
                whole: true,
                gone: Vec::new(),
                new: self.known.iter().copied().collect(),
            },
        }
    }

    fn transaction(&self, difference: &Difference) -> Transaction<'static> {
        let mut transaction = Transaction::new(TABLE);
        if difference.whole {
            self.create(&mut transaction);
        }
        for (set, is_v4) in [(V4, true), (V6, false)] {
            let of_set = |addresses: &[IpAddr]| -> Vec<Element> {
                let addresses = addresses.iter().filter(|ip| ip.is_ipv4() == is_v4);
                addresses.map(element).collect()
            };
            transaction.delete_elements(set, &of_set(&difference.gone));
            transaction.add_elements(set, &of_set(&difference.new));
        }
        transaction
    }

    fn create(&self, transaction: &mut Transaction<'_>) {
        transaction.replace_table();
        for (name, part) in [(V4, Part::Ipv4), (V6, Part::Ipv6)] {
            transaction.create_set(Set {
                name,
                key: &[part],
                value: &[],
            });
        }
        transaction.create_counter(STRANGERS);
        transaction.create_filter_chain(INPUT, Hook::Input, PRIORITY);
        let port = self.port.to_be_bytes();
        let vxlan = [
            Match::Is {
                field: Field::Protocol,
                mask: &[u8::MAX],
                value: &[UDP],
                not: false,
            },
            Match::Is {
                field: Field::DestinationPort,
                mask: &[u8::MAX; 2],
                value: &port,
                not: false,
            },
        ];
        let of_peers = |chain, [v4, v6]: [Field; 2], transaction: &mut Transaction<'_>, verdict| {
            for (is_v4, fields, set) in [(true, [v4], V4), (false, [v6], V6)] {
                let [udp, port] = vxlan;
                let fields = &fields;
                let rule = [udp, port, Match::Ipv4(is_v4), Match::In { fields, set }];
                transaction.append_rule(chain, &rule, verdict);
            }
        };
        let source = [Field::Ipv4Source, Field::Ipv6Source];
        of_peers(INPUT, source, transaction, Statement::Accept);
        transaction.append_rule(INPUT, &vxlan, Statement::CountAndDrop(STRANGERS));
        transaction.create_filter_chain(OUTPUT, Hook::Output, BEFORE_TRACKING);
        let destination = [Field::Ipv4Destination, Field::Ipv6Destination];
        of_peers(OUTPUT, destination, transaction, Statement::DoNotTrack);
        if !self.uplinks.is_empty() {
            let links: Vec<_> = self.uplinks.keys().map(String::as_str).collect();
            transaction.create_ingress_chain(UPLINKS, &links, 0);
            for address in &self.own {
                self.leave_alone(*address, transaction);
            }
        }
    }

    /// What comes in for one of our addresses. Not what was cut: only the first part has a port, and tracking, which
    /// would keep the others until all are there, would not get it (`ipv4_conntrack_defrag`).
    fn leave_alone(&self, own: IpAddr, transaction: &mut Transaction<'_>) {
        let is = |field, mask, value| Match::Is {
            field,
            mask,
            value,
            not: false,
        };
        let port = self.port.to_be_bytes();
        let port = is(Field::DestinationPort, &[u8::MAX; 2], &port);
        match own {
            IpAddr::V4(own) => {
                let own = own.octets();
                let rule = [
                    Match::Ipv4(true),
                    is(Field::Protocol, &[u8::MAX], &[UDP]),
                    is(Field::Ipv4Fragment, &FRAGMENT, &[0; 2]),
                    port,
                    is(Field::Ipv4Destination, &[u8::MAX; 4], &own),
                    Match::In {
                        fields: &[Field::Ipv4Source],
                        set: V4,
                    },
                ];
                transaction.append_rule(UPLINKS, &rule, Statement::DoNotTrack);
            }
            IpAddr::V6(own) => {
                let own = own.octets();
                let rule = [
                    Match::Ipv4(false),
                    is(Field::Ipv6NextHeader, &[u8::MAX], &[UDP]),
                    port,
                    is(Field::Ipv6Destination, &[u8::MAX; 16], &own),
                    Match::In {
                        fields: &[Field::Ipv6Source],
                        set: V6,
                    },
                ];
                transaction.append_rule(UPLINKS, &rule, Statement::DoNotTrack);
            }
        }
    }
}

fn element(address: &IpAddr) -> Element {
    let key = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Element {
        key,
        value: Vec::new(),
        comment: String::new(),
    }
}

fn address(element: &Element) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(&*element.key).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(&*element.key).map(IpAddr::from));
    address.ok()
}

/// The table in the kernel.
#[derive(Debug)]
pub struct Guard {
    tables: Nftables,
    /// What the kernel was told; `None` after a failure, at the start, and when the table is gone.
    told: Option<Rules>,
    /// How many rules the table has.
    rules: usize,
}

impl Guard {
    /// In the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            tables: Nftables::open()?,
            told: None,
            rules: 0,
        })
    }

    /// Tells the kernel what is new; answers whether anything was.
    pub fn set(&mut self, rules: Rules) -> Result<bool, Error> {
        let difference = rules.difference(self.told.as_ref());
        if difference == Difference::default() {
            return Ok(false);
        }
        self.told = None;
        let transaction = rules.transaction(&difference);
        if difference.whole {
            self.rules = transaction.rules();
        }
        if let Err(error) = self.tables.commit(&transaction) {
            // Before Linux 5.10 there is no such chain; what comes in is tracked then.
            let tracked = Rules {
                uplinks: BTreeMap::new(),
                ..rules.clone()
            };
            let again = difference.whole && !rules.uplinks.is_empty();
            let tracked = tracked.transaction(&difference);
            if !again || self.tables.commit(&tracked).is_err() {
                return Err(error);
            }
            self.rules = tracked.rules();
        }
        self.told = Some(rules);
        Ok(true)
    }

    /// Tells the kernel of peers that come and go; answers whether that was enough. Otherwise everything has to be told.
    pub fn change(&mut self, gone: Vec<IpAddr>, new: Vec<IpAddr>) -> Result<bool, Error> {
        let Some(mut rules) = self.told.take() else {
            return Ok(false);
        };
        let difference = Difference {
            whole: false,
            gone,
            new,
        };
        if difference != Difference::default() {
            self.tables.commit(&rules.transaction(&difference))?;
            for address in &difference.gone {
                rules.known.remove(address);
            }
            rules.known.extend(&difference.new);
        }
        self.told = Some(rules);
        Ok(true)
    }

    /// How many packets of strangers were dropped since the table was made; `None` if it is gone.
    pub fn strangers(&mut self) -> Result<Option<u64>, Error> {
        let count = self.tables.count(TABLE, STRANGERS)?;
        if count.is_none() {
            self.told = None;
        }
        Ok(count)
    }

    /// Whether the sets hold what they were told, and the rules are there. Others can change them without taking the table away.
    pub fn audit(&mut self) -> Result<bool, Error> {
        let Some(told) = &self.told else {
            return Ok(false);
        };
        let mut seen = BTreeSet::new();
        for set in [V4, V6] {
            let elements = self.tables.elements(TABLE, set)?.unwrap_or_default();
            seen.extend(elements.iter().filter_map(address));
        }
        let right = seen == told.known && self.tables.rules(TABLE)? == self.rules;
        if !right {
            self.told = None;
        }
        Ok(right)
    }
}

/// Removes the table; answers whether there was one.
pub fn remove() -> Result<bool, Error> {
    let mut gone = Transaction::new(TABLE);
    gone.delete_table();
    match Nftables::open()?.commit(&gone) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the table is there.
pub fn is_there() -> Result<bool, Error> {
    Ok(Nftables::open()?.count(TABLE, STRANGERS)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(port: u16, known: &[&str]) -> Rules {
        Rules {
            port,
            known: known.iter().map(|ip| ip.parse().unwrap()).collect(),
            own: vec!["192.168.0.1".parse().unwrap()],
            uplinks: [("eth0".to_owned(), 2)].into(),
        }
    }

    #[test]
    fn one_peer_costs_one_element() {
        let before = rules(8472, &["192.168.0.2", "192.168.0.3", "fd00::3"]);
        let after = rules(8472, &["192.168.0.2", "192.168.0.4", "fd00::3"]);
        let difference = Difference {
            whole: false,
            gone: vec!["192.168.0.3".parse().unwrap()],
            new: vec!["192.168.0.4".parse().unwrap()],
        };
        assert_eq!(after.difference(Some(&before)), difference);
        assert_eq!(after.difference(Some(&after)), Difference::default());
    }

    #[test]
    fn another_port_uplink_and_the_unknown_make_the_table_anew() {
        let wanted = rules(8472, &["192.168.0.2"]);
        let whole = wanted.difference(None);
        assert!(whole.whole && whole.new.len() == 1);
        let uplink = |name: &str, index| Rules {
            uplinks: [(name.to_owned(), index)].into(),
            ..wanted.clone()
        };
        let others = [
            rules(4789, &["192.168.0.2"]),
            uplink("eth1", 2),
            uplink("eth0", 3),
        ];
        for other in others {
            assert_eq!(wanted.difference(Some(&other)), whole);
        }
    }

    #[test]
    fn addresses_go_into_elements_and_out_again() {
        for ip in ["192.168.0.2", "fd00::3"].map(|ip| ip.parse::<IpAddr>().unwrap()) {
            assert_eq!(address(&element(&ip)), Some(ip));
        }
        let strange = Element {
            key: vec![1, 2, 3],
            ..element(&IpAddr::from([0; 4]))
        };
        assert_eq!(address(&strange), None);
    }
}
