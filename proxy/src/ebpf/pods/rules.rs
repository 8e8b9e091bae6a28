//! Rules of others for packets that the node forwards, and its IPsec policies: packets that go past the stack go past them, too.

use seaway_kernel::{Command, CommandError, NetNs, xfrm};
use seaway_model::ownership::CHAIN_POD_FORWARD;

use crate::ebpf::error::EbpfError;
use crate::task::blocking;

/// Chains of kube-proxy in FORWARD, about Services only.
const OF_KUBE_PROXY: [&str; 4] = [
    "KUBE-FORWARD",
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
];

/// What prints the rules of both variants; programs that are not installed have made none.
const PROGRAMS: [&str; 4] = [
    "iptables-nft-save",
    "ip6tables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
];

/// The first rule that somebody else has for forwarded packets, in words.
pub(super) async fn foreign(netns: &NetNs) -> Result<Option<String>, EbpfError> {
    let of_ipsec = {
        let netns = netns.clone();
        let count = move || {
            let _inside = netns.enter()?;
            xfrm::policies()
        };
        blocking(count).await?
    };
    if of_ipsec != 0 {
        return Ok(Some(format!("{of_ipsec} IPsec policies")));
    }
    for program in PROGRAMS {
        let text = output(Command::new(program).netns(netns), program).await?;
        if let Some(rule) = text.as_deref().and_then(of_iptables) {
            return Ok(Some(rule));
        }
    }
    let text = output(
        Command::new("nft").args(["list", "chains"]).netns(netns),
        "nft",
    )
    .await?;
    Ok(text.as_deref().and_then(of_nftables))
}

async fn output(command: Command, program: &str) -> Result<Option<String>, EbpfError> {
    match command.output().await {
        Ok(output) => Ok(Some(output.into_text())),
        Err(CommandError::Missing { .. }) => Ok(None),
        Err(error) => Err(EbpfError::load(
            format!("the rules that {program} prints"),
            &error,
        )),
    }
}

/// Of what `iptables-save` prints.
fn of_iptables(saved: &str) -> Option<String> {
    let jump = format!("-A FORWARD -j {CHAIN_POD_FORWARD}");
    // The policy is about the rest.
    let pods_are_accepted = saved.lines().any(|line| line == jump);
    let mut in_filter = false;
    saved.lines().find_map(|line| {
        if let Some(table) = line.strip_prefix('*') {
            in_filter = table == "filter";
        }
        if !in_filter {
            return None;
        }
        if let Some(policy) = line.strip_prefix(":FORWARD ") {
            return (policy.starts_with("DROP") && !pods_are_accepted)
                .then(|| "policy DROP of chain FORWARD".to_owned());
        }
        let rule = line.strip_prefix("-A FORWARD ")?;
        let mut words = rule.split_whitespace();
        let target = words
            .find(|word| matches!(*word, "-j" | "-g"))
            .and(words.next());
        let harmless = target.is_some_and(|target| {
            target == "ACCEPT" || target.starts_with("SEAWAY-") || OF_KUBE_PROXY.contains(&target)
        });
        (!harmless).then(|| format!("iptables rule FORWARD {rule}"))
    })
}

/// Of what `nft list chains` prints. Tables of the nft variant of iptables are known by their chain's name.
fn of_nftables(listed: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    listed.lines().map(str::trim).find_map(|line| {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches([' ', '{']);
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches([' ', '{']);
        }
        let is_base = line.starts_with("type ") && line.contains(" hook forward ");
        let ours = table
            .split_whitespace()
            .nth(1)
            .is_some_and(|name| name.starts_with("seaway-"));
        (is_base && !ours && chain != "FORWARD")
            .then(|| format!("nftables chain {chain} of table {table}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(lines: &str) -> String {
        format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A FORWARD -j THEIRS\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n{lines}COMMIT\n"
        )
    }

    #[test]
    fn rules_that_let_pass_or_are_about_services_do_not_count() {
        for (lines, expected) in [
            ("", None),
            ("-A FORWARD -j SEAWAY-FORWARD\n", None),
            (
                "-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n-A FORWARD -j KUBE-FORWARD\n",
                None,
            ),
            ("-A INPUT -j DROP\n-A THEIRS -j DROP\n", None),
            (
                "-A FORWARD -j THEIRS\n",
                Some("iptables rule FORWARD -j THEIRS"),
            ),
            (
                "-A FORWARD -g THEIRS\n",
                Some("iptables rule FORWARD -g THEIRS"),
            ),
            (
                "-A FORWARD -s 10.244.1.5/32 -j DROP\n",
                Some("iptables rule FORWARD -s 10.244.1.5/32 -j DROP"),
            ),
            // Counts only, but who knows what for.
            (
                "-A FORWARD -s 10.244.1.5/32\n",
                Some("iptables rule FORWARD -s 10.244.1.5/32"),
            ),
        ] {
            assert_eq!(of_iptables(&filter(lines)).as_deref(), expected, "{lines}");
        }
    }

    #[test]
    fn a_policy_counts_unless_the_overlay_accepts_packets_of_pods_before_it() {
        let saved = |policy: &str, rules: &str| {
            format!("*filter\n:INPUT DROP [0:0]\n:FORWARD {policy} [0:0]\n{rules}COMMIT\n")
        };
        let drops = Some("policy DROP of chain FORWARD");
        let jump = "-A FORWARD -j SEAWAY-POD-FORWARD\n";
        for (policy, rules, expected) in [
            ("ACCEPT", "", None),
            ("DROP", "", drops),
            ("DROP", "-A FORWARD -j SEAWAY-FORWARD\n", drops),
            ("DROP", "-A FORWARD -i lo -j SEAWAY-POD-FORWARD\n", drops),
            ("DROP", jump, None),
            (
                "DROP",
                "-A FORWARD -j THEIRS\n-A FORWARD -j SEAWAY-POD-FORWARD\n",
                Some("iptables rule FORWARD -j THEIRS"),
            ),
        ] {
            let saved = saved(policy, rules);
            assert_eq!(of_iptables(&saved).as_deref(), expected, "{saved}");
        }
    }

    #[test]
    fn chains_of_nftables_count_by_their_hook() {
        let chain = |table: &str, name: &str, hook: &str| {
            format!(
                "table {table} {{\n\tchain other {{\n\t}}\n\tchain {name} {{\n\t\ttype filter hook {hook} priority filter; policy accept;\n\t}}\n}}\n"
            )
        };
        for (text, expected) in [
            (
                chain("inet firewalld", "filter_FORWARD", "forward"),
                Some("nftables chain filter_FORWARD of table inet firewalld"),
            ),
            (chain("inet firewalld", "filter_INPUT", "input"), None),
            (chain("ip filter", "FORWARD", "forward"), None),
            (chain("inet seaway-overlay", "forward", "forward"), None),
            (String::new(), None),
        ] {
            assert_eq!(of_nftables(&text).as_deref(), expected, "{text}");
        }
    }
}
