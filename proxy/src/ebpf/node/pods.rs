//! Which links packets of pods come in by, as the node's routes tell: CNI plugins give them names and addresses as they
//! like, but the node has to know the way to its pods.

use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Link, LinkKind, Route, RouteKind};
use seaway_model::{DetectLocal, Family};

use super::{NodeView, Role, role_by_name};

/// `RTPROT_KERNEL`: such a route follows from an address of the node and says nothing of pods.
const BY_KERNEL: u8 = 2;

/// What is at the end of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A pod address directly behind the link: as the plugins make it that give each pod a link of its own.
    Pod,
    /// The same, where nobody has said which addresses are those of pods.
    PerhapsPod,
    /// Other pods: those of a bridge, or of other nodes.
    Pods,
}

/// What a route says about pods.
fn way(route: &Route, detect_local: &DetectLocal) -> Option<Way> {
    let to = route.destination;
    if route.kind != RouteKind::Unicast || route.table != TABLE_MAIN || route.protocol == BY_KERNEL
    {
        return None;
    }
    let family = Family::of(to.ip());
    let bits = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let behind_the_link = to.prefix() == bits && route.gateway.is_none() && route.encap.is_none();
    let cidrs = detect_local.cidrs().iter();
    let mut ranges = cidrs
        .filter(|cidr| Family::of(cidr.ip()) == family)
        .peekable();
    if ranges.peek().is_none() {
        return behind_the_link.then_some(Way::PerhapsPod);
    }
    if !ranges.any(|range| range.contains(to.ip()) && range.prefix() <= to.prefix()) {
        return None;
    }
    Some(match behind_the_link {
        true => Way::Pod,
        false => Way::Pods,
    })
}

/// The role that a link has by the routes that lead to it; whether it has an address of the node counts where pod ranges
/// are not known. Not meant for links with a default route: those have routes to single addresses, too (a gateway, a
/// metadata server).
pub(super) fn role(
    link: &Link,
    has_address: bool,
    routes: &[Route],
    detect_local: &DetectLocal,
) -> Option<Role> {
    // To `--detect-local-mode` it is no pod: its name is not that of one.
    let pod = match detect_local {
        DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => Role::Uplink,
        DetectLocal::ClusterCidr(_) | DetectLocal::NodeCidr(_) | DetectLocal::None => Role::Pod,
    };
    let leading = routes.iter().filter(|route| route.link == Some(link.index));
    let roles = leading.filter_map(|route| match way(route, detect_local)? {
        Way::Pod => Some(pod),
        // A tunnel's peer looks the same, and so does a neighbour behind an uplink.
        Way::PerhapsPod if has_address || link.kind != LinkKind::Veth => None,
        Way::PerhapsPod => Some(pod),
        Way::Pods => Some(Role::Uplink),
    });
    // Of `Pod` and `Uplink` the smaller.
    roles.min()
}

/// Whether a route that came or went may change a role. That of a link with a name of ours does not hang on routes, and
/// of the many routes to other nodes only the first over a link tells anything.
pub(in super::super) fn matter(route: &Route, view: &NodeView, detect_local: &DetectLocal) -> bool {
    if route.destination.prefix() == 0 {
        return true;
    }
    let Some((way, link)) = way(route, detect_local).zip(route.link) else {
        return false;
    };
    match view.links.get(&link) {
        None => true,
        Some(known) => way != Way::Pods && role_by_name(&known.name, detect_local).is_none(),
    }
}

#[cfg(test)]
mod tests;
