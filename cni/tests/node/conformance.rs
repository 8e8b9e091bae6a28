//! The requirements of CNI 1.1.0 on a plugin, each a test that begins with its id; `docs/cni.md` lists them.

mod collection;
mod configuration;
mod conventions;
mod execution;
mod ipam;
mod operations;
mod results;
mod table;

/// The versions in which the protocol is spoken.
const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
