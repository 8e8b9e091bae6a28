//! iptables mode.
