//! From flags to settings, with every contradiction named before anything is done.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnetwork::IpNetwork;
use seaway_apiserver::allocate::{AddressRange, PortRange, Ranges};
use seaway_controllers::ControllersConfig;

use super::ServerArgs;

/// Blocks for nodes in one cluster CIDR: fewer bits than this is surely meant otherwise.
const MAX_NODE_BITS: u8 = 16;

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) advertise: SocketAddr,
    pub(super) ranges: Ranges,
    pub(super) controllers: ControllersConfig,
}

impl Settings {
    pub(super) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        families("--cluster-cidr", &args.cluster_cidr)?;
        families("--service-cidr", &args.service_cidr)?;
        for cluster in &args.cluster_cidr {
            for service in &args.service_cidr {
                if overlap(*cluster, *service) {
                    bail!(
                        "--cluster-cidr {cluster} and --service-cidr {service} overlap: pods and Services would share addresses; choose ranges apart from each other"
                    );
                }
            }
            mask(args, *cluster)?;
        }
        let services = args
            .service_cidr
            .iter()
            .map(|cidr| AddressRange::new(*cidr).with_context(|| format!("--service-cidr {cidr}")));
        let (first, last) = args.service_node_port_range;
        let node_ports = PortRange::new(first..=last)
            .with_context(|| format!("--service-node-port-range {first}-{last}"))?;
        Ok(Self {
            advertise: advertise(args)?,
            ranges: Ranges {
                services: services.collect::<anyhow::Result<_>>()?,
                node_ports,
            },
            controllers: ControllersConfig {
                cluster_cidrs: args.cluster_cidr.clone(),
                node_mask_v4: args.node_cidr_mask_size,
                node_mask_v6: args.node_cidr_mask_size_ipv6,
                node_grace: args.node_monitor_grace_period,
                eviction_after: args.pod_eviction_timeout,
                ..ControllersConfig::default()
            },
        })
    }
}

fn families(flag: &str, cidrs: &[IpNetwork]) -> anyhow::Result<()> {
    let v4 = cidrs.iter().filter(|cidr| cidr.is_ipv4()).count();
    if v4 > 1 || cidrs.len() - v4 > 1 {
        let given: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        bail!(
            "{flag} {}: give one range per address family",
            given.join(",")
        );
    }
    for cidr in cidrs {
        if cidr.ip() != cidr.network() {
            bail!(
                "{flag} {cidr}: not the first address of its range; did you mean {}/{}?",
                cidr.network(),
                cidr.prefix()
            );
        }
    }
    Ok(())
}

fn mask(args: &ServerArgs, cluster: IpNetwork) -> anyhow::Result<()> {
    let (flag, mask, bits) = match cluster.is_ipv4() {
        true => ("--node-cidr-mask-size", args.node_cidr_mask_size, 30),
        false => (
            "--node-cidr-mask-size-ipv6",
            args.node_cidr_mask_size_ipv6,
            126,
        ),
    };
    if mask < cluster.prefix() {
        bail!(
            "{flag} {mask} is shorter than the /{} of --cluster-cidr {cluster}: no node would fit; give at least {}",
            cluster.prefix(),
            cluster.prefix()
        );
    }
    if mask > bits {
        bail!("{flag} {mask} leaves no addresses for pods; give at most {bits}");
    }
    if mask - cluster.prefix() > MAX_NODE_BITS {
        bail!(
            "{flag} {mask} cuts --cluster-cidr {cluster} into more than 65536 parts; give at most {}",
            cluster.prefix() + MAX_NODE_BITS
        );
    }
    Ok(())
}

fn advertise(args: &ServerArgs) -> anyhow::Result<SocketAddr> {
    let own = args.listen.iter().map(|listen| listen.address);
    let found = args.advertise_address.or_else(|| {
        own.into_iter()
            .find(|address| !address.ip().is_unspecified() && address.port() != 0)
    });
    let Some(address) = found else {
        bail!(
            "--advertise-address is needed: no --listen says under which address clients reach the server"
        );
    };
    if address.ip().is_unspecified() || address.port() == 0 {
        bail!(
            "--advertise-address {address}: clients cannot connect to that; name an address and port of this machine"
        );
    }
    Ok(address)
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// `FIRST-LAST`.
pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let parsed = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not a range of ports, such as 30000-32767"))
}

/// `50s`, `500ms`, `5m`, or a bare number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("`{text}` is not a duration, such as 50s, 500ms or 5m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => number
            .checked_mul(60)
            .map(Duration::from_secs)
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}
