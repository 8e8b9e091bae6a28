//! One file of the ledger.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::State;
use crate::protocol::OwnerKey;

/// What the file of an address says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// It belongs to this attachment.
    Owner(OwnerKey),
    /// It was freed that many milliseconds after boot.
    FreedAt(u64),
}

/// An address and its record; `Err` is what is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub address: IpAddr,
    pub record: Result<Record, String>,
}

impl Entry {
    /// Interprets the content of a file.
    pub fn parse(address: IpAddr, content: &[u8]) -> Self {
        let record = serde_json::from_slice(content).map_err(|e| e.to_string());
        Self { address, record }
    }

    /// The attachment that has it.
    pub fn owner(&self) -> Option<&OwnerKey> {
        match &self.record {
            Ok(Record::Owner(owner)) => Some(owner),
            _ => None,
        }
    }

    /// For the pool. A file that cannot be understood keeps its address out of use.
    pub fn state(&self) -> State {
        match &self.record {
            Ok(Record::FreedAt(millis)) => State::Freed(Duration::from_millis(*millis)),
            Ok(Record::Owner(_)) | Err(_) => State::Taken,
        }
    }
}
