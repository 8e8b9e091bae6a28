//! Attaching: the socket hooks to a cgroup, the classifiers to links; through links that are pinned, so that all goes on
//! when this process is gone, and the next one puts its programs behind the same links without a gap.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seaway_ebpf_abi::programs;
use seaway_kernel::NetNs;

use super::bpffs;
use super::error::EbpfError;
use super::filters;
use super::node::{NodeLink, Role};
use super::objects::Programs;
use super::sys::{self, AttachType, LinkTarget};
use super::xdp::{self, XdpMode};

/// Where the programs are attached.
#[derive(Debug)]
pub(super) struct Attachments {
    dir: PathBuf,
    /// Links, or filters where the kernel has no tcx.
    tcx: bool,
    xdp: XdpMode,
    attached: BTreeMap<u32, NodeLink>,
}

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Before what is at ingress.
    First,
    Ingress,
    Egress,
}

impl Direction {
    fn attach_type(self) -> AttachType {
        match self {
            Self::First | Self::Ingress => AttachType::TcxIngress,
            Self::Egress => AttachType::TcxEgress,
        }
    }

    /// `BPF_F_BEFORE`, which without another program means all.
    fn flags(self) -> u32 {
        match self {
            Self::First => 1 << 3,
            Self::Ingress | Self::Egress => 0,
        }
    }

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Ingress => "in",
            Self::Egress => "out",
        }
    }
}

/// The programs of a link, in the order in which they are attached: as with [`attach_order`], what translates answers
/// comes before what translates requests.
pub(super) fn programs_of(link: &NodeLink) -> Vec<(Direction, &'static str)> {
    let ingress = match link.role {
        Role::Pod => programs::FROM_POD,
        Role::Uplink | Role::Overlay => programs::FROM_UPLINK,
    };
    let ours = (Direction::Ingress, ingress);
    if link.bare {
        let (first, egress) = (programs::FROM_BARE, programs::TO_BARE);
        return vec![(Direction::Egress, egress), (Direction::First, first), ours];
    }
    vec![(Direction::Egress, programs::TO_LINK), ours]
}

/// Uplinks last. A request that they translate is answered through a link of another role, and the answer would leave
/// with the address of the endpoint, which the client has not asked.
pub(super) fn attach_order(links: &BTreeMap<u32, NodeLink>) -> Vec<(u32, &NodeLink)> {
    let mut order: Vec<_> = links.iter().map(|(index, link)| (*index, link)).collect();
    order.sort_by_key(|(_, link)| link.role == Role::Uplink);
    order
}

/// The hook that a socket program belongs to.
fn socket_hook(program: &str) -> Option<AttachType> {
    Some(match program {
        "sock_connect4" => AttachType::Inet4Connect,
        "sock_sendmsg4" => AttachType::Udp4Sendmsg,
        "sock_recvmsg4" => AttachType::Udp4Recvmsg,
        "sock_getpeername4" => AttachType::Inet4Getpeername,
        "sock_connect6" => AttachType::Inet6Connect,
        "sock_sendmsg6" => AttachType::Udp6Sendmsg,
        "sock_recvmsg6" => AttachType::Udp6Recvmsg,
        "sock_getpeername6" => AttachType::Inet6Getpeername,
        _ => return None,
    })
}

impl Attachments {
    pub(super) fn new(dir: PathBuf, tcx: bool, xdp: XdpMode) -> Self {
        Self {
            dir,
            tcx,
            xdp,
            attached: BTreeMap::new(),
        }
    }

    /// Attaches the socket hooks.
    pub(super) fn attach_cgroup(
        &self,
        programs: &Programs,
        cgroup: &Path,
    ) -> Result<(), EbpfError> {
        let dir = File::open(cgroup).map_err(|e| EbpfError::file("open", cgroup, e))?;
        let id = dir
            .metadata()
            .map_err(|e| EbpfError::file("open", cgroup, e))?
            .ino();
        for name in programs::SOCKET {
            let hook = socket_hook(name).ok_or_else(|| EbpfError::Load {
                object: format!("program {name}"),
                reason: "no hook is known for it".to_owned(),
            })?;
            let pin = self.dir.join(format!("cgroup_{name}"));
            let program = programs.fd(name)?;
            if let Some((link, info)) = existing(&pin)? {
                // A cgroup's id is the inode of its directory.
                if info.target == LinkTarget::Cgroup(id)
                    && sys::link_update(link.as_fd(), program).is_ok()
                {
                    continue;
                }
                remove(&pin, &link)?;
            }
            let target = sys::cgroup_target(&dir);
            let object = || format!("{name} to cgroup {}", cgroup.display());
            let link = sys::link_create(program, target, hook, 0)
                .map_err(|error| EbpfError::io("attach", object(), error))?;
            sys::pin(link.as_fd(), &pin).map_err(|e| EbpfError::file("pin", &pin, e))?;
        }
        Ok(())
    }

    /// Attaches to a link what its role asks for. The link is looked up in the calling thread's namespace.
    pub(super) fn attach(
        &mut self,
        programs: &mut Programs,
        index: u32,
        link: &NodeLink,
    ) -> Result<(), EbpfError> {
        for (direction, name) in programs_of(link) {
            if self.tcx {
                self.attach_tcx(programs, index, link, direction, name)?;
            } else {
                filters::attach(&self.dir, programs, index, link, direction, name)?;
            }
        }
        // It finds flows that the classifiers have opened.
        xdp::attach(&self.dir, self.xdp, programs, index, link)?;
        self.attached.insert(index, link.clone());
        Ok(())
    }

    fn attach_tcx(
        &self,
        programs: &Programs,
        index: u32,
        link: &NodeLink,
        direction: Direction,
        name: &str,
    ) -> Result<(), EbpfError> {
        let failed =
            |error| EbpfError::io("attach", format!("{name} to link {}", link.name), error);
        let pin = self.dir.join(format!("tc_{index}_{}", direction.suffix()));
        let program = programs.fd(name)?;
        if let Some((pinned, info)) = existing(&pin)? {
            // The index alone does not tell: it may be a link of a namespace that is long gone.
            let here = sys::tcx_links(index, direction.attach_type()).map_err(failed)?;
            if info.target == LinkTarget::Interface(index)
                && here.contains(&info.id)
                && sys::link_update(pinned.as_fd(), program).is_ok()
            {
                return Ok(());
            }
            remove(&pin, &pinned)?;
        }
        let created = sys::link_create(program, index, direction.attach_type(), direction.flags())
            .map_err(failed)?;
        sys::pin(created.as_fd(), &pin).map_err(|e| EbpfError::file("pin", &pin, e))
    }

    /// What is attached, by index of the link.
    pub(super) fn attached(&self) -> &BTreeMap<u32, NodeLink> {
        &self.attached
    }

    /// Lets go of links that are gone or have another role now.
    pub(super) fn retain(&mut self, wanted: &BTreeMap<u32, NodeLink>) -> Result<(), EbpfError> {
        self.attached.retain(|index, link| {
            wanted
                .get(index)
                .is_some_and(|w| (w.role, w.bare) == (link.role, link.bare))
        });
        xdp::retain(&self.dir, self.xdp, wanted)?;
        for name in bpffs::list(&self.dir)? {
            let Some((index, suffix)) = name
                .strip_prefix("tc_")
                .and_then(|rest| rest.split_once('_'))
            else {
                continue;
            };
            let stays = index
                .parse()
                .ok()
                .and_then(|index: u32| wanted.get(&index))
                .is_some_and(|link| {
                    programs_of(link)
                        .iter()
                        .any(|(direction, _)| direction.suffix() == suffix)
                });
            if !stays {
                let pin = self.dir.join(&name);
                if let Some((link, _)) = existing(&pin)? {
                    remove(&pin, &link)?;
                }
            }
        }
        Ok(())
    }

    /// Whether everything is still attached as we left it, in that namespace; the name of what is not.
    pub(super) fn lost(&self, netns: &NetNs) -> Result<Option<String>, EbpfError> {
        for name in programs::SOCKET {
            match existing(&self.dir.join(format!("cgroup_{name}")))? {
                Some((_, info)) if info.target != LinkTarget::Cgroup(0) => {}
                _ => return Ok(Some(name.to_owned())),
            }
        }
        if let Some(lost) = xdp::lost(&self.dir, self.xdp, &self.attached)? {
            return Ok(Some(lost));
        }
        let filters = match self.tcx {
            true => Vec::new(),
            false => filters::attached(netns)?,
        };
        for (index, link) in &self.attached {
            for (direction, name) in programs_of(link) {
                let is_there = match self.tcx {
                    true => {
                        let pin = self.dir.join(format!("tc_{index}_{}", direction.suffix()));
                        let found = existing(&pin)?;
                        found.is_some_and(|(_, info)| info.target == LinkTarget::Interface(*index))
                    }
                    false => filters::has(&filters, *index, direction, name),
                };
                if !is_there {
                    return Ok(Some(format!("{name} at {}", link.name)));
                }
            }
        }
        Ok(None)
    }
}

/// The link pinned at a path.
pub(super) fn existing(pin: &Path) -> Result<Option<(OwnedFd, sys::LinkInfo)>, EbpfError> {
    match sys::open_pin(pin) {
        Ok(fd) => {
            let info = sys::link_info(fd.as_fd())
                .map_err(|error| EbpfError::file("read link", pin, error))?;
            Ok(Some((fd, info)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EbpfError::file("open", pin, error)),
    }
}

/// Detaches a link and removes its pin.
pub(super) fn remove(pin: &Path, link: &OwnedFd) -> Result<(), EbpfError> {
    // A link whose target is gone is detached already (ENOLINK); the last reference ends it in any case.
    let _ = sys::link_detach(link.as_fd());
    fs::remove_file(pin).map_err(|error| EbpfError::file("remove", pin, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_translates_answers_is_attached_first() {
        let link = |name: &str, role| NodeLink {
            name: name.to_owned(),
            role,
            bare: false,
        };
        let links = BTreeMap::from([
            (2, link("eth0", Role::Uplink)),
            (3, link("seaway.vxlan", Role::Overlay)),
            (4, link("sw00000000001", Role::Pod)),
            (5, link("eth1", Role::Uplink)),
        ]);
        let order: Vec<u32> = attach_order(&links)
            .iter()
            .map(|(index, _)| *index)
            .collect();
        assert_eq!(order, [3, 4, 2, 5]);
        for role in [Role::Pod, Role::Uplink, Role::Overlay] {
            let plain = link("a", role);
            let bare = NodeLink {
                bare: true,
                ..plain.clone()
            };
            assert_eq!(
                programs_of(&plain)[0],
                (Direction::Egress, programs::TO_LINK)
            );
            assert_eq!(
                programs_of(&bare)[..2],
                [
                    (Direction::Egress, programs::TO_BARE),
                    (Direction::First, programs::FROM_BARE)
                ]
            );
            assert_eq!(programs_of(&bare)[2], programs_of(&plain)[1]);
        }
    }
}
