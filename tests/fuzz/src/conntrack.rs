//! Answers of the kernel about connection tracking.

use seaway_kernel::conntrack::{self, Family};

/// The request that the answer is taken to be for.
const SEQUENCE: u32 = 1;

/// An entry is of one family in all of its four addresses, whatever was sent.
pub(crate) fn check(bytes: &[u8]) {
    let _ = conntrack::read_portion(bytes, SEQUENCE, |flow| {
        let (there, back) = (flow.original, flow.reply);
        let ends = [
            there.source,
            there.destination,
            back.source,
            back.destination,
        ];
        let families = ends.map(|end| Family::of(end.ip()));
        assert_eq!(families, [flow.family(); 4], "{flow:?}");
    });
}
