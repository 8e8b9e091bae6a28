//! Which entry of a Maglev table serves a flow: the same on every node, whatever its byte order.

use seaway_ebpf_abi::maglev::{MAGLEV_CHUNK, MAGLEV_TABLE};
use seaway_ebpf_abi::{Addr, FrontendKey};

/// A hash of a flow that is about to begin: Jenkins' `lookup3` over 32-bit words, which is what the kernel hashes with
/// (`jhash2`). Client and frontend count, not the address of the node that a client of a node port came to: it
/// may come to another one with its next packet. `port` is the client's, in network byte order.
#[inline(always)]
#[must_use]
pub const fn hash(client: &Addr, port: u16, frontend: &FrontendKey, seed: u32) -> u32 {
    let [a, b, c, d] = client.words;
    let [e, f, g, h] = frontend.addr.words;
    let ports = (u16::from_be(port) as u32) << 16 | u16::from_be(frontend.port) as u32;
    let start = START.wrapping_add(seed);
    let state = (start, start, start);
    let state = mix(add(state, host(a), host(b), host(c)));
    let state = mix(add(state, host(d), host(e), host(f)));
    let state = mix(add(state, host(g), host(h), ports));
    finish(add(state, frontend.protocol as u32, 0, 0))
}

/// A hash of a backend, the same on all nodes. `port` is in network byte order.
#[inline(always)]
#[must_use]
pub const fn backend(addr: &Addr, port: u16) -> u32 {
    let [a, b, c, d] = addr.words;
    let state = mix(add((START, START, START), host(a), host(b), host(c)));
    finish(add(state, host(d), u16::from_be(port) as u32, 0))
}

/// The entry of a table that belongs to a hash, each for the same share of all hashes (to within 1 in 2^18).
#[inline(always)]
#[must_use]
pub const fn entry(hash: u32) -> u32 {
    ((hash as u64 * MAGLEV_TABLE as u64) >> 32) as u32
}

/// Where an entry lies: its chunk, and its place there.
#[inline(always)]
#[must_use]
pub const fn place(entry: u32) -> (u32, u32) {
    let chunk = entry / MAGLEV_CHUNK as u32;
    (chunk, entry - chunk * MAGLEV_CHUNK as u32)
}

/// `JHASH_INITVAL` and the length in bytes.
const START: u32 = 0xdead_beef + 40;

type State = (u32, u32, u32);

#[inline(always)]
const fn host(word: u32) -> u32 {
    u32::from_be(word)
}

#[inline(always)]
const fn add((a, b, c): State, x: u32, y: u32, z: u32) -> State {
    (a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z))
}

/// `__jhash_mix`.
#[inline(always)]
const fn mix((mut a, mut b, mut c): State) -> State {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

/// `__jhash_final`.
#[inline(always)]
const fn finish((mut a, mut b, mut c): State) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
