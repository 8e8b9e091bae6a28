//! What leaves the cluster gets the node's address, and what pods send and get is forwarded.

use ipnetwork::IpNetwork;
use seaway_model::Family;

use crate::chain::{Chain, Place};

/// Of a node's pods: what stays in the cluster, goes where an exclusion says, or is multicast, keeps its address.
pub fn masquerade(
    pod_cidr: IpNetwork,
    cluster_cidrs: &[IpNetwork],
    exclusions: &[IpNetwork],
) -> Chain {
    let family = Family::of(pod_cidr.ip());
    let multicast = match family {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    };
    let mut rules: Vec<_> = of(family, cluster_cidrs)
        .chain(of(family, exclusions))
        .map(|cidr| format!("-d {cidr} -j RETURN"))
        .collect();
    rules.push(format!("-d {multicast} -j RETURN"));
    let pods = network(&pod_cidr);
    rules.push(format!("-s {pods} -j MASQUERADE --random-fully"));
    let place = Place::egress(family);
    Chain { place, rules }
}

/// Where a node forwards only what is said to be (Docker and firewalls set FORWARD to `DROP`), pods would reach nobody: as flannel's
/// `--iptables-forward-rules`.
pub fn forward(family: Family, cluster_cidrs: &[IpNetwork]) -> Chain {
    let both = |cidr: String| {
        [
            format!("-s {cidr} -j ACCEPT"),
            format!("-d {cidr} -j ACCEPT"),
        ]
    };
    Chain {
        place: Place::forward(family),
        rules: of(family, cluster_cidrs).flat_map(both).collect(),
    }
}

fn of(family: Family, cidrs: &[IpNetwork]) -> impl Iterator<Item = String> {
    let cidrs = cidrs
        .iter()
        .filter(move |cidr| Family::of(cidr.ip()) == family);
    cidrs.map(network)
}

fn network(cidr: &IpNetwork) -> String {
    format!("{}/{}", cidr.network(), cidr.prefix())
}

/// What is wrong where pods of this node are outside of the cluster's ranges: to them the rest of the cluster is one of the places
/// for which packets are masqueraded.
pub fn stray(pod_cidrs: &[IpNetwork], cluster_cidrs: &[IpNetwork]) -> Option<String> {
    let within = |cidr: &IpNetwork| {
        let around =
            |cluster: &IpNetwork| cluster.prefix() <= cidr.prefix() && cluster.contains(cidr.ip());
        cluster_cidrs.iter().any(around)
    };
    let list = |cidrs: &mut dyn Iterator<Item = &IpNetwork>| {
        let texts: Vec<_> = cidrs.map(ToString::to_string).collect();
        texts.join(",")
    };
    let outside = list(&mut pod_cidrs.iter().filter(|cidr| !within(cidr)));
    (!outside.is_empty()).then(|| {
        format!(
            "{outside} (spec.podCIDRs of this Node) is not within --cluster-cidr {}: packets from pods there to pods of other \
             nodes are masqueraded; correct the one or the other",
            list(&mut cluster_cidrs.iter())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_stays_in_the_cluster_keeps_its_address() {
        let cluster = cidrs(&["10.244.0.0/16", "fd00::/48"]);
        let exclusions = cidrs(&["10.99.0.7/16", "fd99::/48"]);
        let chain = masquerade("10.244.1.0/24".parse().unwrap(), &cluster, &exclusions);
        assert_eq!(chain.place, Place::egress(Family::V4));
        expect_test::expect![[r#"
            -d 10.244.0.0/16 -j RETURN
            -d 10.99.0.0/16 -j RETURN
            -d 224.0.0.0/4 -j RETURN
            -s 10.244.1.0/24 -j MASQUERADE --random-fully"#]]
        .assert_eq(&chain.rules.join("\n"));
    }

    #[test]
    fn packets_of_pods_are_forwarded_in_both_directions() {
        let cluster = cidrs(&["10.244.0.7/16", "fd00::/48", "10.9.0.0/16"]);
        let rules = |family| forward(family, &cluster).rules.join("\n");
        expect_test::expect![[r#"
            -s 10.244.0.0/16 -j ACCEPT
            -d 10.244.0.0/16 -j ACCEPT
            -s 10.9.0.0/16 -j ACCEPT
            -d 10.9.0.0/16 -j ACCEPT"#]]
        .assert_eq(&rules(Family::V4));
        assert_eq!(
            rules(Family::V6),
            "-s fd00::/48 -j ACCEPT\n-d fd00::/48 -j ACCEPT"
        );
    }

    #[test]
    fn a_node_whose_pods_are_outside_of_the_cluster_is_told() {
        let cluster = cidrs(&["10.244.0.0/16", "fd01::/48"]);
        for (pods, outside) in [
            (&["10.244.1.0/24", "fd01::/64"][..], None),
            (&["10.244.0.0/16"], None),
            (&["10.245.1.0/24", "fd01::/64"], Some("10.245.1.0/24 (spec")),
            (&["10.240.0.0/12"], Some("10.240.0.0/12 (spec")),
            (
                &["10.1.0.0/24", "fd02::/64"],
                Some("10.1.0.0/24,fd02::/64 (spec"),
            ),
        ] {
            let said = stray(&cidrs(pods), &cluster);
            match (&said, outside) {
                (None, None) => {}
                (Some(said), Some(start)) => assert!(said.starts_with(start), "{said}"),
                _ => panic!("{pods:?}: {said:?}"),
            }
        }
    }
}
