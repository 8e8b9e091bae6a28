//! What the operator decides, and what of it this machine can do.

use ipnetwork::IpNetwork;
use seaway_kernel::Capabilities;
use seaway_kernel::capabilities::IptablesProgram;
use seaway_model::{DetectLocal, Family};

use super::placement::NatVariant;
use super::plan::Settings;

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesConfig {
    /// `--detect-local-mode` with what belongs to it.
    pub detect_local: DetectLocal,
    /// `--nodeport-addresses`: node ports are served on local addresses in these ranges only. `None`: on all but
    /// loopback.
    pub node_port_addresses: Option<Vec<IpNetwork>>,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// Serve IPv6 as well, where the node has it.
    pub ipv6: bool,
    /// Drop forwarded packets that connection tracking calls invalid. Off where it is told to be liberal
    /// (`net.netfilter.nf_conntrack_tcp_be_liberal`) or where routes are not symmetric.
    pub drop_invalid: bool,
    /// `--iptables-nat-variant`.
    pub nat_variant: NatVariant,
}

impl Default for IptablesConfig {
    fn default() -> Self {
        Self {
            detect_local: DetectLocal::default(),
            node_port_addresses: None,
            masquerade_all: false,
            ipv6: true,
            drop_invalid: true,
            nat_variant: NatVariant::default(),
        }
    }
}

impl IptablesConfig {
    /// The settings of each family that can be served. IPv4 always is.
    pub(super) fn families(&self, machine: &Capabilities) -> Vec<Settings> {
        let settings = |family, program: &Option<IptablesProgram>| Settings {
            masquerade_all: self.masquerade_all,
            drop_invalid: self.drop_invalid,
            random_fully: program.as_ref().is_none_or(knows_random_fully),
            ..Settings::new(family, &self.detect_local)
                .node_ports_on(self.node_port_addresses.as_deref())
        };
        let mut families = vec![settings(Family::V4, &machine.iptables)];
        if self.ipv6 && without_ipv6(machine).is_none() {
            families.push(settings(Family::V6, &machine.ip6tables));
        }
        families
    }
}

/// Why this node does not serve IPv6; `None` if it can.
pub fn without_ipv6(machine: &Capabilities) -> Option<&'static str> {
    if machine.ip6tables.is_none() {
        Some("ip6tables is not installed")
    } else if !kernel_has_ipv6() {
        Some("the kernel runs without IPv6")
    } else {
        None
    }
}

/// Not there when the kernel was built or booted without it (`ipv6.disable=1`).
fn kernel_has_ipv6() -> bool {
    std::path::Path::new("/proc/self/net/if_inet6").exists()
}

/// iptables 1.6.2 was the first with MASQUERADE `--random-fully`.
fn knows_random_fully(program: &IptablesProgram) -> bool {
    let mut numbers = program
        .version
        .split('.')
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= (1, 6, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaway_kernel::capabilities::IptablesVariant;

    fn machine(version: &str, ip6tables: bool) -> Capabilities {
        let program = IptablesProgram {
            version: version.into(),
            variant: IptablesVariant::Legacy,
        };
        Capabilities {
            kernel: (6, 1),
            iptables: Some(program.clone()),
            ip6tables: ip6tables.then_some(program),
            ..Capabilities::default()
        }
    }

    #[test]
    fn a_node_without_ip6tables_serves_ipv4() {
        let config = IptablesConfig::default();
        let families = |machine| -> Vec<Family> {
            let all = config.families(machine);
            all.iter().map(|settings| settings.family).collect()
        };
        let without = machine("1.8.9", false);
        assert_eq!(families(&without), [Family::V4]);
        assert_eq!(without_ipv6(&without), Some("ip6tables is not installed"));
        if kernel_has_ipv6() {
            let with = machine("1.8.9", true);
            assert_eq!(families(&with), [Family::V4, Family::V6]);
        }
    }

    #[test]
    fn old_programs_do_not_know_all_flags() {
        for (version, expected) in [("1.6.1", false), ("1.6.2", true), ("1.8.9", true)] {
            let families = IptablesConfig::default().families(&machine(version, true));
            assert!(
                families.iter().all(|s| s.random_fully == expected),
                "{version}"
            );
        }
    }

    #[test]
    fn each_family_has_its_own_ranges() {
        let cidrs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        let config = IptablesConfig {
            detect_local: DetectLocal::ClusterCidr(cidrs(&["10.0.0.0/8", "fd00::/8"])),
            node_port_addresses: Some(cidrs(&["192.168.0.0/16"])),
            ..IptablesConfig::default()
        };
        let v4 = &config.families(&machine("1.8.9", true))[0];
        assert_eq!(v4.pods.len(), 1);
        let ranges = |s: &Settings| s.node_port_ranges.as_ref().map(Vec::len);
        assert_eq!(ranges(v4), Some(1));
        for v6 in config.families(&machine("1.8.9", true)).iter().skip(1) {
            assert_eq!((v6.pods.len(), ranges(v6)), (1, Some(0)));
        }
    }
}
