//! Machines for the tests of the iptables data plane: a namespace each, and a Service to put into it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;

use seaway_kernel::capabilities::{IptablesProgram, IptablesVariant};
use seaway_kernel::{Capabilities, NetNs};
use seaway_model::testing::{self, plain};
use seaway_model::{
    Change, Desired, DetectLocal, Family, InputEvent, Inputs, ObjectKey, Protocol, ServicePort,
    derive_all,
};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::{IptablesConfig, IptablesDataplane, NatVariant};

/// Everything in the nft variant, everything in the legacy one, and nat in nft on a legacy node.
pub(crate) const PLACES: [Machine; 3] = [NFT, LEGACY, SPLIT];

pub(crate) const NFT: Machine = Machine {
    variant: IptablesVariant::NfTables,
    nat: NatVariant::Auto,
};
pub(crate) const LEGACY: Machine = Machine {
    variant: IptablesVariant::Legacy,
    nat: NatVariant::Same,
};
pub(crate) const SPLIT: Machine = Machine {
    variant: IptablesVariant::Legacy,
    nat: NatVariant::Auto,
};

/// Runs `test` for each variant, in a namespace of its own.
pub(crate) fn in_each_variant<F, Fut>(test: F)
where
    F: Fn(Machine) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    for machine in [NFT, LEGACY] {
        on(machine, &test);
    }
}

/// The same for each place that our tables can be in.
pub(crate) fn in_each_place<F, Fut>(test: F)
where
    F: Fn(Machine) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    for machine in PLACES {
        on(machine, &test);
    }
}

fn on<F, Fut>(machine: Machine, test: &F)
where
    F: Fn(Machine) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    let netns = NetNs::anonymous().unwrap();
    netns.run(|| block_on(test(machine))).unwrap();
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A machine whose plain `iptables` is of one variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) variant: IptablesVariant,
    pub(crate) nat: NatVariant,
}

impl Machine {
    pub(crate) fn dataplane(self) -> IptablesDataplane {
        let cidr = |text: &str| text.parse().unwrap();
        self.dataplane_for(&IptablesConfig {
            detect_local: DetectLocal::ClusterCidr(vec![
                cidr("10.244.0.0/16"),
                cidr("fd00:10:244::/56"),
            ]),
            ..IptablesConfig::default()
        })
    }

    pub(crate) fn dataplane_for(self, config: &IptablesConfig) -> IptablesDataplane {
        let config = IptablesConfig {
            nat_variant: self.nat,
            ..config.clone()
        };
        IptablesDataplane::new(&config, &self.capabilities())
    }

    fn capabilities(self) -> Capabilities {
        let program = IptablesProgram {
            version: "1.8.9".into(),
            variant: self.variant,
        };
        Capabilities {
            kernel: (6, 1),
            iptables: Some(program.clone()),
            ip6tables: Some(program),
            ..Capabilities::default()
        }
    }

    /// A data plane that has `desired` in the kernel.
    pub(crate) async fn with(self, desired: &Desired) -> IptablesDataplane {
        self.bring_up(self.dataplane(), desired).await
    }

    /// The same for a data plane with settings of its own.
    pub(crate) async fn bring_up(
        self,
        mut dataplane: IptablesDataplane,
        desired: &Desired,
    ) -> IptablesDataplane {
        dataplane.observe().await.unwrap();
        dataplane.rehearse().await.unwrap();
        let plan = dataplane.plan(desired, &Change::Full);
        let text = plan.to_string();
        if let Err(error) = dataplane.apply(plan).await {
            panic!("{error}\n{text}");
        }
        dataplane
    }

    /// Which variant has our rules of a table.
    pub(crate) fn variant_of(self, table: &str) -> IptablesVariant {
        match (self.nat, table) {
            (NatVariant::Auto | NatVariant::Nft, "nat") => IptablesVariant::NfTables,
            _ => self.variant,
        }
    }

    pub(crate) fn is_split(self) -> bool {
        self.variant_of("nat") != self.variant
    }

    /// The node's own program.
    pub(crate) fn name(self, family: Family) -> &'static str {
        program(family, self.variant)
    }

    /// The rules of a family, without what differs from run to run.
    pub(crate) fn saved(self, family: Family) -> Vec<String> {
        let own = saved(family, self.variant);
        if self.is_split() {
            [own, saved(family, self.variant_of("nat"))].concat()
        } else {
            own
        }
    }

    pub(crate) fn iptables(self, args: &str) {
        self.iptables_of(Family::V4, args);
    }

    /// The program that has our rules of the table.
    pub(crate) fn iptables_of(self, family: Family, args: &str) {
        let args: Vec<_> = args.split(' ').collect();
        let table = args.iter().skip_while(|word| **word != "-t").nth(1);
        let variant = self.variant_of(table.unwrap());
        run(program(family, variant), &args, "");
    }

    /// By the node's own program.
    pub(crate) fn restore(self, family: Family, text: &str) {
        let program = format!("{}-restore", self.name(family));
        run(&program, &["--noflush"], text);
    }
}

pub(crate) fn program(family: Family, variant: IptablesVariant) -> &'static str {
    match (family, variant) {
        (Family::V4, IptablesVariant::NfTables) => "iptables-nft",
        (Family::V4, IptablesVariant::Legacy) => "iptables-legacy",
        (Family::V6, IptablesVariant::NfTables) => "ip6tables-nft",
        (Family::V6, IptablesVariant::Legacy) => "ip6tables-legacy",
    }
}

fn saved(family: Family, variant: IptablesVariant) -> Vec<String> {
    let text = run(&format!("{}-save", program(family, variant)), &[], "");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or(line).to_owned())
        .collect()
}

/// What a program says to this input, and whether it succeeds.
pub(crate) fn output(program: &str, args: &[&str], stdin: &str) -> std::process::Output {
    let mut child = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn run(program: &str, args: &[&str], stdin: &str) -> String {
    let output = output(program, args, stdin);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One Service of both families with TCP port 80 → 8080 and node port 30080, and one endpoint for each of `hosts`.
pub(crate) fn service_with(hosts: &[u8]) -> Desired {
    let mut inputs = Inputs::default();
    for event in service_events("web", 10, hosts) {
        inputs.apply(event);
    }
    for event in service_events("other", 11, &[9]) {
        inputs.apply(event);
    }
    derive_all(&inputs, &testing::settings()).0
}

pub(crate) fn service_events(name: &str, last: u8, hosts: &[u8]) -> [InputEvent; 3] {
    let cluster_ips = vec![
        IpAddr::from([10, 96, 0, last]),
        IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(last)]),
    ];
    let port = ServicePort {
        node_port: Some(30_070 + u16::from(last)),
        ..plain::port("", Protocol::Tcp, 80)
    };
    let service = plain::service(name, cluster_ips, vec![port]);
    let slice = |family, suffix: &str| {
        let endpoint = |host: &u8| plain::endpoint(pod(family, *host), "rs", Some(testing::NODE));
        let endpoints = hosts.iter().map(endpoint).collect();
        let target = plain::target("", Protocol::Tcp, 8080);
        let slice = plain::slice(&format!("{name}-{suffix}"), name, family, target, endpoints);
        InputEvent::Slice(slice.key.clone(), Some(slice))
    };
    [
        InputEvent::Service(service.key.clone(), Some(service)),
        slice(Family::V4, "v4"),
        slice(Family::V6, "v6"),
    ]
}

pub(crate) fn pod(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 244, 1, host]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host)]),
    }
}

pub(crate) fn web() -> Change {
    Change::Services(BTreeSet::from([ObjectKey::new("default", "web")]))
}
