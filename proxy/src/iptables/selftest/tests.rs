use super::*;
use crate::iptables::fake::Fake;

#[test]
fn a_trial_and_its_removal_leave_no_trace() {
    for family in [Family::V4, Family::V6] {
        let mut fake = Fake::new(family);
        let before = fake.clone();
        fake.restore(&trial(&needs(family, true), family)).unwrap();
        assert_ne!(fake, before);
        fake.restore(&removal(&Table::ALL)).unwrap();
        assert_eq!(fake, before);
        // Also when there was nothing to remove.
        fake.restore(&removal(&Table::ALL)).unwrap();
        assert_eq!(fake, before);
    }
}

#[test]
fn one_need_is_tried_in_its_own_table_alone() {
    let needs = needs(Family::V4, false);
    let reject = needs.last().unwrap();
    assert_eq!(
        trial(std::slice::from_ref(reject), Family::V4),
        "*filter\n:SEAWAY-PROBE - [0:0]\n-A SEAWAY-PROBE -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n"
    );
}

#[test]
fn a_module_is_named_once() {
    let needs = needs(Family::V4, true);
    let refused: Vec<_> = needs
        .into_iter()
        .filter(|need| ["xt_recent", "xt_bpf"].contains(&need.module))
        .map(|need| (need, "No such file\nmore".to_owned()))
        .collect();
    assert_eq!(
        complaint(&refused),
        "xt_recent (for session affinity): No such file; \
         xt_bpf (for endpoints that reach themselves): No such file"
    );
}

#[test]
fn a_trial_of_one_table_touches_no_other() {
    let mut needs = needs(Family::V4, true);
    needs.retain(|need| need.table == Table::Nat);
    let text = trial(&needs, Family::V4) + &removal(&[Table::Nat]);
    assert!(!text.contains("*filter"), "{text}");
    assert_eq!(text.matches("COMMIT").count() as u32, COMMITS);
}
