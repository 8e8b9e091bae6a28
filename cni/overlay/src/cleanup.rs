//! Removing everything of the overlay from this node. Needs no API, and looks whether it is gone.

use anyhow::bail;
use seaway_kernel::Netlink;
use seaway_model::Family;
use seaway_model::ownership::VXLAN_LINK;

use crate::egress;
use crate::files::Places;

/// Removes device (and with it addresses, routes and neighbours), masquerade chains and files; then verifies. One failure
/// does not stop the rest.
pub async fn cleanup(places: &Places) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    // First of all: no new pods.
    if let Err(error) = places.withdraw() {
        failures.push(format!("cannot remove the files: {error}"));
    }
    let netlink = Netlink::new()?;
    if let Err(error) = netlink.delete_link_named(VXLAN_LINK).await {
        failures.push(error.to_string());
    }
    for family in [Family::V4, Family::V6] {
        match egress::observe(family).await {
            Ok(seen) => {
                if let Some(input) = egress::removal(&seen)
                    && let Err(error) = egress::restore(family, &input).await
                {
                    failures.push(error.to_string());
                }
            }
            // Without the program there is no chain of ours.
            Err(seaway_kernel::CommandError::Missing { .. }) => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures.extend(left(places, &netlink).await?);
    if failures.is_empty() {
        return Ok(());
    }
    bail!("not everything is gone: {}", failures.join("; "))
}

async fn left(places: &Places, netlink: &Netlink) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    if netlink.link(VXLAN_LINK).await?.is_some() {
        left.push(format!("link {VXLAN_LINK}"));
    }
    for route in netlink
        .routes(seaway_kernel::RouteFilter::default())
        .await?
    {
        if route.protocol == seaway_model::ownership::ROUTE_PROTOCOL && route.encap.is_some() {
            left.push(format!("route {route}"));
        }
    }
    for family in [Family::V4, Family::V6] {
        if let Ok(seen) = egress::observe(family).await
            && seen != egress::Seen::default()
        {
            left.push(format!(
                "chain {} ({family:?})",
                seaway_model::ownership::CHAIN_EGRESS
            ));
        }
    }
    if places.conflist().exists() {
        left.push(places.conflist().display().to_string());
    }
    Ok(left)
}
