//! What the plugin is taken for. Runtimes look plugins up by file name, so the name by which the program is called says
//! in whose place it stands.

use std::path::Path;

use crate::attachment::Style;

/// The plugin whose config is read, and whose results are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// Ourselves.
    Seaway,
    /// The reference plugin of that name: a routed pair with an address of a subnet.
    Ptp,
    /// The reference plugin of that name: addresses, and no interface.
    HostLocal,
}

impl Personality {
    /// By the program's path as it was called.
    pub fn of(program: &Path) -> Self {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("ptp") => Self::Ptp,
            Some("host-local") => Self::HostLocal,
            _ => Self::Seaway,
        }
    }

    /// What a pod sees of its network.
    pub fn style(self) -> Style {
        match self {
            Self::Seaway => Style::Routed,
            Self::Ptp | Self::HostLocal => Style::Ptp,
        }
    }
}
