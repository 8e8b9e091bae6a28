//! Deleting connection tracking entries that keep UDP clients at endpoints which are gone.
//!
//! Only the first packet of a flow meets the rules; the rest follows the entry that it left. A UDP client that goes on
//! sending from one port (a resolver, a QUIC or SIP stack) keeps its entry alive for ever, also when the endpoint behind
//! it is gone, or when there was none at first and its packets left untranslated. So after a change the entries are
//! held against what is programmed:
//!
//! ```text
//! Desired, Change ─► Frontends (UDP only) ─► due: nothing, these frontends, everything
//!                                             │ list, filtered by the kernel
//!                                  stale() ◄──┴── entries ─► delete those
//! ```
//!
//! As kube-proxy's reconciler (`pkg/proxy/conntrack`), this concerns UDP alone: TCP connections end by themselves, and
//! neither they nor SCTP associations are cut. Flows to endpoints that still answer go on, whatever traffic policy,
//! topology or termination say. Unlike it: entries of a Service that has lost all of its endpoints, or is gone, are
//! deleted too; an entry that merely has the number of a node port at some foreign address is not; and the whole table
//! is read only where many frontends have changed.
//!
//! Sockets that eBPF mode has translated are bound in the same way, and are a [`Place`] beside this [`Table`].
//!
//! Rules come first: [`Cleaner::programmed`] notes what changed and returns, the rest happens on a thread of its own.

mod cleaner;
mod frontends;
mod metrics;
mod stale;
mod table;

pub use cleaner::{Both, Cleaner, Place, Settings, Ties};
pub use frontends::{Due, Frontends};
pub use metrics::Metrics;
pub use stale::{NodeAddresses, is_stale, is_wrong, stale};
pub use table::Table;
