//! eBPF mode: Services as maps, translated at `connect()` by socket hooks and packet by packet at tc.
//!
//! Pure: [`wanted`] (rules to entries) → [`plan`] (entries against [`image`]) ; [`node`] (what the node's links and
//! addresses mean). Shell: [`plane`] drives [`tables`], [`objects`] (programs), [`links`] and [`filters`] (attaching),
//! [`gc`] (old flows), [`handover`] (flows from connection tracking and back, as [`adopt`] says; [`unconnected`] and [`affinity`]: what is no flow of packets, in
//! [`spaces`]), [`sockets`] (UDP sockets of backends that are gone), [`remains`] (what sockets need in iptables mode), [`aside`] (pods whose sockets are left alone),
//! [`tunnels`] (which pods are at which node), [`pods`] (where packets between pods go past the stack), [`observe`], [`census`], [`counted`], [`tallies`] (what is counted), [`dump`], [`cleanup`]; [`room`] is how large
//! tables have to be, [`upgrade`] what a build with another layout has left. [`sys`] has what aya lacks of `bpf(2)`.
//!
//! The programs and what they promise are described in `ebpf/README.md`.

mod adopt;
mod affinity;
mod aside;
mod bpffs;
mod census;
mod cleanup;
mod config;
mod counted;
mod dump;
mod environment;
mod error;
mod features;
mod filters;
mod flow_table;
mod gc;
mod handover;
mod image;
mod links;
mod listen;
mod maglev;
mod node;
mod objects;
mod observe;
mod pending;
mod plan;
mod plane;
mod pods;
mod remains;
mod room;
mod sockets;
mod spaces;
#[expect(unsafe_code, reason = "bpf(2) and two calls of libc have no safe form")]
mod sys;
mod table;
mod tables;
mod tallies;
mod translated;
mod tunnels;
mod unconnected;
mod upgrade;
pub mod walk;
mod wanted;
mod xdp;

pub use aside::{Aside, Labelled};
pub use bpffs::check_places;
pub use census::MapUse;
pub use config::{EbpfConfig, MAX_FLOWS, MapSizes};
pub use counted::Balance;
pub use dump::Held;
pub use environment::remarks;
pub use error::EbpfError;
pub use features::{Probed, check, report};
pub use handover::{Adoption, HandBack};
pub use listen::{Listening, Pinned};
pub use objects::Programs;
pub use observe::{Observed, SERVICES_NAMED, Snapshot};
pub use plan::EbpfPlan;
pub use plane::EbpfDataplane;
pub use pods::PodFastPath;
pub use remains::{Remains, is_all_there_is};
pub use sockets::Sockets;
pub use tunnels::Forwarding;
pub use xdp::XdpMode;
