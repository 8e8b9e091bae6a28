//! Rate limits of links: a token bucket (tc-tbf(8)) for what leaves a link, and an `ifb` device for what enters it, since
//! only what leaves can be queued. Parts of a [`Batch`]; linux/pkt_sched.h and linux/pkt_cls.h name the numbers.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};

use crate::netlink::message::{Message, attribute};
use crate::{Batch, Error, RouteSocket};

const NEW_LINK: u16 = 16;
const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
pub(crate) const GET_FILTER: u16 = 46;

/// `TC_H_ROOT` and `TC_H_INGRESS`, where a queueing discipline is attached.
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
/// The handle that the discipline at [`INGRESS`] has: `ffff:`.
const INGRESS_HANDLE: u32 = 0xffff_0000;

pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`.
const STOLEN: u32 = 4;
const REDIRECT: u32 = 1;
/// `ETH_P_ALL` as it stands on the wire.
const ANY_PROTOCOL: u16 = 0x0003_u16.to_be();

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_GROUP: u16 = 27;

/// For how long a packet may wait in the queue of a limit, in milliseconds; as the reference plugin.
const LATENCY_MS: u64 = 25;

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
}

impl Batch {
    /// Limits what leaves a link.
    pub fn limit(&mut self, link: u32, limit: Limit) {
        let mut body = tc(link, 0x0001_0000, ROOT, 0);
        body.text(TCA_KIND, "tbf");
        body.nested(TCA_OPTIONS, |options| {
            let rate = u32::try_from(limit.rate).unwrap_or(u32::MAX);
            let queue = limit.rate.saturating_mul(LATENCY_MS) / 1000 + u64::from(limit.burst);
            let queue = u32::try_from(queue).unwrap_or(u32::MAX);
            // struct tc_tbf_qopt: rate, no peak rate, limit, and two that TBF_BURST stands for.
            let mut parms = Vec::with_capacity(36);
            parms.extend([0, 1, 0, 0, 0xff, 0xff, 0, 0]);
            parms.extend(rate.to_ne_bytes());
            parms.extend([0; 12]);
            parms.extend(queue.to_ne_bytes());
            parms.extend([0; 8]);
            options.put(TBF_PARMS, &parms);
            if limit.rate > u64::from(u32::MAX) {
                options.put(TBF_RATE64, &limit.rate.to_ne_bytes());
            }
            options.put(TBF_BURST, &limit.burst.to_ne_bytes());
        });
        self.tc_request(
            NEW_QDISC,
            NLM_F_CREATE | NLM_F_REPLACE,
            body,
            format!("rate limit of link {link}"),
        );
    }

    /// Creates an `ifb` device, which takes in what other links redirect to it; it is to be set up. `group` is the number by
    /// which [`Batch::delete_link_group`] knows it.
    pub fn add_ifb(&mut self, name: &str, mtu: Option<u32>, group: u32) {
        let mut body = Message::body();
        // struct ifinfomsg: family, padding, type, index, flags, change.
        body.raw(&[0; 16]);
        body.text(IFLA_IFNAME, name);
        if let Some(mtu) = mtu {
            body.put(IFLA_MTU, &mtu.to_ne_bytes());
        }
        body.put(IFLA_GROUP, &group.to_ne_bytes());
        body.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "ifb"));
        self.bytes(
            NEW_LINK,
            NLM_F_CREATE | NLM_F_EXCL,
            body.into_body(),
            "create",
            format!("ifb device {name}"),
        );
    }

    /// Puts a link into a group.
    pub fn set_group(&mut self, link: u32, group: u32) {
        let mut body = Message::body();
        body.raw(&[0; 4]);
        body.raw(&link.to_ne_bytes());
        body.raw(&[0; 8]);
        body.put(IFLA_GROUP, &group.to_ne_bytes());
        self.bytes(
            NEW_LINK,
            0,
            body.into_body(),
            "set the group of",
            format!("link {link}"),
        );
    }

    /// Sends all that enters a link to another's exit.
    pub fn redirect(&mut self, from: u32, to: u32) {
        let mut qdisc = tc(from, INGRESS_HANDLE, INGRESS, 0);
        qdisc.text(TCA_KIND, "ingress");
        self.tc_request(
            NEW_QDISC,
            NLM_F_CREATE | NLM_F_EXCL,
            qdisc,
            format!("ingress of link {from}"),
        );
        // Priority and protocol.
        let info = 1 << 16 | u32::from(ANY_PROTOCOL);
        let mut filter = tc(from, 0, INGRESS_HANDLE, info);
        filter.text(TCA_KIND, "u32");
        filter.nested(TCA_OPTIONS, |options| {
            // struct tc_u32_sel: TC_U32_TERMINAL, one key, which any packet matches.
            let mut selector = [0; 32];
            selector[0] = 1;
            selector[2] = 1;
            options.put(U32_SEL, &selector);
            options.nested(U32_ACT, |actions| {
                actions.nested(1, |action| {
                    action.text(ACT_KIND, "mirred");
                    action.nested(ACT_OPTIONS, |options| {
                        // struct tc_mirred: index, capab, action, two counts, eaction, ifindex.
                        let words = [0, 0, STOLEN, 0, 0, REDIRECT, to];
                        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
                        options.put(MIRRED_PARMS, &bytes);
                    });
                });
            });
        });
        self.tc_request(
            NEW_FILTER,
            NLM_F_CREATE | NLM_F_EXCL,
            filter,
            format!("redirection of link {from} to link {to}"),
        );
    }

    fn tc_request(&mut self, kind: u16, flags: u16, body: Message, object: String) {
        self.bytes(kind, flags, body.into_body(), "set", object);
    }
}

/// `struct tcmsg`.
pub(crate) fn tc(link: u32, handle: u32, parent: u32, info: u32) -> Message {
    let mut body = Message::body();
    body.raw(&[0; 4]);
    for word in [link, handle, parent, info] {
        body.raw(&word.to_ne_bytes());
    }
    body
}

impl RouteSocket {
    /// The limit of what leaves a link, in bytes a second; `None` if there is none.
    pub fn limit_of(&mut self, link: u32) -> Result<Option<u64>, Error> {
        let mut found = None;
        self.disciplines(link, |index, attributes| {
            if index == link {
                found = found.or(rate_of(attributes));
            }
        })?;
        Ok(found)
    }

    /// The link to whose exit all is sent that enters another, as by [`Batch::redirect`]; `None` if it takes its own way.
    pub fn redirection_of(&mut self, link: u32) -> Result<Option<u32>, Error> {
        let mut found = None;
        self.dump_bytes(
            GET_FILTER,
            NLM_F_REQUEST | NLM_F_DUMP,
            &tc(link, 0, INGRESS_HANDLE, 0).into_body(),
            "redirections",
            |payload| found = found.or(payload.get(20..).and_then(target_of)),
        )?;
        Ok(found)
    }

    /// The links that have a queueing discipline, or filters for what enters them. `noqueue` is none, and `clsact` may be there for
    /// programs alone.
    pub fn queued_links(&mut self) -> Result<BTreeSet<u32>, Error> {
        let mut links = BTreeSet::new();
        self.disciplines(0, |index, attributes| {
            if attribute(attributes, TCA_KIND)
                .is_some_and(|kind| kind != b"noqueue\0" && kind != b"clsact\0")
            {
                links.insert(index);
            }
        })?;
        Ok(links)
    }

    /// Asks for the disciplines of a link, or of all (0): `each` is given the link and the attributes. Of others the kernel
    /// tells all the same.
    pub(crate) fn disciplines(
        &mut self,
        link: u32,
        mut each: impl FnMut(u32, &[u8]),
    ) -> Result<(), Error> {
        self.dump_bytes(
            GET_QDISC,
            NLM_F_REQUEST | NLM_F_DUMP,
            &tc(link, 0, 0, 0).into_body(),
            "rate limits",
            |payload| {
                let index = payload.get(4..8).and_then(|b| b.try_into().ok());
                if let Some((index, attributes)) = index.zip(payload.get(20..)) {
                    each(u32::from_ne_bytes(index), attributes);
                }
            },
        )
    }

    /// Asks for all of a kind; `each` is given what follows the header of each message.
    pub(crate) fn dump_bytes(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        object: &'static str,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let socket = self.blocking();
        let mut message = Message::new(kind, flags, socket.next_sequence());
        message.raw(body);
        socket
            .ask(&message.finish(), |message| each(message.payload()))
            .map(drop)
            .map_err(|failure| failure.into_error("list", object.to_owned()))
    }
}

/// The rate of a token bucket in its attributes; `None` for other disciplines.
fn rate_of(attributes: &[u8]) -> Option<u64> {
    if attribute(attributes, TCA_KIND)? != b"tbf\0" {
        return None;
    }
    let options = attribute(attributes, TCA_OPTIONS)?;
    if let Some(rate) = attribute(&options, TBF_RATE64) {
        return Some(u64::from_ne_bytes(rate.try_into().ok()?));
    }
    let parms = attribute(&options, TBF_PARMS)?;
    let rate = parms.get(8..12)?;
    Some(u32::from_ne_bytes(rate.try_into().ok()?).into())
}

/// Where the first action of a filter sends packets, in the filter's attributes; `None` for filters that do something else.
fn target_of(attributes: &[u8]) -> Option<u32> {
    let options = attribute(attributes, TCA_OPTIONS)?;
    let action = attribute(&attribute(&options, U32_ACT)?, 1)?;
    if attribute(&action, ACT_KIND)? != b"mirred\0" {
        return None;
    }
    let parms = attribute(&attribute(&action, ACT_OPTIONS)?, MIRRED_PARMS)?;
    // The last word of struct tc_mirred.
    let target = parms.get(24..28)?;
    Some(u32::from_ne_bytes(target.try_into().ok()?))
}
