//! `seaway server` as a process of its own, beside what is measured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use seaway_kernel::{NetNs, Spawn};
use seaway_lab::eventually;

use super::one_node::wiring::tail;

/// For the server to come up.
const LIMIT: Duration = Duration::from_secs(30);

/// Killed when dropped.
#[derive(Debug)]
pub struct Server(Child);

/// Where a server has its files, and from where it is to be reached besides.
#[derive(Debug)]
pub struct Home<'a> {
    pub files: &'a Path,
    /// A named one.
    pub netns: &'a NetNs,
    /// Ours, if there is none.
    pub cgroup: Option<PathBuf>,
}

impl Server {
    /// Starts it here, with these flags besides; it listens in that namespace, too, on the same address and port, so that one
    /// kubeconfig serves in both. Answers with the kubeconfig of its administrator.
    ///
    /// # Errors
    ///
    /// If it ends, or has not written its certificates within half a minute.
    pub async fn start(home: Home<'_>, flags: &[String]) -> Result<(Self, PathBuf)> {
        let data = home.files.join("server");
        let log = home.files.join("server.log");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let netns = home.netns.path().context("the namespace has a name")?;
        let mut spawn = Spawn::new(seaway_lab::topology::binaries()?.join("seaway"))
            .arg("server")
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen={address}"))
            .arg(format!("--listen={address}@{}", netns.display()))
            .arg(format!("--advertise-address={address}"))
            .args(flags)
            .env("RUST_LOG", "warn")
            .stdout(&log)
            .stderr(&log);
        if let Some(cgroup) = home.cgroup {
            spawn = spawn.cgroup(cgroup);
        }
        let mut server = Self(spawn.start()?);
        let kubeconfig = data.join("admin.kubeconfig");
        eventually(
            "the API server's certificates",
            LIMIT,
            async || match server.0.try_wait() {
                Ok(None) if kubeconfig.exists() => Ok(Ok(())),
                Ok(None) => Err("not there yet"),
                ended => Ok(Err(anyhow!(
                    "the API server ended ({ended:?}):\n{}",
                    tail(&log)
                ))),
            },
        )
        .await??;
        Ok((server, kubeconfig))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How to reach the server of a kubeconfig.
///
/// # Errors
///
/// If the file cannot be read, or is none.
pub async fn config(kubeconfig: &Path) -> Result<Config> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)
}

/// Of the machine's loopback; that of the node's is as good as empty.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
