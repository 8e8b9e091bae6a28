//! Removing everything of the overlay from this node. Needs no API, and looks whether it is gone.

use anyhow::bail;
use seaway_kernel::{CommandError, Netlink};
use seaway_model::ownership::{NFT_TABLE_OVERLAY, VXLAN_LINK};

use crate::chain::{Place, Seen};
use crate::files::Places;
use crate::guard;
use crate::observe::routes;
use crate::run::{lock, privileged};

/// Removes device (and with it addresses, routes and neighbours), direct routes, rules and files; then verifies. One failure
/// does not stop the rest. Returns what was there.
pub async fn cleanup(places: &Places) -> anyhow::Result<Vec<String>> {
    privileged("seaway-overlay cleanup")?;
    let _lock = if places.run_dir.exists() {
        Some(lock(&places.run_dir)?)
    } else {
        None
    };
    let mut failures = Vec::new();
    let netlink = Netlink::new()?;
    let found = left(places, &netlink).await?;
    // First of all: no new pods.
    if let Err(error) = places.withdraw() {
        failures.push(format!("cannot remove the files: {error}"));
    }
    if let Err(error) = netlink.delete_link_named(VXLAN_LINK).await {
        failures.push(error.to_string());
    }
    // Those of direct ways are on other links than the device.
    for route in routes(&netlink).await? {
        if let Err(error) = netlink.delete_route(&route).await {
            failures.push(error.to_string());
        }
    }
    // A kernel without nftables has no table of ours.
    if guard::is_there().unwrap_or(false)
        && let Err(error) = guard::remove()
    {
        failures.push(error.to_string());
    }
    for place in Place::all() {
        match place.remove().await {
            Ok(_) => {}
            Err(CommandError::Missing { program }) => {
                if place.is_in_nftables() {
                    let path = std::env::var("PATH").unwrap_or_default();
                    failures.push(format!(
                        "{place}: {program} is not installed, or not in PATH ({path})"
                    ));
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures.extend(left(places, &netlink).await?);
    if failures.is_empty() {
        return Ok(found);
    }
    bail!("not everything is gone: {}", failures.join("; "))
}

/// What is there.
async fn left(places: &Places, netlink: &Netlink) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    if netlink.link(VXLAN_LINK).await?.is_some() {
        left.push(format!("link {VXLAN_LINK}"));
    }
    for route in routes(netlink).await? {
        left.push(format!("route {route}"));
    }
    if guard::is_there().unwrap_or(false) {
        left.push(format!("nftables table inet {NFT_TABLE_OVERLAY}"));
    }
    for place in Place::all() {
        if let Ok(seen) = place.observe().await
            && seen != Seen::default()
        {
            left.push(place.to_string());
        }
    }
    if places.conflist().exists() {
        left.push(places.conflist().display().to_string());
    }
    Ok(left)
}
