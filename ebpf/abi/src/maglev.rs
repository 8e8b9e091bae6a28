//! Maglev tables: from the hash of a flow to a slot of a backend set.
//!
//! A table lies in the map in chunks, because memory for an entry is taken in powers of two and a table is just larger than
//! one: with the kernel's own words about it a chunk is just below 4096 bytes, and a table takes 36 kB.

/// Entries of a table, a prime.
pub const MAGLEV_TABLE: u32 = 16_381;

/// Entries of a chunk.
pub const MAGLEV_CHUNK: usize = 1_824;

/// Chunks of a table; the last one is not full.
pub const MAGLEV_CHUNKS: u32 = MAGLEV_TABLE.div_ceil(MAGLEV_CHUNK as u32);

/// A chunk of a backend set's table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MaglevKey {
    pub set: u32,
    /// `0..MAGLEV_CHUNKS`.
    pub chunk: u32,
}

/// Part of a table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevChunk {
    /// A hash of what the table was made of (seed, backends), the same in all of its chunks: whoever finds a table knows
    /// whether it is the one that he wants without making it again.
    pub made_of: u64,
    /// Slots of the set.
    pub slots: [u16; MAGLEV_CHUNK],
}

impl Default for MaglevChunk {
    fn default() -> Self {
        Self {
            made_of: 0,
            slots: [0; MAGLEV_CHUNK],
        }
    }
}
