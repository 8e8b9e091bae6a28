//! `seaway-proxy`: one node's Services, as iptables rules or as eBPF maps.
//!
//! A reconcile loop over a [`dataplane::Dataplane`]: inputs from `seaway-cluster`, rules from `seaway-model`,
//! then plan, and apply. [`iptables`] and [`ebpf`] are the two data planes, [`companion`] what the latter leaves to the former; [`reconcile`] decides when,
//! and [`switch`] leads from one to the other.
//!
//! Reading order: [`cli`] → [`config`] → [`commands`] → [`reconcile`] → [`dataplane`] → a mode. What an operator sees
//! besides: [`health`], [`metrics`], [`events`], [`healthcheck`] (of Services), [`explain`], [`flows`], [`peers`].

pub mod admin;
pub mod changes;
pub mod cli;
pub mod commands;
pub mod companion;
pub mod config;
pub mod conntrack;
pub mod dataplane;
pub mod direct;
pub mod ebpf;
pub mod events;
pub mod explain;
pub mod flows;
pub mod health;
pub mod healthcheck;
pub mod iptables;
pub mod lock;
pub mod metrics;
pub mod peers;
pub mod privileges;
pub mod reconcile;
pub mod switch;
mod systemd;
mod task;
pub mod tuning;
