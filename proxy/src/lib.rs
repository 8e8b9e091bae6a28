//! `seaway-proxy`: one node's Services, as iptables rules or as eBPF maps.
//!
//! A reconcile loop over a [`dataplane::Dataplane`]: inputs from `seaway-cluster`, rules from `seaway-model`,
//! then plan, and apply. [`iptables`] and [`ebpf`] are the two data planes; [`reconcile`] decides when.

pub mod dataplane;
pub mod ebpf;
pub mod iptables;
