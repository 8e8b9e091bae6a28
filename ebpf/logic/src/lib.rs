//! Every decision that the eBPF programs take, as pure functions: the same code runs in the kernel and in tests on the
//! host. Nothing here can panic, allocate, or look at anything but its arguments; the programs only fetch, decide by
//! this crate, and store.
//!
//! Reading order: [`packet`] → [`decide`] → [`spread`] → [`nat`] → [`flow`] → [`refuse`]; [`plain`] is the short way for most packets, [`dsr`] what is else for answers that go past us, [`pod`] what is between pods, [`tunnel`] what is between nodes, [`size`] what is too large, [`checksum`]
//! what `nat` needs, [`events`] what is told of flows.

#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod decide;
pub mod dsr;
pub mod events;
pub mod flow;
pub mod nat;
pub mod packet;
pub mod plain;
pub mod pod;
pub mod refuse;
pub mod shortcut;
pub mod size;
pub mod spread;
pub mod tunnel;
