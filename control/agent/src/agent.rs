//! Everything started and held together.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use crate::config::Config;
use crate::events::Recorder;
use crate::kubeconfig::{self, Identity};
use crate::logs::Registry;
use crate::node::{self, Machine, keep_lease, keep_node};
use crate::pod::task::Context;
use crate::records::{self, Store};
use crate::sandbox::Sandboxes;
use crate::server::{self, Server};
use crate::supervisor;

/// Why an agent cannot start. Once it runs it does not fail: it logs and tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
    #[error(transparent)]
    Client(#[from] seaway_cluster::Error),
    #[error(transparent)]
    Records(#[from] records::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error("the cgroup of pods cannot be made: {0}")]
    Cgroup(seaway_kernel::Error),
    #[error("another agent runs on this node: it holds {}", .0.display())]
    Running(PathBuf),
    #[error("cannot lock {}: {cause}", path.display())]
    Lock {
        path: PathBuf,
        cause: std::io::Error,
    },
}

/// Runs the agent until the future is dropped; Pods go on when it is. Fails only at the start.
pub async fn run(config: Config) -> Result<(), Error> {
    let _lock = lock(&config.run_dir)?;
    let identity = Identity::read(&config.kubeconfig)?;
    let client = seaway_cluster::kube_client(Some(&config.kubeconfig)).await?;
    let store = Store::open(&config.state_dir)?;
    seaway_kernel::cgroup::create(&config.cgroup_root.join("pods")).map_err(Error::Cgroup)?;
    let logs = Registry::default();
    let server = Server::bind(config.bind_address, &identity, logs.clone()).await?;
    let machine = Machine::read();
    let sandboxes = Sandboxes::new(
        config.cni_conf_dir,
        config.cni_bin_dir,
        config.netns_prefix,
        machine.boot_id.clone(),
        config.node_ips.clone(),
    );
    let node = node::Identity {
        name: config.node_name.clone(),
        addresses: config.node_ips.clone(),
        port: config.bind_address.port(),
    };
    info!(node = node.name, address = %config.bind_address, "agent started");
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::start(client.clone(), config.node_name.clone()),
        node_name: config.node_name,
        node_ips: config.node_ips,
        cgroup_root: config.cgroup_root,
        program: config.program,
        store,
        sandboxes: sandboxes.clone(),
        logs,
    });
    tokio::join!(
        server.serve(),
        keep_node(client.clone(), node.clone(), machine, Arc::new(sandboxes)),
        keep_lease(client, node.name),
        supervisor::run(context),
    );
    Ok(())
}

/// Two agents on one state directory would start every Pod twice. The kernel drops the lock with the process.
fn lock(run_dir: &Path) -> Result<File, Error> {
    let path = run_dir.join("agent.lock");
    let file = std::fs::create_dir_all(run_dir)
        .and_then(|()| File::create(&path))
        .map_err(|cause| Error::Lock {
            path: path.clone(),
            cause,
        })?;
    match seaway_kernel::file_lock::take(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Running(path)),
        Err(TryLockError::Error(cause)) => Err(Error::Lock { path, cause }),
    }
}
