//! What mode ebpf meets on a node besides the programs' needs: none of it is an error, all of it is told by `check`.

use std::path::Path;

use aya::util::KernelVersion;
use seaway_kernel::route::TABLE_MAIN;
use seaway_kernel::{Link, Netlink, Route, RouteFilter, RouteKind, sysctl};
use seaway_model::DetectLocal;

use super::error::EbpfError;
use super::node::{self, NodeView};

/// Where the kernel describes its own types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Settings of a machine as far as they concern programs; `None` for what it does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    /// `net.core.bpf_jit_enable`.
    jit: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    unprivileged: Option<String>,
    /// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.
    forwarding: [Option<String>; 2],
    tcx: bool,
    btf: bool,
}

impl Settings {
    fn read() -> Self {
        let get = |key: &str| sysctl::read(key).ok();
        Self {
            jit: get("net.core.bpf_jit_enable"),
            unprivileged: get("kernel.unprivileged_bpf_disabled"),
            forwarding: [
                get("net.ipv4.ip_forward"),
                get("net.ipv6.conf.all.forwarding"),
            ],
            tcx: has_tcx(),
            btf: Path::new(KERNEL_BTF).exists(),
        }
    }

    /// What they mean.
    fn remarks(&self) -> Vec<String> {
        let is_zero = |value: &Option<String>| value.as_deref() == Some("0");
        let mut lines = Vec::new();
        if is_zero(&self.jit) {
            lines.push(
                "net.core.bpf_jit_enable is 0: programs are interpreted, which costs every packet several times as much; \
                 set it to 1"
                    .to_owned(),
            );
        }
        if is_zero(&self.unprivileged) {
            lines.push(
                "kernel.unprivileged_bpf_disabled is 0: every user may load programs; nothing here needs that, 2 forbids it"
                    .to_owned(),
            );
        }
        for (key, value) in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
            .iter()
            .zip(&self.forwarding)
        {
            if is_zero(value) {
                lines.push(format!(
                    "{key} is 0: packets to endpoints are not forwarded in this family; set it to 1"
                ));
            }
        }
        lines.push(
            match self.tcx {
                true => "programs are attached to links through tcx",
                false => {
                    "programs are attached to links by filters at clsact: tcx needs Linux 6.6. Whoever deletes the qdisc \
                     deletes them as well"
                }
            }
            .to_owned(),
        );
        if !self.btf {
            lines.push(format!(
                "{KERNEL_BTF} is not there; the programs do without"
            ));
        }
        lines
    }
}

/// Whether the kernel has tcx (Linux 6.6).
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// What is worth knowing of this node before mode ebpf runs there; one line each.
///
/// # Errors
///
/// If links and routes cannot be read.
pub async fn remarks() -> Result<Vec<String>, EbpfError> {
    let mut lines = Settings::read().remarks();
    let netlink = Netlink::new()?;
    // Which addresses are those of pods only `run` is told; links of pods are known without, but where they share one.
    let view = node::read(&netlink, &DetectLocal::None).await?;
    let routes = netlink
        .routes(RouteFilter {
            table: Some(TABLE_MAIN),
            ..RouteFilter::default()
        })
        .await?;
    lines.extend(unseen(&netlink.links().await?, &routes, &view));
    Ok(lines)
}

/// `RTPROT_KERNEL`: such a route follows from an address of the node.
const BY_KERNEL: u8 = 2;

/// The routes that lead to links without a program: if pods are there, only their sockets are served.
fn unseen(links: &[Link], routes: &[Route], view: &NodeView) -> Vec<String> {
    let leading = routes.iter().filter(|route| {
        route.kind == RouteKind::Unicast
            && route.protocol != BY_KERNEL
            && route.destination.prefix() > 0
    });
    let lines = leading.filter_map(|route| {
        let link = links.iter().find(|link| Some(link.index) == route.link)?;
        let covered = view.links.contains_key(&link.index) || link.name == "lo";
        (!covered).then(|| {
            format!(
                "route {} leads to link {}, which gets no program unless --cluster-cidr covers that route: packets that \
                 pods behind it send to Services are not translated there, their sockets are",
                route.destination, link.name
            )
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use seaway_kernel::NetNs;

    use super::*;

    #[test]
    fn what_is_as_it_should_be_is_not_mentioned() {
        let one = || Some("1".to_owned());
        let good = Settings {
            jit: one(),
            unprivileged: Some("2".to_owned()),
            forwarding: [one(), one()],
            tcx: true,
            btf: true,
        };
        assert_eq!(
            good.remarks(),
            ["programs are attached to links through tcx"]
        );
        let zero = || Some("0".to_owned());
        let bad = Settings {
            jit: zero(),
            unprivileged: zero(),
            forwarding: [zero(), None],
            tcx: false,
            btf: false,
        };
        let lines = bad.remarks();
        for (line, part) in lines.iter().zip([
            "interpreted",
            "every user",
            "net.ipv4.ip_forward is 0",
            "Linux 6.6",
            KERNEL_BTF,
        ]) {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(lines.len(), 5, "a family that is not there is no problem");
    }

    struct Remove(String);

    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = NetNs::delete(&self.0);
        }
    }

    /// In a namespace of its own: a pod's link that routes tell, and one that they do not.
    #[tokio::test]
    async fn a_route_to_a_link_without_a_program_is_named() {
        let name = format!("swenv{}", std::process::id());
        let netns = NetNs::create(&name).expect("a namespace");
        let _gone_in_the_end = Remove(name.clone());
        let batch = "link add pod0 type veth peer name peer0
             link add odd0 type bridge
             link set pod0 up
             link set peer0 up
             link set odd0 up
             route add 10.9.0.1/32 dev pod0
             route add 10.9.0.2/32 dev odd0";
        for line in batch.lines() {
            let done = std::process::Command::new("ip")
                .args(["-n", &name])
                .args(line.split_whitespace())
                .status();
            assert!(done.is_ok_and(|status| status.success()), "ip {line}");
        }
        let netlink = Netlink::in_namespace(&netns).expect("a socket");
        let routes = netlink
            .routes(RouteFilter {
                table: Some(TABLE_MAIN),
                ..RouteFilter::default()
            })
            .await
            .expect("routes");
        let view = node::read(&netlink, &DetectLocal::None)
            .await
            .expect("a view");
        let lines = unseen(&netlink.links().await.expect("links"), &routes, &view);
        let [line] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert!(
            line.starts_with("route 10.9.0.2/32 leads to link odd0"),
            "{line}"
        );
    }
}
