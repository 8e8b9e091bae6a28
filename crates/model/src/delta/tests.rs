use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Want(u8, u8),
    Unwant(u8),
    See(u8, u8),
    Miss(u8),
    WantAll(Vec<(u8, u8)>),
    SeeAll(Vec<(u8, u8)>),
    Apply(u8),
    ApplyAll,
}

fn step() -> impl Strategy<Value = Step> {
    let (key, value) = (0..5_u8, 0..3_u8);
    let pairs = vec((key.clone(), value.clone()), 0..5);
    prop_oneof![
        4 => (key.clone(), value.clone()).prop_map(|(k, v)| Step::Want(k, v)),
        2 => key.clone().prop_map(Step::Unwant),
        4 => (key.clone(), value).prop_map(|(k, v)| Step::See(k, v)),
        2 => key.clone().prop_map(Step::Miss),
        1 => pairs.clone().prop_map(Step::WantAll),
        1 => pairs.prop_map(Step::SeeAll),
        2 => key.prop_map(Step::Apply),
        1 => Just(Step::ApplyAll),
    ]
}

proptest! {
    /// Against the naive form: two maps, compared from scratch.
    #[test]
    fn behaves_as_two_maps(steps in vec(step(), 0..40)) {
        let mut delta = Delta::new();
        let mut desired = BTreeMap::new();
        let mut observed = BTreeMap::new();
        for step in steps {
            match step {
                Step::Want(k, v) => {
                    delta.set_desired(k, v);
                    desired.insert(k, v);
                }
                Step::Unwant(k) => {
                    delta.remove_desired(&k);
                    desired.remove(&k);
                }
                Step::See(k, v) => {
                    delta.observe(k, v);
                    observed.insert(k, v);
                }
                Step::Miss(k) => {
                    delta.forget(&k);
                    observed.remove(&k);
                }
                Step::WantAll(pairs) => {
                    delta.replace_desired(pairs.clone());
                    desired = pairs.into_iter().collect();
                }
                Step::SeeAll(pairs) => {
                    delta.replace_observed(pairs.clone());
                    observed = pairs.into_iter().collect();
                }
                Step::Apply(k) => {
                    delta.mark_applied(&k);
                    match desired.get(&k) {
                        Some(v) => observed.insert(k, *v),
                        None => observed.remove(&k),
                    };
                }
                Step::ApplyAll => {
                    delta.mark_all_applied();
                    observed = desired.clone();
                }
            }
            let updates: BTreeMap<_, _> = desired
                .iter()
                .filter(|(k, v)| observed.get(*k) != Some(*v))
                .collect();
            let deletions: BTreeMap<_, _> = observed
                .iter()
                .filter(|(k, _)| !desired.contains_key(*k))
                .collect();
            prop_assert_eq!(delta.pending_updates().collect::<BTreeMap<_, _>>(), updates);
            prop_assert_eq!(delta.pending_deletions().collect::<BTreeMap<_, _>>(), deletions);
            prop_assert_eq!(delta.is_in_sync(), desired == observed);
            prop_assert_eq!(delta.iter_desired().collect::<BTreeMap<_, _>>(), desired.iter().collect());
            prop_assert_eq!(delta.iter_observed().collect::<BTreeMap<_, _>>(), observed.iter().collect());
            for k in 0..5 {
                prop_assert_eq!(delta.desired(&k), desired.get(&k));
                prop_assert_eq!(delta.observed(&k), observed.get(&k));
            }
        }
    }
}

#[test]
fn a_value_in_sync_is_held_once() {
    let mut delta = Delta::new();
    delta.set_desired("a", 1);
    delta.observe("a", 1);
    assert!(delta.wanted.is_empty() && delta.surplus.is_empty());
    assert_eq!(delta.in_sync.len(), 1);
}
