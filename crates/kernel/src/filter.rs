//! Filters at links that are eBPF programs (tc-bpf(8)), as the kernel lists them. linux/pkt_sched.h, linux/rtnetlink.h and
//! linux/pkt_cls.h name the numbers.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

use crate::netlink::message::attribute;
use crate::shaping::{GET_FILTER, TCA_KIND, TCA_OPTIONS, tc};
use crate::{Error, RouteSocket};

/// The parents of filters in a `clsact` discipline: `ffff:fff2` and `ffff:fff3`.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;

/// Which packets of a link a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Those that enter it.
    Ingress,
    /// Those that leave it.
    Egress,
}

/// A filter that is an eBPF program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfFilter {
    /// Index of its link.
    pub link: u32,
    /// Which packets it sees.
    pub side: Side,
    /// Filters of smaller numbers come first.
    pub priority: u16,
    /// The name that was given with the program.
    pub name: String,
    /// The kernel's number of the program.
    pub program: u32,
}

impl RouteSocket {
    /// The filters of all links that are eBPF programs in a `clsact` discipline.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to list them. A link that goes meanwhile has none.
    pub fn bpf_filters(&mut self) -> Result<Vec<BpfFilter>, Error> {
        let mut links = BTreeSet::new();
        self.disciplines(0, |index, attributes| {
            if attribute(attributes, TCA_KIND).is_some_and(|kind| kind == b"clsact\0") {
                links.insert(index);
            }
        })?;
        let mut filters = Vec::new();
        for link in links {
            for (side, parent) in [
                (Side::Ingress, CLSACT_INGRESS),
                (Side::Egress, CLSACT_EGRESS),
            ] {
                self.dump_bytes(
                    GET_FILTER,
                    NLM_F_REQUEST | NLM_F_DUMP,
                    &tc(link, 0, parent, 0).into_body(),
                    "filters",
                    |payload| filters.extend(read(link, side, payload)),
                )?;
            }
        }
        Ok(filters)
    }
}

/// The filter in what follows a message's header; `None` for filters of other kinds, and for what stands for all of one
/// priority.
fn read(link: u32, side: Side, payload: &[u8]) -> Option<BpfFilter> {
    // struct tcmsg: family and padding, index, handle, parent, info.
    let info = u32::from_ne_bytes(payload.get(16..20)?.try_into().ok()?);
    let attributes = payload.get(20..)?;
    if attribute(attributes, TCA_KIND)? != b"bpf\0" {
        return None;
    }
    let options = attribute(attributes, TCA_OPTIONS)?;
    let mut name = attribute(&options, BPF_NAME)?;
    name.pop();
    Some(BpfFilter {
        link,
        side,
        priority: (info >> 16) as u16,
        name: String::from_utf8_lossy(&name).into_owned(),
        program: u32::from_ne_bytes(attribute(&options, BPF_ID)?.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, options: Option<&[(u16, &[u8])]>) -> Vec<u8> {
        let mut body = tc(3, 1, CLSACT_INGRESS, 0x05ea_0003);
        body.text(TCA_KIND, kind);
        if let Some(options) = options {
            body.nested(TCA_OPTIONS, |nested| {
                for (kind, value) in options {
                    nested.put(*kind, value);
                }
            });
        }
        body.into_body()
    }

    #[test]
    fn only_programs_are_filters_to_us() {
        let id = 77_u32.to_ne_bytes();
        let whole: &[(u16, &[u8])] = &[(BPF_NAME, b"from_pod\0"), (BPF_ID, &id)];
        let bytes = message("bpf", Some(whole));
        let expected = BpfFilter {
            link: 3,
            side: Side::Ingress,
            priority: 0x5ea,
            name: "from_pod".to_owned(),
            program: 77,
        };
        assert_eq!(read(3, Side::Ingress, &bytes), Some(expected));
        // As the kernel says first that there is a priority, and of other kinds.
        assert_eq!(read(3, Side::Ingress, &message("bpf", None)), None);
        assert_eq!(read(3, Side::Ingress, &message("u32", Some(whole))), None);
        for length in 0..bytes.len() {
            assert_eq!(read(3, Side::Ingress, &bytes[..length]), None, "{length}");
        }
    }
}
