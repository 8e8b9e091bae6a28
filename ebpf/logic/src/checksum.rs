//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! The sum does not depend on byte order: values are taken as they stand in the packet, read as native integers.

use seaway_ebpf_abi::Addr;

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

/// What replacing one address by another adds to the sum.
#[inline(always)]
#[must_use]
pub const fn address_difference(old: &Addr, new: &Addr) -> u32 {
    let (o, n) = (&old.words, &new.words);
    // The words that make an IPv4 address an IPv6 one are the same in both.
    add(
        add(difference(o[0], n[0]), difference(o[1], n[1])),
        add(difference(o[2], n[2]), difference(o[3], n[3])),
    )
}

/// The sum of bytes, a multiple of four.
#[inline(always)]
#[must_use]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut sum = 0;
    for word in bytes.chunks_exact(4) {
        sum = add(
            sum,
            u32::from_ne_bytes([word[0], word[1], word[2], word[3]]),
        );
    }
    sum
}

/// The sum of the pseudo header: of addresses, protocol and length of what follows.
#[inline(always)]
#[must_use]
pub const fn pseudo_header(src: &Addr, dst: &Addr, protocol: u8, length: u16) -> u32 {
    let rest = (protocol as u16).to_be() as u32 + length.to_be() as u32;
    if src.is_v4() {
        return add(add(src.words[3], dst.words[3]), rest);
    }
    add(add(plain_sum(src), plain_sum(dst)), rest)
}

#[inline(always)]
const fn plain_sum(addr: &Addr) -> u32 {
    let w = &addr.words;
    add(add(w[0], w[1]), add(w[2], w[3]))
}
