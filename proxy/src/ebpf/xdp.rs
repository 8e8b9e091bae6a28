//! Attaching at the driver of uplinks (XDP), by links that are pinned like those of [`super::links`]. The classifiers stay
//! attached behind: XDP takes from them what it can and passes the rest.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nix::libc;
use seaway_ebpf_abi::maps::XDP_LINKS;
use seaway_ebpf_abi::programs::XDP_UPLINK;
use seaway_kernel::netdev;

use super::bpffs;
use super::error::EbpfError;
use super::links::{existing, remove};
use super::node::{NodeLink, Role};
use super::objects::Programs;
use super::sys::{self, LinkTarget};
use super::table::Table;

/// Whether packets are translated at the driver (`--xdp`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum XdpMode {
    /// Nowhere: everything is translated at tc.
    #[default]
    Off,
    /// At uplinks that are hardware and whose driver can; elsewhere at tc, and the log says why.
    Auto,
    /// At every uplink, and an error where the driver cannot.
    Native,
    /// At every uplink by the kernel's own hook, whatever the driver. Slower than tc: to try things out.
    Generic,
}

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

impl XdpMode {
    /// How to attach, and the end of the pin's name: a link cannot change from one to the other.
    fn hook(self) -> Option<(u32, &'static str)> {
        match self {
            Self::Off => None,
            Self::Auto | Self::Native => Some((NATIVE, "native")),
            Self::Generic => Some((GENERIC, "generic")),
        }
    }

    fn pin(self, dir: &Path, index: u32) -> Option<PathBuf> {
        let (_, suffix) = self.hook()?;
        Some(dir.join(format!("{PREFIX}{index}_{suffix}")))
    }
}

/// Of the pins' names.
const PREFIX: &str = "xdp_";

/// Attaches to an uplink of the calling thread's namespace, or puts the program behind the link that is there.
pub(super) fn attach(
    dir: &Path,
    mode: XdpMode,
    programs: &Programs,
    index: u32,
    link: &NodeLink,
) -> Result<(), EbpfError> {
    let (Some((flags, _)), Some(pin)) = (mode.hook(), mode.pin(dir, index)) else {
        return Ok(());
    };
    if link.role != Role::Uplink || link.bare || (mode == XdpMode::Auto && !is_hardware(&link.name))
    {
        return Ok(());
    }
    let program = programs.fd(XDP_UPLINK)?;
    if let Some((pinned, info)) = existing(&pin)? {
        // A link whose device is gone, with whatever namespace it was in, has no target and takes no program.
        if info.target == LinkTarget::Interface(index)
            && sys::link_update(pinned.as_fd(), program).is_ok()
        {
            return admit(dir, mode, index);
        }
        remove(&pin, &pinned)?;
    }
    match sys::link_create_xdp(program, index, flags) {
        Ok(created) => {
            sys::pin(created.as_fd(), &pin).map_err(|e| EbpfError::file("pin", &pin, e))?;
            admit(dir, mode, index)
        }
        Err(error) if mode == XdpMode::Auto => {
            tracing::info!(link = %link.name, reason = reason(&error), "no XDP: translated at tc");
            Ok(())
        }
        Err(error) => Err(EbpfError::Xdp {
            link: link.name.clone(),
            reason: reason(&error),
        }),
    }
}

/// The map of links that send what XDP redirects to them. Pins of links are below those of maps. The values are `struct bpf_devmap_val`:
/// an index, and no program.
fn senders(dir: &Path) -> Result<Option<Table<u32, u64>>, EbpfError> {
    match dir.parent() {
        Some(maps) => Table::open(maps, XDP_LINKS),
        None => Ok(None),
    }
}

/// Has packets of other uplinks leave by this one at the driver, if its driver can. It can say so only once it has a
/// program: many set up queues for it then.
fn admit(dir: &Path, mode: XdpMode, index: u32) -> Result<(), EbpfError> {
    if mode == XdpMode::Generic {
        return Ok(());
    }
    let takes = netdev::takes_frames(index).unwrap_or_else(|error| {
        tracing::warn!(%error, "packets to this link are sent at tc");
        false
    });
    let Some(senders) = senders(dir)? else {
        return Ok(());
    };
    if !takes {
        return senders.delete(&index);
    }
    let [a, b, c, d] = index.to_ne_bytes();
    senders.set(&index, &u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]))
}

/// Why a link does not take the program.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "its driver has no XDP".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is attached there".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether a link is a device and not made of software alone. Packets that come over a veth may have no checksums yet,
/// which XDP cannot tell.
fn is_hardware(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("device")
        .exists()
}

/// Lets go of links that are no uplinks any more, and of all in another mode.
pub(super) fn retain(
    dir: &Path,
    mode: XdpMode,
    wanted: &BTreeMap<u32, NodeLink>,
) -> Result<(), EbpfError> {
    let names = bpffs::list(dir)?;
    for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
        let pin = dir.join(name);
        let uplinks = wanted.iter().filter(|(_, link)| link.role == Role::Uplink);
        let stays = uplinks
            .filter_map(|(index, _)| mode.pin(dir, *index))
            .any(|wanted| wanted == pin);
        if !stays && let Some((link, _)) = existing(&pin)? {
            // First, as its driver may have no queues for frames after it.
            if let (Some(index), Some(senders)) = (index_of(name), senders(dir)?) {
                senders.delete(&index)?;
            }
            remove(&pin, &link)?;
        }
    }
    Ok(())
}

/// The index of the link that a pin is of.
fn index_of(name: &str) -> Option<u32> {
    let (index, _) = name.strip_prefix(PREFIX)?.split_once('_')?;
    index.parse().ok()
}

/// The name of an uplink whose program was detached by somebody else.
pub(super) fn lost(
    dir: &Path,
    mode: XdpMode,
    attached: &BTreeMap<u32, NodeLink>,
) -> Result<Option<String>, EbpfError> {
    if mode == XdpMode::Off {
        return Ok(None);
    }
    for (index, link) in attached.iter().filter(|(_, l)| l.role == Role::Uplink) {
        let Some(pin) = mode.pin(dir, *index) else {
            continue;
        };
        let there = match existing(&pin)? {
            Some((_, info)) => info.target == LinkTarget::Interface(*index),
            // Where the driver cannot there is none.
            None => mode == XdpMode::Auto,
        };
        if !there {
            return Ok(Some(format!("{XDP_UPLINK} at {}", link.name)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_one_link_differ_by_how_it_was_attached() {
        let dir = Path::new("/pins");
        let pin = |mode: XdpMode| mode.pin(dir, 2);
        assert_eq!(pin(XdpMode::Off), None);
        assert_eq!(pin(XdpMode::Native), Some("/pins/xdp_2_native".into()));
        assert_eq!(pin(XdpMode::Auto), pin(XdpMode::Native));
        assert_ne!(pin(XdpMode::Generic), pin(XdpMode::Native));
        assert_eq!(index_of("xdp_2_native"), Some(2));
        assert_eq!((index_of("xdp_2"), index_of("tc_2_in")), (None, None));
    }

    #[test]
    fn reasons_are_words_where_the_number_is_known() {
        let of = |code| reason(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EOPNOTSUPP), "its driver has no XDP");
        assert_eq!(of(libc::EBUSY), "another XDP program is attached there");
        assert!(of(libc::ENOMEM).contains("memory"));
    }
}
