//! From the rules of a chain to other rules, one by one: what stays in both is not touched and keeps its counters.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::iptables::rule::Rule;

#[cfg(test)]
mod tests;

/// One line of a transaction about a chain that stays. Numbers count from 1, in the chain as it is when the step's
/// turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// `-R CHAIN number rule`
    Replace(usize, &'a Rule),
    /// `-D CHAIN number`
    Delete(usize),
    /// `-I CHAIN number rule`: the rule has this number afterwards.
    Insert(usize, &'a Rule),
    /// `-A CHAIN rule`
    Append(&'a Rule),
}

/// The steps from `before` to `after`; `None` when the chain is better written whole.
///
/// Steps pay when at least as many rules stay as there are steps. What is gained is counters and bytes: the programs
/// need as long for 40 steps in a chain of 80 rules as for all 80 (nft variant of 1.8.9; legacy does not care).
///
/// They go from the back to the front, so that no step moves what is still to come, and each one that names a number
/// finds a rule there that was there before. The nft variant of 1.8.9 crashes when it is to replace a rule that it was
/// just told to write, and miscounts in a chain that was declared by the same transaction.
///
/// Rules are named by number, not by specification: of two equal rules the right one goes, a number is short, and an
/// insertion needs one anyway. If somebody else has edited the chain since we last looked, a number may be too big,
/// which fails the transaction and begins a full sync, or it hits a wrong rule. That edit of theirs has changed the
/// stamp of [`crate::iptables::watch`], or is found by its next audit: the chain is not as in the image, and a full
/// sync repairs it like any other foreign change.
pub(super) fn steps<'a>(before: &[Rule], after: &'a [Rule]) -> Option<Vec<Step<'a>>> {
    // Cuts off what both begin and end with, and bounds its search.
    let changes = capture_diff_slices(Algorithm::Myers, before, after);
    let mut steps = Vec::new();
    let mut stay = 0;
    for change in changes.iter().rev() {
        if let DiffOp::Equal { len, .. } = change {
            stay += len;
            continue;
        }
        let (old, new) = (change.old_range(), &after[change.new_range()]);
        let both = old.len().min(new.len());
        let (replacing, added) = new.split_at(both);
        for (number, rule) in (old.end + 1..).zip(added) {
            // Where nothing follows, the chain ends.
            steps.push(if old.end == before.len() {
                Step::Append(rule)
            } else {
                Step::Insert(number, rule)
            });
        }
        let surplus = old.start + both..old.end;
        steps.extend(surplus.rev().map(|index| Step::Delete(index + 1)));
        let numbered = (old.start + 1..).zip(replacing);
        steps.extend(numbered.map(|(number, rule)| Step::Replace(number, rule)));
    }
    (stay >= steps.len()).then_some(steps)
}
