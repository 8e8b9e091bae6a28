//! The loop's own bookkeeping: following events ends where starting with the last of them would.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seaway_model::{Diagnostic, InputEvent, ObjectKey, derive_all, derive_service, testing};
use seaway_proxy::reconcile::Deriver;

/// Takes the events in one by one, and derives after as many as `cuts` says.
fn follow(events: &[InputEvent], cuts: &[usize]) -> Deriver {
    let mut deriver = Deriver::new(testing::settings());
    let mut rest = events;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, later) = rest.split_at((*cut).min(rest.len()));
        rest = later;
        for event in batch {
            deriver.absorb(event.clone());
        }
        deriver.derive();
    }
    deriver
}

proptest! {
    /// Whatever the order of additions, updates, deletions, relabelled slices and changes of the node, and however
    /// they are batched: the state is that of deriving everything at the end.
    #[test]
    fn following_events_ends_where_deriving_everything_does(
        events in testing::events(40),
        cuts in proptest::collection::vec(1..6_usize, 1..30),
    ) {
        let followed = follow(&events, &cuts);
        let survivors = testing::survivors(&events);
        let afresh = follow(&survivors, &[survivors.len().max(1)]);
        prop_assert_eq!(followed.desired(), afresh.desired());
        prop_assert_eq!(followed.desired(), &derive_all(followed.inputs(), &testing::settings()).0);
    }

    /// A finding is told when it comes up, not again while it stays, and only with the Services that a change touched.
    #[test]
    fn what_is_wrong_is_told_once(events in testing::events(30)) {
        let settings = testing::settings();
        let mut deriver = Deriver::new(testing::settings());
        let mut known: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        for event in events {
            deriver.absorb(event);
            let (touched, fresh) = deriver.derive();
            let mut expected = Vec::new();
            let keys: BTreeSet<_> = known.keys().chain(&touched).cloned().collect();
            for key in keys {
                let (_, now) = derive_service(deriver.inputs(), &key, &settings);
                let before = known.insert(key.clone(), now.clone()).unwrap_or_default();
                prop_assert!(touched.contains(&key) || now == before, "{key} was not touched");
                expected.extend(now.into_iter().filter(|found| !before.contains(found)));
            }
            prop_assert_eq!(fresh, expected);
        }
    }
}
