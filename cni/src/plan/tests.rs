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
    text_of(&add(attachment))
}

fn text_of(plan: &Plan) -> String {
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
                    let metric = route
                        .metric
                        .map(|metric| format!(" metric {metric}"))
                        .unwrap_or_default();
                    let table = if route.table == TABLE_MAIN {
                        String::new()
                    } else {
                        format!(" table {:#x}", route.table)
                    };
                    format!("{side}: route {route}{mtu}{metric}{table}\n")
                }
                Step::Rule(rule) => {
                    format!("{side}: rule from {} table {:#x}\n", rule.from, rule.table)
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

#[test]
fn a_second_link_gives_way_to_the_first_but_for_what_comes_from_its_addresses() {
    let addresses = [("10.244.2.5/32", None), ("fd00:2::5/128", None)];
    let second = attachment(Style::Routed, &addresses, &[]);
    let alone = add_beside(&second, 3, &[]);
    assert_eq!(text_of(&alone), text(&second));

    let mut others: Vec<Route> = Vec::new();
    for step in add(&attachment(Style::Routed, &[("10.244.1.5/32", None)], &[])).pod {
        if let Step::Route { mut route, .. } = step {
            route.link = Some(2);
            others.push(route);
        }
    }
    let plan = text_of(&add_beside(&second, 3, &others));
    let pod: Vec<&str> = plan
        .lines()
        .filter(|line| line.contains("pod: r"))
        .collect();
    let table = format!("table {:#x}", second.table);
    assert_eq!(
        pod,
        [
            "pod: route 169.254.1.1/32 metric 2003",
            "pod: route 0.0.0.0/0 via 169.254.1.1 metric 2003",
            "pod: route ::/0 via fe80::1",
            &format!("pod: route 0.0.0.0/0 via 169.254.1.1 {table}"),
            &format!("pod: route ::/0 via fe80::1 {table}"),
            &format!("pod: rule from 10.244.2.5 {table}"),
            &format!("pod: rule from fd00:2::5 {table}"),
        ]
    );

    // The first link's CHECK is not disturbed by the second one's routes.
    for other in &mut others {
        other.metric = Some(2003);
    }
    assert_eq!(text_of(&add_beside(&second, 2, &others)), text(&second));
}
