//! ClusterIPs and NodePorts, allocated inside the commit that writes the Service: there is no moment at which one exists
//! without the other, so nothing leaks and nothing needs repair.

mod range;
mod service;

use seaway_store::Txn;
use serde_json::{Value, json};

pub use range::{AddressRange, PortRange, RangeError};

use crate::kinds::{FieldError, Kind};
use crate::meta;

/// Who holds which address: key is the address.
const ADDRESSES: &str = "allocations/addresses";
/// Who holds which port: key is the port. One Service may use it for several protocols.
const PORTS: &str = "allocations/ports";

/// The ranges of a cluster.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// One per address family; the first is the cluster's primary family.
    pub services: Vec<AddressRange>,
    pub node_ports: PortRange,
}

/// Why a Service gets no address or port.
#[derive(Debug)]
pub(crate) enum AllocateError {
    Invalid(Vec<FieldError>),
    /// A range has no free member left.
    Full(String),
}

impl From<FieldError> for AllocateError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

/// Whether objects of the kind hold addresses and ports.
pub(crate) fn concerns(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "services"
}

/// Fills in what `new` lacks, takes what it names, and gives back what only `old` had.
pub(crate) fn assign(
    txn: &mut Txn<'_>,
    ranges: &Ranges,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<(), AllocateError> {
    service::assign(txn, ranges, new, old)
}

/// Gives back everything that the Service held.
pub(crate) fn release(txn: &mut Txn<'_>, service: &Value) {
    let held = service::Held::of(service);
    for key in &held.addresses {
        free(txn, ADDRESSES, key);
    }
    for key in &held.ports {
        free(txn, PORTS, key);
    }
}

fn free(txn: &mut Txn<'_>, bucket: &str, key: &str) {
    if let Some(record) = txn.get(bucket, key) {
        txn.delete(bucket, key, record.value.clone());
    }
}

fn take(txn: &mut Txn<'_>, bucket: &str, key: &str, holder: &Value) -> bool {
    if txn.get(bucket, key).is_some() {
        return false;
    }
    let holder = json!({ "namespace": meta::namespace(holder), "name": meta::name(holder), "uid": meta::uid(holder) });
    txn.put(bucket, key, holder.to_string());
    true
}
