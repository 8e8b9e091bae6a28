//! One node by itself, for scenarios that measure the proxy: real clients and real backends in namespaces, and as many
//! Services as one likes, of which every single one can be reached.
//!
//! Reading order: [`wiring`] (namespaces and links) → [`pod`] and [`traffic`] (who asks and who answers) → [`control`]
//! (the API server) → [`services`] (what is in it) → [`contender`], [`running`] and [`usage`] (the proxy under test,
//! and what it costs) → `bench` (all together) → `measured` (each proxy in turn).

mod bench;
pub mod contender;
pub mod control;
mod measured;
pub mod pod;
pub mod relay;
pub mod running;
pub mod services;
pub mod traffic;
pub mod usage;
pub mod wiring;

pub use bench::{Bench, BenchArgs, Stand};
pub use contender::{Contender, Peer, Variant};
pub use control::Control;
pub use measured::Measured;
pub use pod::Pod;
pub use services::Services;
pub use wiring::Node;
