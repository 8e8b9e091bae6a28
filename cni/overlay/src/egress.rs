//! What leaves the cluster gets the node's address: one static chain per node and family, never rules per pod.

use std::fmt::Write;

use ipnetwork::IpNetwork;
use seaway_kernel::{Command, CommandError, Nftables};
use seaway_model::Family;
use seaway_model::ownership::CHAIN_EGRESS;

/// How long to wait for the xtables lock.
const WAIT_SECONDS: &str = "10";

/// The nat rules of one family, in the words of `iptables -S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    pub family: Family,
    /// In order, without the chain.
    pub rules: Vec<String>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// None if there is no such chain.
    pub rules: Option<Vec<String>>,
    /// How often POSTROUTING jumps to it.
    pub jumps: usize,
}

impl Egress {
    /// The rules for a node's pods: what stays in the cluster, goes where an exclusion says, or is multicast, keeps its
    /// address.
    pub fn new(pod_cidr: IpNetwork, cluster_cidrs: &[IpNetwork], exclusions: &[IpNetwork]) -> Self {
        let family = Family::of(pod_cidr.ip());
        let multicast = match family {
            Family::V4 => "224.0.0.0/4",
            Family::V6 => "ff00::/8",
        };
        let mut rules: Vec<_> = cluster_cidrs
            .iter()
            .chain(exclusions)
            .filter(|cidr| Family::of(cidr.ip()) == family)
            .map(|cidr| format!("-d {}/{} -j RETURN", cidr.network(), cidr.prefix()))
            .collect();
        rules.push(format!("-d {multicast} -j RETURN"));
        rules.push(format!(
            "-s {}/{} -j MASQUERADE --random-fully",
            pod_cidr.network(),
            pod_cidr.prefix()
        ));
        Self { family, rules }
    }

    /// The input of `iptables-restore --noflush` that makes it so; `None` if it is so.
    pub fn changes(&self, seen: &Seen) -> Option<String> {
        if seen.rules.as_ref() == Some(&self.rules) && seen.jumps == 1 {
            return None;
        }
        let mut text = format!("*nat\n:{CHAIN_EGRESS} - [0:0]\n");
        for rule in &self.rules {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "-A {CHAIN_EGRESS} {rule}");
        }
        for _ in 1..seen.jumps {
            let _ = writeln!(text, "-D {}", jump());
        }
        if seen.jumps == 0 {
            let _ = writeln!(text, "-A {}", jump());
        }
        text.push_str("COMMIT\n");
        Some(text)
    }
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

/// The input that removes everything; `None` if nothing is there.
pub fn removal(seen: &Seen) -> Option<String> {
    if *seen == Seen::default() {
        return None;
    }
    let mut text = "*nat\n".to_owned();
    for _ in 0..seen.jumps {
        let _ = writeln!(text, "-D {}", jump());
    }
    if seen.rules.is_some() {
        let _ = writeln!(text, "-F {CHAIN_EGRESS}\n-X {CHAIN_EGRESS}");
    }
    text.push_str("COMMIT\n");
    Some(text)
}

fn jump() -> String {
    format!("POSTROUTING -j {CHAIN_EGRESS}")
}

/// Reads what is there.
pub async fn observe(family: Family) -> Result<Seen, CommandError> {
    let prefix = format!("-A {CHAIN_EGRESS} ");
    let rules = list(family, CHAIN_EGRESS).await?.map(|lines| {
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    });
    let wanted = format!("-A {}", jump());
    let postrouting = list(family, "POSTROUTING").await?.unwrap_or_default();
    Ok(Seen {
        rules,
        jumps: postrouting.iter().filter(|line| **line == wanted).count(),
    })
}

/// Whether nftables has the chain: for where iptables itself, whose nft variant keeps it there, is not found. What the legacy variant
/// has cannot be seen without it.
pub fn is_in_nftables(family: Family) -> bool {
    let chains = Nftables::open().and_then(|mut nft| nft.chains(family == Family::V6));
    // A kernel without nftables has none.
    chains.is_ok_and(|chains| chains.iter().any(|(_, chain)| chain == CHAIN_EGRESS))
}

/// Feeds `iptables-restore`; one transaction.
pub async fn restore(family: Family, input: &str) -> Result<(), CommandError> {
    tracing::info!(?family, "iptables-restore:\n{}", input.trim_end());
    Command::new(format!("{}-restore", program(family)))
        .args(["--noflush", "--wait", WAIT_SECONDS])
        .stdin(input)
        .output()
        .await
        .map(drop)
}

/// Brings the chain up to date; answers whether anything had to be changed.
pub async fn sync(egress: &Egress) -> Result<bool, CommandError> {
    let seen = observe(egress.family).await?;
    match egress.changes(&seen) {
        None => Ok(false),
        Some(input) => restore(egress.family, &input).await.map(|()| true),
    }
}

/// Removes the chain of a family; answers whether there was one.
pub async fn remove(family: Family) -> Result<bool, CommandError> {
    match removal(&observe(family).await?) {
        None => Ok(false),
        Some(input) => restore(family, &input).await.map(|()| true),
    }
}

/// The rules of one chain; `None` if there is no such chain (exit code 1).
async fn list(family: Family, chain: &str) -> Result<Option<Vec<String>>, CommandError> {
    let output = Command::new(program(family))
        .args(["-w", WAIT_SECONDS, "-t", "nat", "-S", chain])
        .output()
        .await;
    match output {
        Ok(output) => Ok(Some(output.text().lines().map(str::to_owned).collect())),
        Err(CommandError::Failed { status, .. }) if status.code() == Some(1) => Ok(None),
        Err(error) => Err(error),
    }
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress() -> Egress {
        let cidrs = ["10.244.0.0/16", "fd00::/48"].map(|c| c.parse().unwrap());
        let exclusions = ["10.99.0.7/16", "fd99::/48"].map(|c| c.parse().unwrap());
        Egress::new("10.244.1.0/24".parse().unwrap(), &cidrs, &exclusions)
    }

    #[test]
    fn the_chain_is_written_whole() {
        expect_test::expect![[r#"
            *nat
            :SEAWAY-EGRESS - [0:0]
            -A SEAWAY-EGRESS -d 10.244.0.0/16 -j RETURN
            -A SEAWAY-EGRESS -d 10.99.0.0/16 -j RETURN
            -A SEAWAY-EGRESS -d 224.0.0.0/4 -j RETURN
            -A SEAWAY-EGRESS -s 10.244.1.0/24 -j MASQUERADE --random-fully
            -A POSTROUTING -j SEAWAY-EGRESS
            COMMIT
        "#]]
        .assert_eq(&egress().changes(&Seen::default()).unwrap());
    }

    #[test]
    fn a_node_whose_pods_are_outside_of_the_cluster_is_told() {
        let cidrs = |texts: &[&str]| -> Vec<IpNetwork> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
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

    #[test]
    fn what_is_right_stays_and_surplus_jumps_go() {
        let mut seen = Seen {
            rules: Some(egress().rules),
            jumps: 1,
        };
        assert_eq!(egress().changes(&seen), None);
        seen.jumps = 3;
        let changes = egress().changes(&seen).unwrap();
        assert_eq!(changes.matches("-D POSTROUTING").count(), 2);
        assert_eq!(removal(&Seen::default()), None);
        let removal = removal(&seen).unwrap();
        assert_eq!(removal.matches("-D POSTROUTING").count(), 3);
        assert!(removal.contains("-X SEAWAY-EGRESS"));
    }
}
