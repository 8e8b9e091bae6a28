//! Fuzz targets: what of ours reads foreign bytes, each with what must hold whatever the bytes are.
//!
//! A target is a plain function that panics when something does not hold. `cargo xtask fuzz` runs one under libFuzzer
//! for as long as somebody waits; the ordinary tests run every one over the files in `corpus/`, where each input that
//! ever broke something stays. Reading order: [`TARGETS`], then a target, then [`cluster`], [`rules`] and [`maps`], which hold
//! what is made of API objects against the specification.

mod api;
pub mod cluster;
mod config_file;
mod conntrack;
mod iptables_save;
mod manifests;
pub mod maps;
mod objects;
mod packets;
mod plugin;
pub mod rules;

/// Something that reads foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As `cargo xtask fuzz` takes it; also the folder below `corpus/`.
    pub name: &'static str,
    /// Reads the bytes; panics when something does not hold.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "config_file",
        check: config_file::check,
    },
    Target {
        name: "conntrack",
        check: conntrack::check,
    },
    Target {
        name: "iptables_save",
        check: iptables_save::check,
    },
    Target {
        name: "manifests",
        check: manifests::check,
    },
    Target {
        name: "maps",
        check: objects::check_maps,
    },
    Target {
        name: "objects",
        check: objects::check,
    },
    Target {
        name: "packets",
        check: packets::check,
    },
    Target {
        name: "plugin",
        check: plugin::check,
    },
    Target {
        name: "rules",
        check: objects::check_rules,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
