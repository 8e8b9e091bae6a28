//! Kernel settings under `/proc/sys`. Those under `net` are the calling thread's network namespace's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where proc(5) is mounted, and settings can be written: for a container without all privileges that is not its own `/proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    procfs: PathBuf,
}

impl Default for Sysctl {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Sysctl {
    /// The settings below `sys` of this mount.
    pub fn at(procfs: impl Into<PathBuf>) -> Self {
        let procfs = procfs.into();
        Self { procfs }
    }

    /// Reads a setting, without the final newline.
    ///
    /// Keys are written as sysctl(8) takes them: `net.ipv4.ip_forward`; where a part itself holds a dot, either swap the
    /// two signs (`net.ipv4.conf.seaway/vxlan.rp_filter`) or use the path form (`net/ipv4/conf/seaway.vxlan/rp_filter`).
    pub fn read(&self, key: &str) -> Result<String, Error> {
        let text = fs::read_to_string(self.path(key)?)
            .map_err(|e| Error::io("read", format!("sysctl {key}"), e))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes a setting unless it has that value already; answers whether it was changed.
    pub fn write(&self, key: &str, value: &str) -> Result<bool, Error> {
        if self.read(key)? == value {
            return Ok(false);
        }
        fs::write(self.path(key)?, value)
            .map_err(|e| Error::io("write", format!("sysctl {key} = {value}"), e))?;
        Ok(true)
    }

    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        Ok(self.procfs.join("sys").join(relative(key)?))
    }
}

/// [`Sysctl::read`] below `/proc`.
pub fn read(key: &str) -> Result<String, Error> {
    Sysctl::default().read(key)
}

/// [`Sysctl::write`] below `/proc`.
pub fn write(key: &str, value: &str) -> Result<bool, Error> {
    Sysctl::default().write(key, value)
}

fn relative(key: &str) -> Result<String, Error> {
    let relative = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    };
    let escapes = Path::new(&relative).is_absolute() || relative.split('/').any(|p| p == "..");
    if relative.is_empty() || escapes {
        return Err(Error::Invalid {
            object: format!("sysctl {key:?}"),
            reason: "it must name a setting under /proc/sys".into(),
        });
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths_as_sysctl_does_it() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.seaway/vxlan.rp_filter",
                "net/ipv4/conf/seaway.vxlan/rp_filter",
            ),
            (
                "net/ipv4/conf/seaway.vxlan/rp_filter",
                "net/ipv4/conf/seaway.vxlan/rp_filter",
            ),
        ] {
            let path = Path::new("/proc/sys").join(expected);
            assert_eq!(Sysctl::default().path(key).unwrap(), path);
            let path = Path::new("/host/proc/sys").join(expected);
            assert_eq!(Sysctl::at("/host/proc").path(key).unwrap(), path);
        }
        assert!(relative("net/../../etc/passwd").is_err());
        assert!(relative("/etc/passwd").is_err());
    }

    #[test]
    fn an_unknown_setting_is_named_in_the_error() {
        let error = read("net.ipv4.no_such_thing").unwrap_err();
        assert!(error.is_absent());
        assert!(
            error
                .to_string()
                .starts_with("cannot read sysctl net.ipv4.no_such_thing: No such file")
        );
    }
}
