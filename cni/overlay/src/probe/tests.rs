use std::net::Ipv4Addr;

use futures::FutureExt as _;
use seaway_kernel::NetNs;

use super::*;

/// Peers on the loopback device, where the prober answers itself.
fn targets(numbers: &[u8], full: u32) -> Targets {
    let peer = |number: &u8| {
        let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, *number));
        (format!("n{number}").into(), address)
    };
    Targets {
        peers: numbers.iter().map(peer).collect(),
        // The address that the questions come from.
        known: [IpAddr::from(Ipv4Addr::LOCALHOST)].into(),
        full,
        offloaded: true,
    }
}

/// Waits until the peers of those numbers, and no others, are known to get packets of that size.
async fn known(probes: &Probes, numbers: &[u8], full: u32) {
    let limit = Instant::now() + Duration::from_secs(25);
    loop {
        let records = probes.records();
        let right = records.len() == numbers.len()
            && numbers.iter().all(|number| {
                let record = records.get(format!("n{number}").as_str());
                record.is_some_and(|record| {
                    let Found {
                        reachable,
                        mtu,
                        offload,
                        ..
                    } = record.found;
                    (reachable, mtu, offload) == (Health::Works, Some(full), Health::Works)
                })
            });
        if right {
            return;
        }
        assert!(Instant::now() < limit, "{records:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn good_ways_are_found_and_call_for_nothing() {
    let netns = NetNs::anonymous().unwrap();
    let probes = {
        let _inside = netns.enter().unwrap();
        Probes::start().unwrap()
    };
    probes.aim(Aim::All(targets(&[2, 3, 4], 1400)));
    known(&probes, &[2, 3, 4], 1400).await;
    // One goes, one comes, one gets another address; and then packets may be larger.
    let moved = IpAddr::from(Ipv4Addr::new(127, 0, 0, 33));
    let new = targets(&[5], 1400);
    let mut peers: Vec<_> = new.peers.into_iter().map(|(n, ip)| (n, Some(ip))).collect();
    peers.extend([("n4".into(), None), ("n3".into(), Some(moved))]);
    probes.aim(Aim::Some {
        peers,
        gone: BTreeSet::from([IpAddr::from(Ipv4Addr::LOCALHOST)]),
        new: new.known.into_iter().collect(),
    });
    known(&probes, &[2, 3, 5], 1400).await;
    let mut others = targets(&[2, 5], 1500);
    others.peers.insert("n3".into(), moved);
    probes.aim(Aim::All(others));
    known(&probes, &[2, 3, 5], 1500).await;
    assert_eq!(probes.findings(), Findings::default());
    assert_eq!(probes.changed().now_or_never(), None);
}
