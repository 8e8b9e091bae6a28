//! Carries operations out; decides nothing. One failure does not stop the others, unless nothing can follow it.

use std::io;

use seaway_kernel::{Error, Netlink, Offload, Scope, Sysctl};
use seaway_model::ownership::VXLAN_LINK;

use crate::diff::Operation;

/// As many changes are logged one by one; of more, each only where debugging is asked for.
const LOGGED: usize = 40;

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    pub operation: Operation,
    pub error: Error,
}

impl Failure {
    /// Whether pods of this node cannot be served without it; otherwise it concerns one peer.
    pub fn is_vital(&self) -> bool {
        !matches!(
            self.operation,
            Operation::SetRoute(..)
                | Operation::SetNeighbour(..)
                | Operation::DeleteRoute(..)
                | Operation::DeleteNeighbour(..)
        )
    }
}

/// Does the operations in order, and answers those that failed.
pub async fn apply(netlink: &Netlink, sysctl: &Sysctl, operations: Vec<Operation>) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut index = None;
    let many = operations.len() > LOGGED;
    if many {
        tracing::info!("{} changes, such as: {}", operations.len(), operations[0]);
    }
    let mut without_device = false;
    for operation in operations {
        if without_device && operation.needs_device() {
            continue;
        }
        if many {
            tracing::debug!("{operation}");
        } else {
            tracing::info!("{operation}");
        }
        let done = match &operation {
            Operation::CreateDevice(device) => {
                index = None;
                netlink
                    .add_vxlan_external(VXLAN_LINK, device.port, device.mac, device.mtu)
                    .await
            }
            Operation::Setting { key, value } => sysctl.write(key, value).map(drop),
            _ if !operation.needs_device() => on_device(netlink, 0, &operation).await,
            _ => match resolve(netlink, &mut index).await {
                Ok(index) => on_device(netlink, index, &operation).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = done.map_err(|error| explain(error, &operation)) {
            tracing::error!(%error, "cannot {operation}");
            // All that would have to be on it would fail as well, and nobody would see why.
            without_device |= matches!(operation, Operation::CreateDevice(_) | Operation::SetUp);
            failures.push(Failure { operation, error });
        }
    }
    failures
}

/// What the kernel's word does not tell.
fn explain(error: Error, operation: &Operation) -> Error {
    if error.is_read_only()
        && let Operation::Setting { key, value } = operation
    {
        let reason = "it is read-only here, as in a container without all privileges: mount the node's /proc/sys/net and \
                      say below what (--procfs), or set it on the node";
        return Error::Io {
            operation: "write",
            object: format!("sysctl {key} = {value}"),
            cause: io::Error::other(reason),
        };
    }
    let taken = match operation {
        // Of a device in external mode there can be one for each port,
        Operation::CreateDevice(_) => error.is_present(),
        // and it does not share its port with devices of other modes, nor with sockets.
        Operation::SetUp => error.is_in_use(),
        _ => false,
    };
    if !taken {
        return error;
    }
    Error::Invalid {
        object: format!("the UDP port of {VXLAN_LINK} (--port)"),
        reason: format!(
            "another VXLAN device or program has it on this node ({error}); remove that one (`ip -d link show type \
             vxlan`, `ss -ulpn`), or give all nodes another --port"
        ),
    }
}

async fn resolve(netlink: &Netlink, index: &mut Option<u32>) -> Result<u32, Error> {
    if let Some(index) = *index {
        return Ok(index);
    }
    let link = netlink.link(VXLAN_LINK).await?;
    let found = link.ok_or_else(|| Error::Invalid {
        object: format!("link {VXLAN_LINK}"),
        reason: "it is not there".into(),
    })?;
    *index = Some(found.index);
    Ok(found.index)
}

async fn on_device(netlink: &Netlink, index: u32, operation: &Operation) -> Result<(), Error> {
    match operation {
        Operation::DeleteDevice => netlink.delete_link(index).await,
        Operation::Detach => netlink.set_master(index, None).await,
        Operation::SetMac(mac) => netlink.set_mac(index, *mac).await,
        Operation::SetMtu(mtu) => netlink.set_mtu(index, *mtu).await,
        Operation::SetOffload(on) => Offload::open()?.set_checksum(VXLAN_LINK, *on),
        Operation::SetReceiveOffload(on) => Offload::open()?.set_gro(VXLAN_LINK, *on),
        Operation::SetUp => netlink.set_up(index).await,
        Operation::AddAddress(network) => netlink.add_address(index, *network, Scope::Global).await,
        Operation::DeleteAddress(network) => {
            let address = seaway_kernel::Address {
                link: index,
                network: *network,
                scope: Scope::Global,
            };
            netlink.delete_address(&address).await
        }
        Operation::SetNeighbour(address, mac) => {
            netlink.replace_neighbour(index, *address, *mac).await
        }
        Operation::DeleteNeighbour(address) => netlink.delete_neighbour(index, *address).await,
        Operation::SetRoute(destination, hop) => {
            netlink.replace_route(&hop.route(*destination, index)).await
        }
        Operation::DeleteRoute(route) => netlink.delete_route(route).await,
        Operation::CreateDevice(_) | Operation::Setting { .. } => Ok(()),
    }
}
