//! What this machine can do, asked once at start and then passed down.

use std::path::PathBuf;

use crate::{Command, CommandError, Error, NetNs, Netlink, cgroup};

/// Answers of the machine. Nothing here is guessed from a distribution's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `major.minor` of the running kernel.
    pub kernel: (u32, u32),
    /// `iptables` as found in `PATH`.
    pub iptables: Option<IptablesProgram>,
    /// `ip6tables` as found in `PATH`.
    pub ip6tables: Option<IptablesProgram>,
    /// Mount point of the cgroup2 hierarchy.
    pub cgroup2: Option<PathBuf>,
    /// tc programs through links (tcx, Linux 6.6).
    pub tcx: bool,
    /// VXLAN devices in external mode; false as well where we may not make a namespace to try it in.
    pub vxlan: bool,
}

/// One iptables program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesProgram {
    /// As it reports it: `1.8.9`.
    pub version: String,
    /// Which kernel interface it speaks.
    pub variant: IptablesVariant,
}

/// The two kernel interfaces behind programs of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IptablesVariant {
    Legacy,
    NfTables,
}

impl std::fmt::Display for IptablesVariant {
    /// As `iptables --version` writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::NfTables => "nf_tables",
        })
    }
}

impl Capabilities {
    /// Asks. Needs root; changes nothing (the VXLAN device is tried in a namespace that is thrown away). Must be called
    /// inside a tokio runtime.
    pub async fn probe() -> Result<Self, Error> {
        let kernel = kernel_version()?;
        Ok(Self {
            kernel,
            iptables: iptables("iptables").await?,
            ip6tables: iptables("ip6tables").await?,
            cgroup2: cgroup::mount_point().ok(),
            tcx: kernel >= (6, 6),
            vxlan: vxlan().await?,
        })
    }
}

fn kernel_version() -> Result<(u32, u32), Error> {
    let name = nix::sys::utsname::uname().map_err(|e| Error::io("ask", "kernel version", e))?;
    let release = name.release().to_string_lossy();
    parse_release(&release).ok_or_else(|| Error::Invalid {
        object: format!("kernel release {release:?}"),
        reason: "expected major.minor".into(),
    })
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

async fn iptables(program: &str) -> Result<Option<IptablesProgram>, Error> {
    match Command::new(program).arg("--version").output().await {
        Ok(output) => Ok(parse_iptables(&output.text())),
        Err(CommandError::Missing { .. }) => Ok(None),
        Err(error) => Err(Error::Invalid {
            object: program.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// `iptables v1.8.9 (nf_tables)`; versions before 1.8 name no variant and are legacy.
fn parse_iptables(text: &str) -> Option<IptablesProgram> {
    let version = text.split_whitespace().nth(1)?.strip_prefix('v')?;
    let variant = if text.contains("(nf_tables)") {
        IptablesVariant::NfTables
    } else {
        IptablesVariant::Legacy
    };
    Some(IptablesProgram {
        version: version.to_owned(),
        variant,
    })
}

async fn vxlan() -> Result<bool, Error> {
    let netns = match NetNs::anonymous() {
        Ok(netns) => netns,
        Err(error) if error.errno() == Some(nix::libc::EPERM) => return Ok(false),
        Err(error) => return Err(error),
    };
    let netlink = Netlink::in_namespace(&netns)?;
    let mac = crate::MacAddr([2, 0, 0, 0, 0, 1]);
    Ok(netlink
        .add_vxlan_external("probe", 8472, mac, 1450)
        .await
        .is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        let nft = parse_iptables("iptables v1.8.9 (nf_tables)\n").unwrap();
        assert_eq!(
            (nft.version.as_str(), nft.variant),
            ("1.8.9", IptablesVariant::NfTables)
        );
        let legacy = parse_iptables("ip6tables v1.8.9 (legacy)\n").unwrap();
        assert_eq!(legacy.variant, IptablesVariant::Legacy);
        assert_eq!(parse_iptables("something else"), None);
        assert_eq!(parse_release("6.18.5-cloud"), Some((6, 18)));
        assert_eq!(parse_release("6.1+"), Some((6, 1)));
        assert_eq!(parse_release("x"), None);
    }

    #[tokio::test]
    async fn this_machine_answers() {
        let capabilities = Capabilities::probe().await.unwrap();
        assert!(capabilities.kernel >= (4, 0));
        assert!(capabilities.cgroup2.is_some());
        assert!(capabilities.vxlan);
    }
}
