//! All flows of a run at once.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::report::Report;
use super::worker::SUBCOMMAND;
use super::world::{Space, World};

/// Until all flows of a process have begun, or said what came of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Tcp,
    /// A connection for each message, which only a Service with session affinity gives to one backend.
    TcpAnew,
    /// Each datagram says where it goes.
    Udp,
    UdpConnected,
}

impl Kind {
    /// Those that stay with their backend by themselves.
    pub const LASTING: [Self; 3] = [Self::Tcp, Self::Udp, Self::UdpConnected];
}

/// Flows of one kind to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub kind: Kind,
    pub to: SocketAddr,
    pub flows: usize,
}

/// Flows from one place, in words.
#[derive(Debug)]
struct Place {
    what: &'static str,
    from: Space,
    /// Whether the socket hooks see them.
    by_sockets: bool,
    to: &'static [&'static str],
    /// Services with session affinity.
    sticky: &'static [&'static str],
}

/// Services by their addresses: one with a local and a remote backend (and a node port), one whose backend is the client
/// itself, two with session affinity, one served by the node itself.
const PLACES: [Place; 4] = [
    Place {
        what: "pod, by packets",
        from: Space::Pod,
        by_sockets: false,
        to: &[
            "10.96.0.10:80",
            "[fd00:10:96::10]:80",
            "10.96.0.11:80",
            "[fd00:10:96::11]:80",
            "10.96.0.12:80",
            "10.96.0.13:80",
            "[fd00:10:96::13]:80",
        ],
        sticky: &["10.96.0.12:80", "[fd00:10:96::12]:80"],
    },
    Place {
        what: "pod, by sockets",
        from: Space::Pod,
        by_sockets: true,
        // Affinity of its own: rules cannot tell these from the same pod's packets, as programs do.
        to: &["10.96.0.10:80", "[fd00:10:96::10]:80", "10.96.0.14:80"],
        sticky: &["10.96.0.14:80", "[fd00:10:96::14]:80"],
    },
    Place {
        what: "process of the node",
        from: Space::Node,
        by_sockets: true,
        to: &["10.96.0.10:80", "[fd00:10:96::10]:80"],
        sticky: &["10.96.0.12:80", "[fd00:10:96::12]:80"],
    },
    Place {
        what: "client outside",
        from: Space::Outside,
        by_sockets: false,
        to: &[
            "192.168.77.1:30080",
            "[fd00:77::1]:30080",
            "192.168.77.1:30082",
            "192.168.77.1:30083",
        ],
        sticky: &["192.168.77.1:30082", "[fd00:77::1]:30082"],
    },
];

/// The Services of [`PLACES`], as manifests.
pub fn manifests() -> String {
    let pods = [Space::Second, Space::Remote];
    let mut text = String::from("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n");
    for (name, number, node_port, affinity, backends) in [
        ("plain", 10, Some(30080), false, &pods[..]),
        ("hairpin", 11, None, false, &[Space::Pod][..]),
        ("sticky", 12, Some(30082), true, &pods[..]),
        ("host", 13, Some(30083), false, &[Space::Node][..]),
        ("loyal", 14, None, true, &pods[..]),
    ] {
        let kind = if node_port.is_some() {
            "NodePort"
        } else {
            "ClusterIP"
        };
        let affinity = if affinity { "ClientIP" } else { "None" };
        let port = |protocol: &str| {
            let node_port = node_port.map_or(String::new(), |port| format!(", nodePort: {port}"));
            format!(
                "{{name: {}, port: 80, targetPort: 8080, protocol: {protocol}{node_port}}}",
                protocol.to_lowercase()
            )
        };
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  type: {kind}\n  \
             sessionAffinity: {affinity}\n  clusterIP: 10.96.0.{number}\n  clusterIPs: [10.96.0.{number}, \"fd00:10:96::{number}\"]\n  \
             ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  ports: [{}, {}]\n",
            port("TCP"),
            port("UDP"),
        );
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let endpoints: Vec<String> = backends
                .iter()
                .map(|space| {
                    let node = if *space == Space::Remote { "n2" } else { "n1" };
                    format!(
                        "{{addresses: [\"{}\"], nodeName: {node}, conditions: {{ready: true}}}}",
                        space.endpoint(v6)
                    )
                })
                .collect();
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{}\n  namespace: default\n  \
                 labels: {{kubernetes.io/service-name: {name}}}\naddressType: {family}\nports: [{{name: tcp, port: 8080, protocol: TCP}}, \
                 {{name: udp, port: 8080, protocol: UDP}}]\nendpoints: [{}]\n",
                family.to_lowercase(),
                endpoints.join(", "),
            );
        }
    }
    text
}

/// Processes with flows; ended when dropped.
#[derive(Debug)]
pub struct Crowd {
    workers: Vec<(&'static str, Worker)>,
}

impl Crowd {
    /// Begins `flows` flows of each kind to each address from each place; all have their first answer when this returns.
    pub async fn begin(world: &World, program: &std::path::Path, flows: usize) -> Result<Self> {
        let mut workers = Vec::new();
        for place in &PLACES {
            let mut args = Vec::new();
            let lasting = place
                .to
                .iter()
                .flat_map(|to| Kind::LASTING.map(|kind| (kind, to)));
            let anew = place.sticky.iter().map(|to| (Kind::TcpAnew, to));
            for (kind, to) in lasting.chain(anew) {
                let to = to.parse()?;
                let group = Group { kind, to, flows };
                args.push(format!("--group={}", serde_json::to_string(&group)?));
            }
            let worker = Worker::start(world, program, place.from, place.by_sockets, &args)?;
            workers.push((place.what, worker));
        }
        for (what, worker) in &mut workers {
            worker
                .ready()
                .await
                .with_context(|| format!("flows of a {what}"))?;
        }
        Ok(Self { workers })
    }

    /// Ends all flows; what came of them, place by place.
    pub async fn end(self) -> Result<Vec<(&'static str, Report)>> {
        let mut reports = Vec::new();
        for (what, worker) in self.workers {
            reports.push((what, worker.end().await?));
        }
        Ok(reports)
    }
}

/// Serves in every place that a Service leads to; it ends when dropped.
pub async fn serve(world: &World, program: &std::path::Path) -> Result<Vec<Worker>> {
    let mut servers = Vec::new();
    for space in [Space::Pod, Space::Second, Space::Remote, Space::Node] {
        let tag = format!("--tag={}", space.tag());
        let mut server = Worker::start(world, program, space, false, &[tag])?;
        server.ready().await?;
        servers.push(server);
    }
    Ok(servers)
}

/// A process of [`worker`](super::worker).
#[derive(Debug)]
pub struct Worker {
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _child: Child,
}

impl Worker {
    fn start(
        world: &World,
        program: &std::path::Path,
        space: Space,
        in_cgroup: bool,
        args: &[String],
    ) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let mut command = Command::new("sh");
        // A process of a cgroup from its first socket on.
        let join = match in_cgroup {
            true => format!("echo 0 > {}/cgroup.procs && ", world.pods()?.display()),
            false => String::new(),
        };
        command
            .arg("-c")
            .arg(format!("{join}exec \"$0\" \"$@\""))
            .arg(program)
            .arg(SUBCOMMAND)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let spawn = || {
            let _inside = runtime.enter();
            command.spawn()
        };
        let mut child = world
            .netns(space)?
            .run(spawn)?
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child.stdout.take().context("no pipe from the process")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout).lines(),
            _child: child,
        })
    }

    async fn line(&mut self) -> Result<String> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await??;
        line.context("the process ended")
    }

    async fn ready(&mut self) -> Result<()> {
        match self.line().await?.as_str() {
            "ready" => Ok(()),
            other => bail!("it said {other}"),
        }
    }

    async fn end(mut self) -> Result<Report> {
        self.stdin = None;
        Ok(serde_json::from_str(&self.line().await?)?)
    }
}
