//! Which flows a listener is told of.

use seaway_ebpf_abi::FlowKey;

/// Whether a flow is among the one in `sample` that are told of. The same for its beginning and its end, and, among clients
/// that differ in their ports only, evenly spread.
#[inline(always)]
#[must_use]
pub const fn is_sampled(client: &FlowKey, sample: u32) -> bool {
    if sample <= 1 {
        return true;
    }
    let ports = ((client.sport as u32) << 16) | client.dport as u32;
    let mixed = (client.src.words[3] ^ client.dst.words[3].rotate_left(16) ^ ports)
        .wrapping_mul(0x9e37_79b1);
    // The upper bits are the well mixed ones.
    ((mixed >> 16) as u64 * sample as u64) >> 16 == 0
}

#[cfg(test)]
mod tests {
    use seaway_ebpf_abi::{Addr, TCP};

    use super::*;

    fn client(port: u16, host: u32) -> FlowKey {
        FlowKey {
            src: Addr::v4(host),
            dst: Addr::v4(0x0a60_000a_u32.to_be()),
            sport: port.to_be(),
            dport: 80_u16.to_be(),
            protocol: TCP,
            pad: [0; 3],
        }
    }

    #[test]
    fn one_in_so_many_is_told_of() {
        for sample in [1, 2, 10, 100] {
            for host in [0x0a01_0203_u32, 0xc0a8_4dc8] {
                let told = (1024..u16::MAX)
                    .filter(|port| is_sampled(&client(*port, host.to_be()), sample))
                    .count();
                let expected = (usize::from(u16::MAX) - 1024) / sample as usize;
                assert!(
                    told.abs_diff(expected) <= expected / 5,
                    "{told} instead of {expected}, one in {sample}"
                );
            }
        }
        assert!(is_sampled(&client(1, 1), 0));
    }
}
