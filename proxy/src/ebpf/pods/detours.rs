//! Flows between pods that connection tracking translates: they stay there, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use seaway_ebpf_abi::{Addr, FlowKey, PodValue, maps};
use seaway_kernel::conntrack::{Conntrack, Flow};

use crate::ebpf::counted::{self, Counted};
use crate::ebpf::error::EbpfError;
use crate::ebpf::table::Table;
use crate::ebpf::translated;

/// Has the programs know of those that there are; how many entries that took.
pub(super) fn note(dir: &Path, conntrack: &mut Conntrack) -> Result<usize, EbpfError> {
    let Some(table) = Counted::open(dir, &counted::DETOURS)? else {
        return Ok(0);
    };
    let mut entries: BTreeMap<FlowKey, u32> = BTreeMap::new();
    translated::list(conntrack, |flows| {
        entries.extend(flows.iter().flat_map(detours).map(|key| (key, 1)));
    })?;
    // Of those with clients outside nobody ever asks.
    let pods = Table::<Addr, PodValue>::open(dir, maps::PODS)?;
    let pods: BTreeSet<Addr> = match pods {
        Some(pods) => pods.entries()?.into_iter().map(|(addr, _)| addr).collect(),
        None => BTreeSet::new(),
    };
    entries.retain(|key, _| pods.contains(&key.src) || pods.contains(&key.dst));
    let count = entries.len();
    table.bring_in(entries.into_iter().collect())?;
    Ok(count)
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

    use seaway_ebpf_abi::TCP;
    use seaway_kernel::conntrack::{Status, Tuple};

    use super::*;

    #[test]
    fn a_translated_flow_stays_in_both_directions() {
        let tuple = |source: &str, destination: &str| Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let flow = Flow {
            protocol: TCP,
            original: tuple("10.244.1.5:40000", "192.168.77.1:7777"),
            reply: tuple("10.244.1.6:8080", "10.244.1.5:40000"),
            status: Status::DESTINATION_NAT,
            tcp: None,
            mark: 0,
            zone: 0,
            id: 0,
        };
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
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
}
