//! What a container runtime gives the CNI plugin: variables, and a config on standard input.

use seaway_cni::attachment::{Attachment, Style};
use seaway_cni::bandwidth::Shaping;
use seaway_cni::ipam::{Assigned, of_config};
use seaway_cni::plan;
use seaway_cni::ports::{Tag, Wanted};
use seaway_cni::protocol::{
    AddResult, Args, Error, Invocation, Ipam, NetworkConfig, OwnerKey, Version,
};

const VARIABLES: [&str; 6] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
];

/// The first lines are the variables, the rest is the config. Whatever they are, each part is taken or refused with a
/// message; what is taken becomes a plan and results that are read back as they were.
pub(crate) fn check(bytes: &[u8]) {
    let mut lines = bytes.splitn(VARIABLES.len() + 1, |byte| *byte == b'\n');
    let values: Vec<_> = VARIABLES
        .iter()
        .map(|name| {
            let value = lines.next().unwrap_or_default();
            (*name, String::from_utf8_lossy(value).into_owned())
        })
        .collect();
    let input = lines.next().unwrap_or_default();
    let get = |name: &str| {
        let found = values.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    };
    let invocation = taken(Invocation::from_env(get));
    let config = match NetworkConfig::parse(input) {
        Ok(config) => config,
        Err((version, error)) => {
            refused(&error, version);
            return;
        }
    };
    check_config(&config, invocation.as_ref());
}

fn check_config(config: &NetworkConfig, invocation: Option<&Invocation>) {
    let owner = OwnerKey {
        container_id: invocation.map_or_else(|| "c".into(), |i| i.container_id.clone()),
        ifname: invocation.map_or_else(|| "eth0".into(), |i| i.ifname.clone()),
    };
    let _ = taken(Args::parse(invocation.map_or("", |i| i.args.as_str())));
    let _ = (
        taken(config.attachments()),
        taken(config.dns()),
        taken(config.mtu()),
    );
    let _ = (taken(config.masquerade()), taken(config.args()));
    if let Some(Some((_, previous))) = taken(config.previous()) {
        check_result(&previous);
    }
    let runtime = taken(config.runtime()).unwrap_or_default();
    if let Some(limits) = taken(config.bandwidth()) {
        let _ = taken(Shaping::new(&owner, limits, runtime.bandwidth));
    }
    let (ranges, routes) = match taken(config.ipam()) {
        Some(Ipam::Ranges { ranges, extras, .. }) => (ranges, extras.routes),
        Some(Ipam::Node(extras)) => (runtime.ip_ranges.clone(), extras.routes),
        _ => (runtime.ip_ranges.clone(), Vec::new()),
    };
    let Some(sets) = taken(of_config(&ranges)) else {
        return;
    };
    let mut assigned = Vec::new();
    for set in &sets {
        let address = set.iter().find_map(|range| range.behind(None).next());
        let range = set
            .iter()
            .find(|range| address.is_some_and(|a| range.contains(a)));
        let (Some(address), Some(range)) = (address, range) else {
            panic!("{set:?} has no address, and was taken");
        };
        assert!(range.subnet.contains(address) && range.gateway != Some(address));
        assigned.push(Assigned {
            address: address.into(),
            gateway: range.gateway,
        });
    }
    for style in [Style::Routed, Style::Ptp] {
        let attachment = Attachment::new(&owner, None, runtime.mac).with(style, &assigned, &routes);
        let _ = plan::add(&attachment);
        check_result(&attachment.result("/run/netns/x", seaway_cni::protocol::Dns::default()));
    }
    let wanted = Wanted {
        mappings: runtime.port_mappings,
        masquerade: true,
        addresses: assigned.iter().map(|one| one.address.ip()).collect(),
    };
    let elements = wanted.elements(&Tag::new(&owner, &config.name));
    assert!(elements.iter().all(|(_, _, e)| e.comment.len() <= 120));
}

/// A result is read back as it was written, in every version that has room for it.
fn check_result(result: &AddResult) {
    for version in Version::ALL {
        let Some(json) = taken(result.to_json(version)) else {
            continue;
        };
        let read = AddResult::parse(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(taken(read.to_json(version)), Some(json));
    }
}

fn taken<T>(answer: Result<T, Error>) -> Option<T> {
    answer.inspect_err(|error| refused(error, None)).ok()
}

fn refused(error: &Error, version: Option<Version>) {
    assert!(!error.message.is_empty());
    assert!(error.to_json(version).get("code").is_some());
}
