//! The eBPF programs: fetch, decide by `seaway-ebpf-logic`, store. All that can be decided without the kernel's help is
//! decided there and tested on the host.
//!
//! [`socket`] translates at `connect()` and for datagrams; [`tc`] translates packets by [`rewrite`], with the flows of
//! [`flows`] and [`fragments`], the [`ways`] that routes say, by [`quick`] and [`shortcuts`] where it can, has them [`cut`] or answers them by [`refuse`], or leaves the answer to another node by [`dsr`], and sends packets between pods by [`pods`] and [`tunnel`], at links without Ethernet header with [`bare`]; [`services`] finds a frontend and a backend for both,
//! [`events`] counts for Services and tells listeners.

#![no_std]
#![no_main]

mod bare;
mod cut;
mod dsr;
mod encap;
mod events;
mod flows;
mod fragments;
mod maps;
mod pods;
mod quick;
mod refuse;
mod rewrite;
mod services;
mod shortcuts;
mod socket;
mod tc;
mod tunnel;
mod ways;
mod xdp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel refuses programs without a license section.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
