use ipnetwork::IpNetwork;
use seaway_kernel::{Address, MacAddr, Scope};

use super::*;
use crate::observe::Observed;
use crate::plan::{Findings, Manner};
use crate::testing::{link, member, roster, settings, underlay};

/// Of a device that was found as it should be.
fn image() -> Image {
    image_after(Clone::clone)
}

/// Of a device that was found like that.
fn image_after(found: fn(&Link) -> Link) -> Image {
    let underlay = underlay();
    let own = member(1);
    let roster = roster(&own, &[member(2), member(3)]);
    let manner = Manner {
        settings: &settings(),
        underlay: &underlay,
        findings: &Findings::default(),
    };
    let desired = manner.plan(&roster);
    let mut device = link(7, VXLAN_LINK, desired.device.mtu);
    device.mac = Some(desired.device.mac);
    let found = found(&device);
    Image::new(own, roster, underlay, desired, device, Some(&found))
}

fn address(link: u32, network: &str) -> Address {
    Address {
        link,
        network: network.parse().unwrap(),
        scope: Scope::Global,
    }
}

#[test]
fn our_own_changes_tell_nothing_new() {
    let mut image = image();
    let seen = Observed::image(&image.desired, image.device.clone());
    let mut events = vec![
        Event::LinkSet(image.device.clone()),
        Event::LinkSet(link(2, "eth0", 1500)),
        Event::LinkSet(link(2, "eth0", 1500)),
        Event::LinkSet(link(9, "sw0123456789a", 1450)),
        Event::LinkDeleted(link(9, "sw0123456789a", 1450)),
        // A device of ours that has been replaced since.
        Event::LinkDeleted(link(6, VXLAN_LINK, 1450)),
        Event::AddressSet(address(7, "10.244.1.0/32")),
        Event::AddressSet(address(7, "fe80::1/64")),
        Event::AddressSet(address(2, "192.168.0.1/24")),
        Event::AddressSet(address(2, "192.168.0.77/24")),
        Event::AddressDeleted(address(2, "192.168.0.77/24")),
    ];
    events.extend(seen.routes.into_iter().map(Event::RouteSet));
    events.extend(seen.neighbours.into_iter().map(Event::NeighbourSet));
    for event in events {
        assert!(image.fits(&event), "{event:?}");
    }
    // What is no longer wanted was deleted by us.
    let gone = "10.244.9.0/24".parse::<IpNetwork>().unwrap();
    let hop = *image.desired.routes.values().next().unwrap();
    assert!(image.fits(&Event::RouteDeleted(hop.route(gone, 7))));
}

#[test]
fn what_others_do_to_ours_is_noticed() {
    let wanted = image();
    let route = {
        let (destination, hop) = wanted.desired.routes.iter().next().unwrap();
        hop.route(*destination, 7)
    };
    let stranger = Route {
        destination: "10.244.9.0/24".parse().unwrap(),
        ..route
    };
    let (gateway, mac) = wanted.desired.neighbours.iter().next().unwrap();
    let neighbour = Neighbour {
        link: 7,
        address: *gateway,
        mac: Some(*mac),
        permanent: true,
    };
    let device = &wanted.device;
    let with = |change: fn(&mut Link)| {
        let mut link = device.clone();
        change(&mut link);
        Event::LinkSet(link)
    };
    let down = Link {
        up: false,
        ..link(2, "eth0", 1500)
    };
    let events = [
        with(|link| link.up = false),
        with(|link| link.mtu = 1400),
        with(|link| link.mac = Some(MacAddr([2, 0, 0, 0, 0, 9]))),
        with(|link| link.name = "other".into()),
        with(|link| link.index = 8),
        Event::LinkDeleted(device.clone()),
        Event::LinkDeleted(link(2, "eth0", 1500)),
        Event::LinkSet(link(2, "eth0", 1400)),
        Event::LinkSet(down),
        Event::AddressDeleted(address(7, "10.244.1.0/32")),
        Event::AddressSet(address(7, "10.1.1.1/32")),
        Event::AddressDeleted(address(2, "192.168.0.1/24")),
        Event::AddressSet(address(3, "192.168.0.1/24")),
        Event::RouteDeleted(route.clone()),
        Event::RouteSet(Route {
            encap: None,
            ..route
        }),
        Event::RouteSet(stranger),
        Event::NeighbourDeleted(neighbour),
        Event::NeighbourSet(Neighbour {
            permanent: false,
            ..neighbour
        }),
        Event::NeighbourSet(Neighbour {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            ..neighbour
        }),
    ];
    for event in events {
        assert!(!image().fits(&event), "{event:?}");
    }
}

#[test]
fn an_uplink_that_comes_back_has_lost_its_routes() {
    let mut image = image();
    let up = link(2, "eth0", 1500);
    let unplugged = Link {
        running: false,
        ..up.clone()
    };
    assert!(image.fits(&Event::LinkSet(up.clone())));
    assert!(!image.fits(&Event::LinkSet(unplugged)));
    assert!(!image.fits(&Event::LinkSet(up.clone())));
    assert!(image.fits(&Event::LinkSet(up)));
}

/// What the kernel tells while a comparison makes or mends the device is heard after it.
#[test]
fn the_making_of_the_device_tells_nothing_new() {
    let other = |link: &Link| Link {
        index: 6,
        ..link.clone()
    };
    let mut image = image_after(other);
    let made = image.device.clone();
    let down = Link {
        up: false,
        ..made.clone()
    };
    let old = other(&down);
    for event in [
        Event::LinkSet(old.clone()),
        Event::LinkDeleted(old.clone()),
        Event::LinkSet(down.clone()),
        Event::LinkSet(made.clone()),
    ] {
        assert!(image.fits(&event), "{event:?}");
    }
    // Heard once more it is somebody else's doing.
    assert!(!image.fits(&Event::LinkSet(down.clone())));
    assert!(!image.fits(&Event::LinkSet(old)));

    let mut image = image_after(|link| Link {
        mtu: 1300,
        mac: None,
        ..link.clone()
    });
    let with_mac = Link {
        mtu: 1300,
        ..made.clone()
    };
    assert!(image.fits(&Event::LinkSet(with_mac.clone())));
    // It was up.
    assert!(!image.fits(&Event::LinkSet(down)));
    assert!(image.fits(&Event::LinkSet(made)));
    assert!(!image.fits(&Event::LinkSet(with_mac)));
}
