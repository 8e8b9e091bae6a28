use proptest::collection::vec;
use proptest::prelude::*;
use seaway_model::{Family, Inputs, Outcome, derive_all, outcomes, testing};

use super::*;
use crate::iptables::plan::{Image, Settings};
use crate::iptables::walk::walk;

proptest! {
    /// What netfilter is left with does to packets of such a port what mode iptables would do, and nothing to any other,
    /// but that it refuses what a cluster IP of its own has no port for.
    #[test]
    fn rules_concern_what_the_programs_do_not_carry(
        inputs in testing::inputs(),
        node in testing::node_context(),
        packets in vec(testing::packet(), 40),
    ) {
        let (desired, _) = derive_all(&inputs, &testing::settings());
        let share = Share::of(&desired);
        for family in [Family::V4, Family::V6] {
            let settings = Settings {
                masquerade_all: node.masquerade_all,
                ..Settings::new(family, &node.detect_local)
                    .node_ports_on(node.node_port_addresses.as_deref())
            };
            let mut image = Image::default();
            let plan = image.plan(&share, &Change::Full, &settings);
            image.learn(plan);
            for packet in packets.iter().filter(|p| Family::of(p.source) == family) {
                let found: BTreeSet<Outcome> =
                    walk(&image.chains, packet, &node).unwrap().into_keys().collect();
                let owner = share.owner_of_cluster_ip(packet.destination.ip());
                let by_whole = outcomes(&desired, packet, &node);
                if packet.protocol == Protocol::Sctp {
                    let served = by_whole != BTreeSet::from([Outcome::Reject]);
                    let same = found == by_whole;
                    prop_assert!(same || !served && owner.is_none(), "{packet:?}: {found:?}");
                } else {
                    let expected = match owner {
                        Some(_) => Outcome::Reject,
                        None => Outcome::Pass,
                    };
                    prop_assert_eq!(found, BTreeSet::from([expected]), "{:?}", packet);
                }
            }
        }
    }

    /// Following changes ends where looking at everything does, and says of each change that it is one.
    #[test]
    fn following_changes_equals_the_whole(events in testing::events(30)) {
        let settings = testing::settings();
        let (mut inputs, mut desired) = (Inputs::default(), Desired::default());
        let mut share = Share::default();
        for event in events {
            let touched = inputs.apply(event);
            desired.update(&inputs, &touched, &settings);
            let before = share.desired().clone();
            share.update(&desired, &Change::Services(touched));
            let (after, due) = share.take();
            prop_assert_eq!(&after, &Share::of(&desired));
            match due {
                None => prop_assert_eq!(before, after),
                Some(Change::Full) => prop_assert!(false, "nobody has asked for everything"),
                Some(Change::Services(keys)) => {
                    let differs = |key: &ObjectKey| before.services.get(key) != after.services.get(key);
                    prop_assert!(keys.iter().all(differs));
                    let mut all = before.services.keys().chain(after.services.keys());
                    prop_assert!(all.all(|key| !differs(key) || keys.contains(key)));
                }
            }
        }
    }
}

/// A Service with an SCTP port.
fn sctp() -> Desired {
    let port = testing::plain::port("diameter", Protocol::Sctp, 3868);
    let service = testing::plain::service("hss", vec![[10, 96, 0, 20].into()], vec![port]);
    let mut inputs = Inputs::default();
    inputs.apply(seaway_model::InputEvent::Service(
        ObjectKey::new("default", "hss"),
        Some(service),
    ));
    derive_all(&inputs, &testing::settings()).0
}

#[test]
fn what_is_due_adds_up_until_it_is_taken() {
    let desired = sctp();
    let mut share = Share::default();
    share.update(&desired, &Change::Full);
    share.update(&Desired::default(), &Change::Full);
    let keys = desired.keys();
    assert!(!keys.is_empty());
    let due = Some(Change::Services(keys));
    assert_eq!(share.take(), (Desired::default(), due));
    assert_eq!(share.take().1, None);
    share.everything();
    share.update(&desired, &Change::Full);
    assert_eq!(share.take().1, Some(Change::Full));
}
