//! Rules that several kinds share: names, labels, metadata, numbers, addresses.

mod metadata;
pub(crate) mod names;
mod numbers;
mod selectors;

pub(super) use metadata::metadata;
pub(super) use numbers::{non_negative, port_number, protocol};
pub(super) use selectors::{label_map, label_selector};
