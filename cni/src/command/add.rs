//! ADD: an address, an interface, limits and host ports; all or nothing.

use ipnetwork::IpNetwork;
use seaway_kernel::{MacAddr, NetNs, RouteSocket, sysctl};
use serde_json::Value;

use super::{Call, since_boot};
use crate::apply;
use crate::attachment::{Attachment, Style};
use crate::bandwidth::Shaping;
use crate::ipam::{Assigned, Lease, Source};
use crate::node::NodeFile;
use crate::personality::Personality;
use crate::ports::{self, Wanted};
use crate::protocol::{
    AddResult, Args, Code, Dns, Error, IpConfig, RouteConfig, RuntimeConfig, Verb,
};

/// What IPAM gave: ours, or another plugin's.
struct Addresses {
    assigned: Vec<Assigned>,
    routes: Vec<RouteConfig>,
    dns: Option<Dns>,
}

impl Call {
    pub(super) fn add(&self) -> Result<Value, Error> {
        let runtime = self.config.runtime()?;
        let args = Args::parse(&self.invocation.args)?;
        if self.personality == Personality::HostLocal {
            let result = self.only_addresses(&runtime, &args)?;
            return result.to_json(self.config.version).inspect_err(|_| {
                // The first error is the one that matters; GC finds what is left.
                let _ = self.release();
            });
        }
        if let Some((raw, previous)) = self.config.previous()? {
            return self.add_chained(&runtime, raw, &previous);
        }
        let pod = self.pod_namespace()?;
        let shaping = Shaping::new(&self.owner(), self.config.bandwidth()?, runtime.bandwidth)?;
        let mtu = self.mtu()?;
        let mac = self.mac(&runtime, &args)?;
        let dns = self.config.dns()?;
        if self.delegate()?.is_some() {
            // Of an attachment that is there, the other plugin would be told the end as well.
            apply::refuse_second(&pod, &self.owner().ifname)?;
        }
        // From here on there is something to give back.
        let addresses = self.addresses(&runtime, &args, true)?;
        let attachment = Attachment::new(&self.owner(), mtu, mac).with(
            self.personality.style(),
            &addresses.assigned,
            &addresses.routes,
        );
        let dns = dns.or(addresses.dns).unwrap_or_default();
        let result = attachment.result(&self.invocation.netns, dns);
        result
            .to_json(self.config.version)
            .and_then(|answer| {
                self.interface(&attachment, &pod, &runtime, shaping.as_ref())?;
                Ok(answer)
            })
            // An interface that was there before stays: only what this call has made goes.
            .map_err(|error| match self.release() {
                Ok(()) => error,
                Err(second) => error.details(format!("and freeing its address failed: {second}")),
            })
    }

    /// Makes everything that is not an address.
    fn interface(
        &self,
        attachment: &Attachment,
        pod: &NetNs,
        runtime: &RuntimeConfig,
        shaping: Option<&Shaping>,
    ) -> Result<(), Error> {
        if self.personality.style() == Style::Ptp {
            forward(attachment)?;
        }
        let ports = self.host_ports(attachment, runtime)?;
        apply::add(attachment, pod, shaping, !ports.mappings.is_empty())?;
        ports::add(&ports, &self.tag()).map_err(|error| {
            let device = shaping.map(|shaping| shaping.link.as_str());
            let undone = RouteSocket::open()
                .map_err(Error::from)
                .and_then(|mut host| apply::undo(&mut host, &attachment.host_link, device));
            match undone {
                Ok(()) => error,
                Err(second) => error.details(format!("and taking it back failed: {second}")),
            }
        })
    }

    /// Host ports and masquerade of a pod with these addresses.
    pub(super) fn host_ports(
        &self,
        attachment: &Attachment,
        runtime: &RuntimeConfig,
    ) -> Result<Wanted, Error> {
        Wanted {
            mappings: runtime.port_mappings.clone(),
            // On a node with an overlay one static rule set does it for all pods.
            masquerade: self.personality == Personality::Ptp && self.config.masquerade()?,
            addresses: attachment
                .addresses
                .iter()
                .map(|a| a.network.ip())
                .collect(),
        }
        .checked()
    }

    /// As the IPAM plugin of another one.
    fn only_addresses(&self, runtime: &RuntimeConfig, args: &Args) -> Result<AddResult, Error> {
        let addresses = self.addresses(runtime, args, false)?;
        Ok(AddResult {
            interfaces: Vec::new(),
            ips: addresses
                .assigned
                .iter()
                .map(|one| IpConfig {
                    address: one.address,
                    gateway: one.gateway,
                    interface: None,
                })
                .collect(),
            routes: addresses.routes,
            dns: addresses.dns.unwrap_or_default(),
        })
    }

    fn addresses(
        &self,
        runtime: &RuntimeConfig,
        args: &Args,
        interface: bool,
    ) -> Result<Addresses, Error> {
        if let Some(source) = Source::new(&self.config, runtime)? {
            let now = since_boot()?;
            let lease = Lease {
                owner: self.owner(),
                netns: self.invocation.netns.clone(),
                netns_id: NetNs::open(self.invocation.netns.as_ref())
                    .and_then(|netns| netns.identity())
                    .ok(),
                interface,
                since: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            };
            let requested = self.requested(runtime, args)?;
            let dns = source.dns()?;
            return Ok(Addresses {
                assigned: source.assign(&lease, &requested, now)?,
                routes: source.routes().to_vec(),
                dns,
            });
        }
        let Some(delegate) = self.delegate()? else {
            return Ok(Addresses {
                assigned: Vec::new(),
                routes: Vec::new(),
                dns: None,
            });
        };
        let result = delegate.add().map_err(|error| {
            // It may have got half way.
            match delegate.call(Verb::Del) {
                Ok(_) => error,
                Err(second) => error.details(format!("and its DEL failed: {second}")),
            }
        })?;
        let assigned = result.ips.iter().map(|ip| Assigned {
            address: ip.address,
            gateway: ip.gateway,
        });
        Ok(Addresses {
            assigned: assigned.collect(),
            routes: result.routes,
            dns: Some(result.dns),
        })
    }

    /// What is asked for by the most specific of three ways: capability, `args.cni`, `CNI_ARGS`.
    fn requested(&self, runtime: &RuntimeConfig, args: &Args) -> Result<Vec<IpNetwork>, Error> {
        let (ips, _) = self.config.args()?;
        let all = [&runtime.ips, &ips, &args.addresses];
        let given = all.into_iter().find(|list| !list.is_empty());
        Ok(given.cloned().unwrap_or_default())
    }

    /// The same of the link-layer address.
    pub(super) fn mac(
        &self,
        runtime: &RuntimeConfig,
        args: &Args,
    ) -> Result<Option<MacAddr>, Error> {
        let (_, mac) = self.config.args()?;
        let chosen = runtime.mac.or(mac).or(args.mac);
        // The kernel takes no other for a link.
        if let Some(mac) = chosen.filter(|mac| mac.0[0] & 1 != 0 || mac.0 == [0; 6]) {
            let message = format!("mac {mac} is not the address of one interface");
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(chosen)
    }

    /// Of the config, or of the overlay. Only pods of ours need one: they leave the node through it.
    pub(super) fn mtu(&self) -> Result<Option<u32>, Error> {
        if let Some(mtu) = self.config.mtu()? {
            return Ok(Some(mtu));
        }
        match NodeFile::read(&self.config.run_dir) {
            Ok(node) => Ok(Some(node.mtu)),
            Err(error) if error.code == Code::TryAgainLater => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// As the reference plugin: the node forwards for its pods.
fn forward(attachment: &Attachment) -> Result<(), Error> {
    for (ipv4, key) in [
        (true, "net.ipv4.ip_forward"),
        (false, "net.ipv6.conf.all.forwarding"),
    ] {
        if attachment
            .addresses
            .iter()
            .any(|a| a.network.is_ipv4() == ipv4)
        {
            sysctl::write(key, "1")?;
        }
    }
    Ok(())
}
