//! Kernel settings under `/proc/sys`. Those under `net` are the calling thread's network namespace's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Reads a setting, without the final newline.
///
/// Keys are written as sysctl(8) takes them: `net.ipv4.ip_forward`; where a part itself holds a dot, either swap the
/// two signs (`net.ipv4.conf.seaway/vxlan.rp_filter`) or use the path form (`net/ipv4/conf/seaway.vxlan/rp_filter`).
pub fn read(key: &str) -> Result<String, Error> {
    let text = fs::read_to_string(path(key)?)
        .map_err(|e| Error::io("read", format!("sysctl {key}"), e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting unless it has that value already; answers whether it was changed.
pub fn write(key: &str, value: &str) -> Result<bool, Error> {
    if read(key)? == value {
        return Ok(false);
    }
    fs::write(path(key)?, value)
        .map_err(|e| Error::io("write", format!("sysctl {key} = {value}"), e))?;
    Ok(true)
}

fn path(key: &str) -> Result<PathBuf, Error> {
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
    if relative.is_empty() || relative.starts_with('/') || relative.split('/').any(|p| p == "..") {
        return Err(Error::Invalid {
            object: format!("sysctl {key:?}"),
            reason: "it must name a setting under /proc/sys".into(),
        });
    }
    Ok(Path::new("/proc/sys").join(relative))
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
            assert_eq!(path(key).unwrap(), Path::new("/proc/sys").join(expected));
        }
        assert!(path("net/../../etc/passwd").is_err());
        assert!(path("/etc/passwd").is_err());
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
