use super::*;
use crate::attachment::Style;
use crate::ipam::Assigned;
use crate::protocol::OwnerKey;

fn attachment(
    style: Style,
    addresses: &[(&str, Option<&str>)],
    routes: &[RouteConfig],
) -> Attachment {
    let owner = OwnerKey {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    };
    let assigned: Vec<_> = addresses
        .iter()
        .map(|(address, gateway)| Assigned {
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        })
        .collect();
    Attachment::new(&owner, Some(1450), None).with(style, &assigned, routes)
}

fn text(attachment: &Attachment) -> String {
    let plan = add(attachment);
    let lines = |side: &str, steps: &[Step]| -> String {
        steps
            .iter()
            .map(|step| match step {
                Step::Address(network) => format!("{side}: address {network}\n"),
                Step::Neighbour { address, mac } => format!("{side}: neighbour {address} {mac}\n"),
                Step::Route { route, metrics } => {
                    let mtu = metrics
                        .mtu
                        .map(|mtu| format!(" mtu {mtu}"))
                        .unwrap_or_default();
                    format!("{side}: route {route}{mtu}\n")
                }
            })
            .collect()
    };
    lines("pod", &plan.pod) + &lines("node", &plan.host)
}

#[test]
fn a_routed_pod_has_its_own_address_only() {
    let addresses = [
        ("10.244.1.5/24", Some("10.244.1.1")),
        ("fd00:1::5/128", None),
    ];
    expect_test::expect![[r#"
        pod: address 10.244.1.5/32
        pod: neighbour 169.254.1.1 b2:ce:af:0e:6a:a0
        pod: route 169.254.1.1/32
        pod: address fd00:1::5/128
        pod: neighbour fe80::1 b2:ce:af:0e:6a:a0
        pod: route 0.0.0.0/0 via 169.254.1.1
        pod: route ::/0 via fe80::1
        node: neighbour 10.244.1.5 f2:12:50:b1:84:5e
        node: route 10.244.1.5/32
        node: neighbour fd00:1::5 f2:12:50:b1:84:5e
        node: route fd00:1::5/128
    "#]]
    .assert_eq(&text(&attachment(Style::Routed, &addresses, &[])));
}

#[test]
fn a_pod_of_ptp_is_in_a_subnet_whose_gateway_is_the_node() {
    let mut route = RouteConfig::new(
        "10.9.0.0/16".parse().unwrap(),
        Some("10.22.0.9".parse().unwrap()),
    );
    route.mtu = Some(1300);
    let routes = [RouteConfig::new("0.0.0.0/0".parse().unwrap(), None), route];
    let addresses = [("10.22.0.5/24", Some("10.22.0.1"))];
    expect_test::expect![[r#"
        pod: address 10.22.0.5/24
        pod: neighbour 10.22.0.1 b2:ce:af:0e:6a:a0
        pod: route 10.22.0.1/32
        pod: route 10.22.0.0/24 via 10.22.0.1
        pod: route 0.0.0.0/0 via 10.22.0.1
        pod: neighbour 10.22.0.9 b2:ce:af:0e:6a:a0
        pod: route 10.22.0.9/32
        pod: route 10.9.0.0/16 via 10.22.0.9 mtu 1300
        node: address 10.22.0.1/32
        node: neighbour 10.22.0.5 f2:12:50:b1:84:5e
        node: route 10.22.0.5/32
    "#]]
    .assert_eq(&text(&attachment(Style::Ptp, &addresses, &routes)));
}
