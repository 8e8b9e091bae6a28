//! Maglev tables as the map holds them.

use std::net::SocketAddr;

use seaway_ebpf_abi::maglev::{MAGLEV_CHUNK, MAGLEV_TABLE};
use seaway_ebpf_abi::{BackendValue, MaglevChunk, MaglevKey};
use seaway_model::maglev;
use sha2::{Digest, Sha256};

const _: () = assert!(MAGLEV_TABLE == maglev::TABLE_SIZE as u32);

/// How many backends a set with a table has at most.
pub(super) const MAX_BACKENDS: usize = maglev::TABLE_SIZE as usize;

/// A hash of all that a table depends on, never 0: which is what a table is called that is not whole.
pub(super) fn made_of(backends: &[BackendValue], seed: u32) -> u64 {
    let mut digest = Sha256::new();
    digest.update(seed.to_be_bytes());
    for backend in backends {
        for word in backend.addr.words {
            digest.update(word.to_ne_bytes());
        }
        digest.update(backend.port.to_ne_bytes());
    }
    let digest = digest.finalize();
    let first = digest.iter().take(8);
    first.fold(0, |id, byte| id << 8 | u64::from(*byte)).max(1)
}

/// The entries of a set's table; none for a set that can have none.
pub(super) fn entries(
    set: u32,
    backends: &[BackendValue],
    seed: u32,
) -> Vec<(MaglevKey, MaglevChunk)> {
    let addrs: Vec<SocketAddr> = backends
        .iter()
        .map(|backend| (backend.addr.ip(), u16::from_be(backend.port)).into())
        .collect();
    let made_of = made_of(backends, seed);
    let table = maglev::table(&addrs, seed).unwrap_or_default();
    let chunk = |(chunk, slots): (u32, &[u16])| {
        let mut value = MaglevChunk {
            made_of,
            ..MaglevChunk::default()
        };
        for (to, from) in value.slots.iter_mut().zip(slots) {
            *to = *from;
        }
        (MaglevKey { set, chunk }, value)
    };
    (0..).zip(table.chunks(MAGLEV_CHUNK)).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use seaway_ebpf_abi::maglev::MAGLEV_CHUNKS;
    use seaway_ebpf_abi::{Addr, FrontendKey, TCP};
    use seaway_ebpf_logic::spread;

    use super::*;

    fn backend() -> impl Strategy<Value = BackendValue> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ];
        // Whether a backend is on this node differs from node to node.
        (ip, any::<u16>(), 0..4_u16).prop_map(|(ip, port, flags)| BackendValue {
            addr: ip.into(),
            port,
            flags,
        })
    }

    /// What the program does with what is in the map.
    fn served(entries: &[(MaglevKey, MaglevChunk)], hash: u32) -> u16 {
        let (chunk, place) = spread::place(spread::entry(hash));
        let (_, value) = entries
            .iter()
            .find(|(key, _)| key.chunk == chunk)
            .expect("all chunks");
        value.slots[place as usize]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Two nodes that learned of the endpoints in different orders, and under different ids, with the same flow.
        #[test]
        fn two_nodes_pick_the_same_backend(
            (one, other) in proptest::collection::vec(backend(), 1..20)
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            flows in proptest::collection::vec((any::<[u8; 4]>(), any::<u16>()), 1..64),
            seed in any::<u32>(),
        ) {
            let tables = [(1, &one), (7, &other)].map(|(set, list)| (entries(set, list, seed), list));
            let frontend = FrontendKey { addr: Addr::ANY_V4, port: 80, protocol: TCP, pad: 0 };
            for (client, port) in flows {
                let hash = spread::hash(&IpAddr::from(client).into(), port, &frontend, seed);
                let [a, b] = tables.each_ref().map(|(table, list)| {
                    let backend = list[usize::from(served(table, hash))];
                    (backend.addr, backend.port)
                });
                prop_assert_eq!(a, b);
            }
        }

        #[test]
        fn a_table_is_whole_and_named_after_what_it_is_made_of(
            list in proptest::collection::vec(backend(), 1..20),
            seed in any::<u32>(),
        ) {
            let made = entries(3, &list, seed);
            prop_assert_eq!(made.len(), MAGLEV_CHUNKS as usize);
            for (n, (key, chunk)) in made.iter().enumerate() {
                prop_assert_eq!((key.set, key.chunk as usize), (3, n));
                prop_assert_eq!(chunk.made_of, made_of(&list, seed));
                prop_assert!(chunk.slots.iter().all(|slot| usize::from(*slot) < list.len()));
            }
            prop_assert_ne!(made_of(&list, seed), made_of(&list, seed ^ 1));
            prop_assert_ne!(made_of(&list, seed), made_of(&list[1..], seed));
        }
    }
}
