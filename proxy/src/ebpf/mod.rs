//! eBPF mode.
