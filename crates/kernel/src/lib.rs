//! What the kernel can be asked and told, and nothing else: the only crate that talks netlink, changes namespaces,
//! writes sysctls and runs programs.
//!
//! It knows no Kubernetes and decides nothing: callers compare what they want with what is here and call the
//! operations. The types at this surface are our own, so that the netlink crates (which break about monthly) stay
//! behind it. Errors say which operation failed on which object.
//!
//! Reading order: [`netns`] → [`netlink`] with [`link`], [`addr`], [`route`], [`neigh`], [`watch`] → [`batch`], [`shaping`]
//! and [`filter`] for the same without a runtime → [`conntrack`], [`sock_diag`], [`netdev`], [`xfrm`], [`recent`] →
//! [`sysctl`], [`udp`] → [`program`] as [`command`] or [`spawn`], [`process`], `sigpipe`, [`cgroup`], [`directory`], [`file_lock`] →
//! [`xtables`], [`nftables`] → [`capabilities`].

pub mod addr;
mod await_ready;
pub mod batch;
pub mod capabilities;
pub mod cgroup;
pub mod command;
pub mod conntrack;
pub mod directory;
mod error;
pub mod file_lock;
pub mod filter;
pub mod link;
mod mac;
pub mod neigh;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod process;
pub mod program;
pub mod recent;
pub mod route;
mod rule;
mod run;
pub mod shaping;
mod sigpipe;
pub mod sock_diag;
pub mod spawn;
pub mod sysctl;
pub mod udp;
pub mod watch;
pub mod xfrm;
pub mod xtables;

pub use addr::Address;
pub use batch::{Batch, Ipv4Settings, RouteMetrics, RouteSocket};
pub use capabilities::Capabilities;
pub use command::{Command, CommandError, Output};
pub use conntrack::Conntrack;
pub use error::Error;
pub use filter::BpfFilter;
pub use link::{Framing, Link, LinkKind, Offload, VethOptions, VxlanSettings};
pub use mac::MacAddr;
pub use neigh::Neighbour;
pub use netlink::Netlink;
pub use netns::{NetNs, NetNsGuard};
pub use nftables::Nftables;
pub use process::{Process, ProcessId, Signal};
pub use route::{Encap, Route, RouteFilter, RouteKind, Scope, TABLE_MAIN};
pub use rule::SourceRule;
pub use run::run;
pub use sigpipe::end_with_reader;
pub use sock_diag::SockDiag;
pub use spawn::Spawn;
pub use sysctl::Sysctl;
pub use watch::{Event, Watch, WatchGroups};
pub use xtables::{LegacyTables, TableSize};
