//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! The sum does not depend on byte order: values are taken as they stand in the packet, read as native integers.

/// One's complement addition: the carry comes back in at the low end.
#[inline(always)]
#[must_use]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    // A carry leaves at most 0xffff_fffe, so that this cannot overflow again.
    sum.wrapping_add(carry as u32)
}

/// What replacing `old` by `new` adds to the sum: `~m + m'`. Differences are added up with [`add`].
#[inline(always)]
#[must_use]
pub const fn difference(old: u32, new: u32) -> u32 {
    add(!old, new)
}

/// Folds a 32-bit sum into the 16 bits that stand in a header.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    twice as u16
}

/// RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`.
#[inline(always)]
#[must_use]
pub const fn update(check: u16, difference: u32) -> u16 {
    !fold(add(!check as u32, difference))
}
