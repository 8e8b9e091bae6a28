//! Bringing a lab up, step by step; each step is waited for by what it must lead to.

use std::net::TcpListener;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use seaway_kernel::{Capabilities, Command, NetNs, cgroup, directory};

use crate::daemon::{NodeDirs, server_data, tail};
use crate::health;
use crate::record::Record;
use crate::topology::api_address;
use crate::{Daemon, LabConfig, LabError, LabName, Mode, NodeConfig, down, eventually, underlay};

const SERVER_LIMIT: Duration = Duration::from_secs(30);
const NODE_LIMIT: Duration = Duration::from_secs(60);

/// The programs of ours that a lab starts.
const BINARIES: [&str; 4] = ["seaway", "seaway-proxy", "seaway-overlay", "seaway-cni"];

/// Set to anything, a lab that did not come up is left as it is, to look inside.
const KEEP_FAILED: &str = "SEAWAY_LAB_KEEP_FAILED";

pub(crate) async fn up(config: LabConfig) -> Result<Record, LabError> {
    config.check()?;
    check_machine(&config).await?;
    let record = claim(config)?;
    match bring_up(record.clone()).await {
        Ok(record) => Ok(record),
        Err(error) => {
            let name = record.config.name;
            if std::env::var_os(KEEP_FAILED).is_none() {
                // The first failure is the one to tell; what could not be removed is told by the next `down`.
                let _ = tokio::task::spawn_blocking(move || down::down(&name)).await;
            }
            Err(error)
        }
    }
}

/// Everything that can be known to fail is known before anything is touched.
async fn check_machine(config: &LabConfig) -> Result<(), LabError> {
    let missing = |what: String, remedy: &str| {
        Err(LabError::Missing {
            what,
            remedy: remedy.to_owned(),
        })
    };
    if !nix::unistd::geteuid().is_root() {
        return missing("a lab needs root".into(), "run it with sudo");
    }
    for binary in BINARIES {
        let path = config.binaries.join(binary);
        if !path.is_file() {
            let what = format!("{} is not there", path.display());
            return missing(what, "build it with `cargo build`, or set SEAWAY_BIN_DIR");
        }
    }
    let machine = Capabilities::probe().await?;
    let uses = |mode| config.nodes.iter().any(|node| node.mode == mode);
    if machine.iptables.is_none() {
        return missing(
            "iptables is not installed".into(),
            "apt-get install iptables",
        );
    }
    if machine.cgroup2.is_none() {
        let remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified";
        return missing("no cgroup2 file system is mounted".into(), remedy);
    }
    if !machine.vxlan {
        return missing(
            "this kernel makes no VXLAN device in external mode".into(),
            "it needs CONFIG_VXLAN and Linux 4.3",
        );
    }
    if uses(Mode::Ebpf) && !machine.tcx {
        let (major, minor) = machine.kernel;
        return missing(
            format!("mode ebpf needs Linux 6.6, this is {major}.{minor}"),
            "use mode iptables",
        );
    }
    Ok(())
}

/// Takes the name: making the directory is what decides between two who try.
fn claim(config: LabConfig) -> Result<Record, LabError> {
    let name = &config.name;
    let leftovers = down::what_is_there(name)?;
    if let Some(found) = leftovers.first() {
        return Err(LabError::Exists {
            name: name.to_string(),
            found: found.clone(),
        });
    }
    let dir = name.dir();
    directory::create_own(&dir).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => LabError::Exists {
            name: name.to_string(),
            found: dir.display().to_string(),
        },
        _ => LabError::file("create", &dir)(cause),
    })?;
    let record = Record {
        api_port: free_port()?,
        config,
        ready: false,
    };
    record.save()?;
    Ok(record)
}

fn free_port() -> Result<u16, LabError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(LabError::file("find", "a free port"))
}

async fn bring_up(mut record: Record) -> Result<Record, LabError> {
    let config = record.config.clone();
    let name = &config.name;
    for directory in ["logs", "daemons", "scratch"] {
        let path = name.dir().join(directory);
        std::fs::create_dir(&path).map_err(LabError::file("create", path))?;
    }
    config.tell(&format!(
        "underlay: {} nodes on one bridge",
        config.nodes.len()
    ));
    cgroup::create(&name.cgroup()?)?;
    underlay::create(&config).await?;

    config.tell("control plane: starting the API server");
    Daemon::Server.start(&record)?;
    let ca = server_data(name).join("admin.kubeconfig");
    let what = "the cluster's certificates";
    alive_until(
        &[Daemon::Server],
        name,
        (what, SERVER_LIMIT),
        async || match ca.exists() {
            true => Ok(()),
            false => Err("not there yet".into()),
        },
    )
    .await
    .map_err(|error| with_log(error, &Daemon::Server, name))?;
    let here = format!("https://127.0.0.1:{}", record.api_port);
    issue(
        &config,
        "seaway:admin",
        "system:masters",
        &[],
        &here,
        name.dir().join("kubeconfig"),
    )
    .await?;
    api_answers(&record).await?;

    config.tell("nodes: starting agent, overlay and proxy on each");
    let nodes = config.nodes.iter().map(|node| start_node(&record, node));
    futures::future::try_join_all(nodes).await?;
    record.ready = true;
    record.save()?;
    config.tell("ready");
    Ok(record)
}

async fn start_node(record: &Record, node: &NodeConfig) -> Result<(), LabError> {
    let config = &record.config;
    let lab = &config.name;
    let dirs = NodeDirs::new(lab, &node.name);
    for path in dirs.all() {
        std::fs::create_dir_all(&path).map_err(LabError::file("create", path))?;
    }
    let plugin = dirs.cni_bin().join("seaway-cni");
    std::os::unix::fs::symlink(config.binaries.join("seaway-cni"), &plugin)
        .map_err(LabError::file("link", plugin))?;
    let user = format!("system:node:{}", node.name);
    let san = [node.address().to_string(), node.name.clone()];
    let server = format!("https://{}:6443", api_address());
    issue(
        config,
        &user,
        "system:nodes",
        &san,
        &server,
        dirs.kubeconfig(),
    )
    .await?;

    let daemons = Daemon::of_node(&node.name);
    for daemon in &daemons {
        daemon.start(record)?;
    }
    let netns = NetNs::named(&lab.node_netns(&node.name))?;
    for (daemon, port) in [
        (Daemon::Overlay(node.name.clone()), health::OVERLAY),
        (Daemon::Proxy(node.name.clone()), health::PROXY),
    ] {
        let what = format!("{} in sync", daemon.id());
        alive_until(&daemons, lab, (&what, NODE_LIMIT), async || {
            health::healthz(&netns, port).await
        })
        .await
        .map_err(|error| with_log(error, &daemon, lab))?;
    }
    node_ready(record, &node.name).await?;
    config.tell(&format!("{}: ready ({})", node.name, node.mode));
    Ok(())
}

/// Issues a client certificate of the cluster's CA, as a kubeconfig.
async fn issue(
    config: &LabConfig,
    user: &str,
    group: &str,
    san: &[String],
    server: &str,
    out: impl AsRef<std::path::Path>,
) -> Result<(), LabError> {
    let mut command = Command::new(config.binaries.join("seaway"))
        .arg("kubeconfig")
        .arg(format!(
            "--data-dir={}",
            server_data(&config.name).display()
        ))
        .args(["--user", user, "--group", group, "--server", server])
        .arg(format!("--out={}", out.as_ref().display()));
    if !san.is_empty() {
        command = command.arg(format!("--san={}", san.join(",")));
    }
    command.output().await?;
    Ok(())
}

pub(crate) async fn client(record: &Record) -> Result<Client, LabError> {
    let path = record.config.name.dir().join("kubeconfig");
    let kubeconfig = Kubeconfig::read_from(path).map_err(Box::new)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(Box::new)?;
    config.connect_timeout = Some(Duration::from_secs(2));
    Ok(Client::try_from(config)?)
}

/// Waits until the API server answers an authenticated request.
pub(crate) async fn api_answers(record: &Record) -> Result<(), LabError> {
    let client = client(record).await?;
    eventually("an answer of the API server", SERVER_LIMIT, async || {
        client.apiserver_version().await
    })
    .await
    .map(drop)
    .map_err(|error| with_log(error, &Daemon::Server, &record.config.name))
}

/// Waits until the Node is there and its agent says that it is ready.
pub(crate) async fn node_ready(record: &Record, name: &str) -> Result<(), LabError> {
    let nodes: Api<Node> = Api::all(client(record).await?);
    let what = format!("Node {name} ready");
    eventually(&what, NODE_LIMIT, async || {
        let node = nodes.get(name).await.map_err(|error| error.to_string())?;
        let conditions = node.status.and_then(|status| status.conditions);
        let ready = conditions
            .unwrap_or_default()
            .into_iter()
            .find(|c| c.type_ == "Ready");
        match ready {
            Some(ready) if ready.status == "True" => Ok(()),
            Some(ready) => Err(ready
                .message
                .unwrap_or_else(|| format!("Ready={}", ready.status))),
            None => Err("no condition Ready".to_owned()),
        }
    })
    .await
    .map_err(|error| with_log(error, &Daemon::Agent(name.into()), &record.config.name))
}

/// Waits for a condition, but not when one of these daemons has ended: waiting longer would help nobody.
async fn alive_until(
    daemons: &[Daemon],
    lab: &LabName,
    (what, limit): (&str, Duration),
    mut probe: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), LabError> {
    eventually(what, limit, async || {
        for daemon in daemons {
            if daemon.process(lab).is_ok_and(|found| found.is_none()) {
                return Ok(Err(daemon.died(lab)));
            }
        }
        probe().await.map(Ok)
    })
    .await?
}

/// A condition that did not come true is explained by what the daemon said meanwhile.
fn with_log(error: LabError, daemon: &Daemon, lab: &LabName) -> LabError {
    match error {
        LabError::TimedOut { what, limit, last } => LabError::TimedOut {
            what,
            limit,
            last: format!(
                "{last}\n  log of {}:\n{}",
                daemon.id(),
                tail(&daemon.log(lab))
            ),
        },
        other => other,
    }
}
