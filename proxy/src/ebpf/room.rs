//! How large the Service tables have to be. Only user space writes them, so that one that gets full is replaced by a larger
//! copy (`docs/adr/0011-service-tables-grow-by-copy.md`): the programs that are at work keep the old one until their successors,
//! which know the new one, are put behind the same links.

use seaway_ebpf_abi::maglev::MAGLEV_CHUNKS;

use super::config::MapSizes;
use super::image::Image;
use super::plan::Op;

/// Entries of the tables that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Room {
    pub(super) frontends: usize,
    pub(super) backends: usize,
    /// Chunks.
    pub(super) maglev: usize,
}

impl Room {
    /// What a plan takes at its widest: what is new is written before what is old goes.
    pub(super) fn for_plan(image: &Image, ops: &[Op]) -> Self {
        let mut room = Self {
            frontends: image.frontends.len(),
            backends: image.slots,
            maglev: image.tables.len() * MAGLEV_CHUNKS as usize,
        };
        for op in ops {
            match op {
                Op::WriteFrontend { key, .. } if !image.frontends.contains_key(key) => {
                    room.frontends += 1;
                }
                Op::WriteSet { backends, .. } => room.backends += backends.len(),
                Op::WriteTable { set, .. } if !image.tables.contains_key(set) => {
                    room.maglev += MAGLEV_CHUNKS as usize;
                }
                _ => {}
            }
        }
        room
    }

    /// The sizes of tables that do not exist yet.
    pub(super) fn sizes(&self, least: MapSizes) -> MapSizes {
        let size = |used, least: u32| larger(used, 0).unwrap_or(least).max(least);
        MapSizes {
            frontends: size(self.frontends, least.frontends),
            backends: size(self.backends, least.backends),
            maglev: size(self.maglev, least.maglev),
            ..least
        }
    }
}

/// The size of a table that is to hold `used` entries, if `size` is not enough. Tables grow while a quarter is still free, to twice
/// what is used: so that a growing cluster seldom waits for it, and no change finds a table full.
pub(super) fn larger(used: usize, size: u32) -> Option<u32> {
    let enough = size as usize / 4 * 3;
    if used <= enough {
        return None;
    }
    let wanted = used.saturating_mul(2).checked_next_power_of_two();
    // More than the largest map that the kernel makes: then the write says that it is full.
    let wanted = wanted.and_then(|wanted| u32::try_from(wanted).ok());
    Some(wanted.unwrap_or(LARGEST).min(LARGEST)).filter(|wanted| *wanted > size)
}

/// `htab_map_alloc` refuses more buckets than this on machines with a word of 32 bits, and nobody needs more.
const LARGEST: u32 = 1 << 26;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_grows_before_it_is_full() {
        for (used, size, expected) in [
            (0, 0, None),
            (0, 1024, None),
            (768, 1024, None),
            (769, 1024, Some(2048)),
            (1, 0, Some(2)),
            (90_000, 1024, Some(262_144)),
            (usize::MAX, 1024, Some(LARGEST)),
            (usize::MAX, LARGEST, None),
        ] {
            assert_eq!(larger(used, size), expected, "{used} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_larger_table_is_enough(used in 0_usize..1 << 24, size in 0_u32..1 << 24) {
            if let Some(next) = larger(used, size) {
                prop_assert!(next > size);
                prop_assert_eq!(larger(used, next), None);
            }
        }
    }
}
