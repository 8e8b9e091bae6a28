//! Following events ends where starting with the last of them would.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing;

fn from_scratch(events: Vec<InputEvent>) -> Inputs {
    let mut inputs = Inputs::default();
    for event in events {
        inputs.apply(event);
    }
    inputs
}

proptest! {
    #[test]
    fn following_events_in_any_batches_equals_building_at_once(
        events in testing::events(30),
        cuts in proptest::collection::vec(1..6_usize, 1..30),
    ) {
        let expected = derive_all(&from_scratch(testing::survivors(&events)), &testing::settings());

        let mut inputs = Inputs::default();
        let mut desired = Desired::default();
        let mut rest = &events[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at((*cut).min(rest.len()));
            rest = later;
            let mut touched = BTreeSet::new();
            for event in batch {
                touched.extend(inputs.apply(event.clone()));
            }
            desired.update(&inputs, &touched, &testing::settings());
        }
        prop_assert_eq!(&desired, &expected.0);
        prop_assert_eq!(derive_all(&inputs, &testing::settings()), expected);
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (events, shuffled) in testing::events(20)
            .prop_map(|events| testing::survivors(&events))
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
    ) {
        let expected = derive_all(&from_scratch(events), &testing::settings());
        prop_assert_eq!(derive_all(&from_scratch(shuffled), &testing::settings()), expected);
    }

    #[test]
    fn sets_are_sorted_and_without_duplicates(inputs in testing::inputs()) {
        let (desired, _) = derive_all(&inputs, &testing::settings());
        for rule in desired.services.values().flat_map(|s| &s.ports) {
            for set in [&rule.cluster, &rule.local] {
                prop_assert!(set.windows(2).all(|pair| pair[0].addr < pair[1].addr));
                prop_assert!(set.iter().all(|b| Family::of(b.addr.ip()) == rule.family));
            }
            prop_assert!(rule.local.iter().all(|b| b.local));
            prop_assert_eq!(rule.any_endpoints, !rule.cluster.is_empty());
            prop_assert!(rule.frontends.iter().all(|f| f.addr.family() == rule.family));
        }
    }
}

proptest! {
    /// The node's own events are among them. What is told again touches none: a source that starts anew says everything.
    #[test]
    fn an_event_touches_every_service_that_it_changes_once(events in testing::events(30)) {
        let mut inputs = Inputs::default();
        let mut before = Desired::default();
        for event in events {
            let touched = inputs.apply(event.clone());
            let (after, _) = derive_all(&inputs, &testing::settings());
            for key in before.keys().union(&after.keys()) {
                let same = before.services.get(key) == after.services.get(key);
                prop_assert!(same || touched.contains(key), "{event:?} changed {key}");
            }
            before = after;
            prop_assert_eq!(inputs.apply(event.clone()), BTreeSet::new(), "{:?} again", event);
        }
    }
}
