//! One file of the ledger: its name says who has the address, its content says more about the owner.
//!
//! `10.244.1.5@0123456789a` is in use, by the attachment whose link is `sw0123456789a`; `10.244.1.5~81234` was freed that
//! many milliseconds after boot. So a listing is enough to give out and to free addresses, and freeing one is a rename,
//! which needs no room on the disk.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::State;
use crate::attachment::digits;
use crate::protocol::OwnerKey;

/// What is known of the owner of an address: the content of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    #[serde(flatten)]
    pub owner: OwnerKey,
    /// The pod's namespace, as the runtime named it.
    pub netns: String,
    /// Device and inode number of the namespace: a path may come to name another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_id: Option<(u64, u64)>,
    /// Whether the interface is one of ours. If not, another plugin made it, and we only gave out its address.
    pub interface: bool,
    /// Milliseconds after boot.
    pub since: u64,
}

/// The state of an address, as the name of its file says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// By the attachment with these digits.
    InUse {
        address: IpAddr,
        owner: String,
    },
    Freed {
        address: IpAddr,
        at: Duration,
    },
}

impl Entry {
    /// In use by that attachment.
    pub fn of(address: IpAddr, owner: &OwnerKey) -> Self {
        Self::InUse {
            address,
            owner: digits(owner),
        }
    }

    /// Reads a file's name; `None` for files that are no entries.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some((address, owner)) = name.split_once('@') {
            return Some(Self::InUse {
                address: address.parse().ok()?,
                owner: owner.to_owned(),
            });
        }
        let (address, millis) = name.split_once('~')?;
        Some(Self::Freed {
            address: address.parse().ok()?,
            at: Duration::from_millis(millis.parse().ok()?),
        })
    }

    /// The file's name.
    pub fn name(&self) -> String {
        match self {
            Self::InUse { address, owner } => format!("{address}@{owner}"),
            Self::Freed { address, at } => format!("{address}~{}", at.as_millis()),
        }
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::InUse { address, .. } | Self::Freed { address, .. } => *address,
        }
    }

    /// Whether the attachment with these digits has it.
    pub fn is_of(&self, digits: &str) -> bool {
        matches!(self, Self::InUse { owner, .. } if owner == digits)
    }

    /// For the pool.
    pub fn state(&self) -> State {
        match self {
            Self::InUse { .. } => State::Taken,
            Self::Freed { at, .. } => State::Freed(*at),
        }
    }
}
