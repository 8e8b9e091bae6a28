//! Flows between pods that connection tracking keeps, in both directions: what it translates, and connections that began in the
//! stack. Of those it knows which bytes may come next. Once some have gone past it, what comes through it again, as after a change
//! of mode, is invalid to it, and dropped where rules say so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seaway_ebpf_abi::config::CONFIG_POD_FAST;
use seaway_ebpf_abi::{Addr, Cidr, FlowKey, PeerValue, PodValue, TCP, maps};
use seaway_kernel::conntrack::{Conntrack, Family, Filter, Flow, TcpState};

use super::maps::read_peers;
use super::peers::network;
use crate::ebpf::counted::{self, Counted};
use crate::ebpf::error::EbpfError;
use crate::ebpf::table::Table;
use crate::ebpf::tables::Tables;
use crate::ebpf::translated;

/// Has the programs know of those that there are; how many entries that took. While packets go past the stack it has no more than
/// was noted before, but for what is translated.
pub(super) fn note(dir: &Path, conntrack: &mut Conntrack) -> Result<usize, EbpfError> {
    let (Some(tables), Some(table)) = (Tables::open(dir)?, Counted::open(dir, &counted::DETOURS)?)
    else {
        return Ok(0);
    };
    let pods = Pods::read(dir)?;
    let mut entries: BTreeMap<FlowKey, u32> = BTreeMap::new();
    let mut keep = |flow: &Flow| entries.extend(detours(flow).map(|key| (key, 1)));
    translated::list(conntrack, |flows| {
        let ours = flows.iter().filter(|flow| pods.have_an_end_of(flow));
        ours.for_each(&mut keep);
    })?;
    if tables.read_config()?.flags & CONFIG_POD_FAST == 0 {
        for family in [Family::V4, Family::V6] {
            conntrack.list(&Filter::new(family, TCP), |flows| {
                let ours = flows.iter().filter(|flow| goes_on(flow) && pods.have(flow));
                ours.for_each(&mut keep);
            })?;
        }
    }
    let count = entries.len();
    table.bring_in(entries.into_iter().collect())?;
    Ok(count)
}

/// Whether more is to come of a connection.
fn goes_on(flow: &Flow) -> bool {
    !matches!(
        flow.tcp,
        Some(TcpState::LastAck | TcpState::TimeWait | TcpState::Close)
    )
}

/// The pods that the programs know.
#[derive(Debug, Default)]
struct Pods {
    local: BTreeSet<Addr>,
    remote: Vec<Cidr>,
}

impl Pods {
    fn read(dir: &Path) -> Result<Self, EbpfError> {
        let local = match Table::<Addr, PodValue>::open(dir, maps::PODS)? {
            Some(pods) => pods.entries()?.into_iter().map(|(addr, _)| addr).collect(),
            None => BTreeSet::new(),
        };
        let peers = read_peers(dir)?;
        // The others are left to the stack anyway.
        let peers = peers
            .iter()
            .filter(|(_, peer)| **peer != PeerValue::default());
        let cidr = |(ip, prefix)| Cidr::new(ip, prefix);
        let remote = peers.map(|(key, _)| cidr(network(key))).collect();
        Ok(Self { local, remote })
    }

    /// Whether one of those who talk is a pod of this node: of others nobody ever asks.
    fn have_an_end_of(&self, flow: &Flow) -> bool {
        ends(flow).iter().any(|end| self.local.contains(end))
    }

    /// Whether both are pods, and one is of this node.
    fn have(&self, flow: &Flow) -> bool {
        let is_pod = |end: &Addr| {
            self.local.contains(end) || self.remote.iter().any(|network| end.is_in(network))
        };
        self.have_an_end_of(flow) && ends(flow).iter().all(is_pod)
    }
}

/// Who answers and who asks, as the answer has them.
fn ends(flow: &Flow) -> [Addr; 2] {
    [flow.reply.source, flow.reply.destination].map(|end| end.ip().into())
}

/// Both directions of a flow as it passes between who asks and who answers.
fn detours(flow: &Flow) -> [FlowKey; 2] {
    let answer = FlowKey {
        src: flow.reply.source.ip().into(),
        dst: flow.reply.destination.ip().into(),
        sport: flow.reply.source.port().to_be(),
        dport: flow.reply.destination.port().to_be(),
        protocol: flow.protocol,
        pad: [0; 3],
    };
    [answer, answer.swapped()]
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use seaway_kernel::conntrack::{Status, Tuple};

    use super::*;

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn flow(original: Tuple, reply: Tuple) -> Flow {
        Flow {
            protocol: TCP,
            original,
            reply,
            status: Status::default(),
            tcp: Some(TcpState::Established),
            mark: 0,
            zone: 0,
            id: 0,
        }
    }

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_translated_flow_stays_in_both_directions() {
        let flow = flow(
            tuple("10.244.1.5:40000", "192.168.77.1:7777"),
            tuple("10.244.1.6:8080", "10.244.1.5:40000"),
        );
        let key = FlowKey {
            src: addr("10.244.1.6"),
            dst: addr("10.244.1.5"),
            sport: 8080_u16.to_be(),
            dport: 40000_u16.to_be(),
            protocol: TCP,
            pad: [0; 3],
        };
        assert_eq!(detours(&flow), [key, key.swapped()]);
    }

    #[test]
    fn connections_of_pods_stay_where_more_is_to_come() {
        let pods = Pods {
            local: [addr("10.244.1.5"), addr("10.244.1.6")].into(),
            remote: vec![Cidr::new("10.244.2.0".parse().unwrap(), 24)],
        };
        for (from, to, both, one) in [
            ("10.244.1.5:40000", "10.244.1.6:8080", true, true),
            ("10.244.1.5:40000", "10.244.2.6:8080", true, true),
            ("10.244.2.6:40000", "10.244.1.5:8080", true, true),
            ("10.244.1.5:40000", "192.0.2.1:443", false, true),
            ("10.244.2.5:40000", "10.244.2.6:8080", false, false),
            ("192.0.2.1:40000", "192.168.77.1:22", false, false),
        ] {
            let flow = flow(tuple(from, to), tuple(to, from));
            assert_eq!(pods.have(&flow), both, "{from} to {to}");
            assert_eq!(pods.have_an_end_of(&flow), one, "{from} to {to}");
        }
        let direct = || {
            flow(
                tuple("10.0.0.1:1", "10.0.0.2:2"),
                tuple("10.0.0.2:2", "10.0.0.1:1"),
            )
        };
        for (state, stays) in [
            (TcpState::SynSent, true),
            (TcpState::Established, true),
            (TcpState::CloseWait, true),
            (TcpState::TimeWait, false),
            (TcpState::Close, false),
        ] {
            let flow = Flow {
                tcp: Some(state),
                ..direct()
            };
            assert_eq!(goes_on(&flow), stays, "{state:?}");
        }
    }
}
