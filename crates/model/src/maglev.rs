//! Maglev tables: which backend serves which hash of a flow, the same on every node that knows the same backends
//! ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! A backend goes through all entries of the table in an order of its own, which depends on nothing but its address
//! and the seed. The backends take turns, and each takes the first entry in its order that is still free. So their
//! shares differ by one entry at most, and a backend that comes or goes hardly moves the flows of the others.

use std::net::{IpAddr, SocketAddr};

/// Entries of a table. A prime, so that a step of any width passes through all of them.
pub const TABLE_SIZE: u16 = 16_381;

/// What nodes mix into tables and hashes of flows unless their operator says otherwise: "sway" in ASCII. It has to be the
/// same on all nodes of a cluster.
pub const DEFAULT_SEED: u32 = 0x7377_6179;

/// The table of these backends: indices into the slice. Which backend stands in an entry does not depend on the order
/// of the slice, though its index does. `None` if there is no backend, or one for which no entry would be left.
#[must_use]
pub fn table(backends: &[SocketAddr], seed: u32) -> Option<Vec<u16>> {
    if backends.is_empty() || backends.len() > usize::from(TABLE_SIZE) {
        return None;
    }
    let mut walks: Vec<Walk> = (0..TABLE_SIZE)
        .zip(backends)
        .map(|(index, backend)| Walk::new(index, backend, seed))
        .collect();
    walks.sort_unstable_by_key(|walk| backends[usize::from(walk.backend)]);
    let mut table = vec![FREE; usize::from(TABLE_SIZE)];
    let mut free = table.len();
    loop {
        for walk in &mut walks {
            let entry = walk.take(&mut table);
            table[entry] = walk.backend;
            free -= 1;
            if free == 0 {
                return Some(table);
            }
        }
    }
}

/// No backend: more than any index.
const FREE: u16 = u16::MAX;

/// One backend's way through the table.
struct Walk {
    backend: u16,
    at: usize,
    step: usize,
}

impl Walk {
    fn new(backend: u16, addr: &SocketAddr, seed: u32) -> Self {
        let size = u64::from(TABLE_SIZE);
        // The remainders are below the size of the table, which is an u16.
        let below = |hash: u64, limit: u64| (hash % limit) as usize;
        Self {
            backend,
            at: below(hash(addr, seed, 0), size),
            step: 1 + below(hash(addr, seed, 1), size - 1),
        }
    }

    /// The first entry from here on that is free; there is one.
    fn take(&mut self, table: &mut [u16]) -> usize {
        loop {
            let entry = self.at;
            self.at += self.step;
            if self.at >= table.len() {
                self.at -= table.len();
            }
            if table[entry] == FREE {
                return entry;
            }
        }
    }
}

/// A hash of a backend. Part of what nodes have to agree on: it never changes.
fn hash(addr: &SocketAddr, seed: u32, salt: u16) -> u64 {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = u128::from(ip);
    let tail = u64::from(seed) << 32 | u64::from(salt) << 16 | u64::from(addr.port());
    // The halves of the address.
    [(bits >> 64) as u64, bits as u64, tail]
        .into_iter()
        .fold(0, |hash, word| scatter(hash ^ word))
}

/// A bijection under which each bit of the input moves about half of the bits of the result (the finisher of
/// SplitMix64, Steele, Lea and Flood, 2014).
fn scatter(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests;
