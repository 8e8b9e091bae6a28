//! A list of plugins on a node of its own, called as a runtime calls it, and measured.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use crate::runtimes::libcni::find;
use crate::runtimes::list::{List, OLD};
use crate::runtimes::{Namespace, Node, REFERENCE_PLUGINS};

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    /// Does nothing but answer: what starting the plugin costs.
    Version,
    Status,
}

impl Verb {
    /// As it stands in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Version => "VERSION",
            Self::Status => "STATUS",
        }
    }
}

/// Which plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours: an address, and what leaves the cluster is masqueraded.
    Plain,
    /// Ours with a port of the node and a limited bandwidth.
    Full,
    /// Debian's `bridge` and `host-local`.
    Reference,
    /// The same with masquerade, `portmap` and `bandwidth`.
    ReferenceFull,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Plain,
        Self::Full,
        Self::Reference,
        Self::ReferenceFull,
    ];

    /// What tells its figures from those of [`Kind::Plain`].
    pub fn labels(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain => &[],
            Self::Full => &[("chain", "full")],
            Self::Reference => &[("chain", "reference")],
            Self::ReferenceFull => &[("chain", "reference full")],
        }
    }

    /// Whether ports and bandwidth are asked for.
    pub fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::ReferenceFull)
    }

    fn plugins(self, node: &Node) -> Result<Value> {
        let full = self == Self::ReferenceFull;
        let bridge = json!({
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": full,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "dataDir": node.dir().join("host-local"),
            },
        });
        Ok(match self {
            Self::Plain | Self::Full => json!([node.plugin("bench", &["10.244.1.0/24"])?]),
            Self::Reference => json!([bridge]),
            Self::ReferenceFull => json!([
                bridge,
                {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
                {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            ]),
        })
    }
}

/// A pod, and what its attachments are asked for.
#[derive(Debug)]
pub struct Pod {
    pub space: Namespace,
    number: usize,
}

impl Pod {
    /// As many as wanted.
    pub fn many(count: usize) -> Result<Vec<Self>> {
        (0..count)
            .map(|number| {
                let space = Namespace::new("pod")?;
                Ok(Self { space, number })
            })
            .collect()
    }

    /// The port of the node that leads to its port 80.
    pub fn host_port(&self) -> u16 {
        20_000 + self.number as u16
    }

    fn capabilities(&self) -> Map<String, Value> {
        let port = json!({"hostPort": self.host_port(), "containerPort": 80, "protocol": "tcp"});
        let rate = 1_000_000_000;
        Map::from_iter([
            ("portMappings".to_owned(), json!([port])),
            (
                "bandwidth".to_owned(),
                json!({"ingressRate": rate, "ingressBurst": rate, "egressRate": rate, "egressBurst": rate}),
            ),
        ])
    }
}

/// A list on a node.
#[derive(Debug)]
pub struct Chain {
    pub kind: Kind,
    pub node: Node,
    list: List,
    path: Vec<PathBuf>,
}

/// What one call cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub took: Duration,
    /// Of all processes that it started. What the kernel does later is in no process.
    pub cpu_ms: f64,
}

impl Chain {
    /// Makes the node. Our plugin is the one beside our other binaries.
    pub async fn new(kind: Kind) -> Result<Self> {
        let node = Node::new().await?;
        let list = json!({
            "cniVersion": if kind == Kind::Plain { "1.1.0" } else { "1.0.0" },
            "name": "bench",
            "plugins": kind.plugins(&node)?,
        });
        let speaks = if kind == Kind::Plain { &["1.1.0"] } else { OLD };
        let path = vec![seaway_lab::topology::binaries()?, REFERENCE_PLUGINS.into()];
        let list = List::parse(&list.to_string(), speaks)?;
        for index in 0..list.plugins.len() {
            let program = list.program(index);
            ensure!(
                find(&path, program).is_some(),
                "plugin {program} is in none of {path:?}: cargo xtask setup"
            );
        }
        Ok(Self {
            kind,
            node,
            list,
            path,
        })
    }

    /// One call, from the start of the first plugin to the end of the last.
    pub fn call(&self, verb: Verb, pod: &Pod) -> Result<Cost> {
        self.node.netns().run(|| self.call_here(verb, pod))?
    }

    /// A call for each pod, all at once; until the last has ended.
    pub fn call_at_once(&self, verb: Verb, pods: &[Pod]) -> Result<Duration> {
        let start = Instant::now();
        let ends = std::thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| {
                    scope.spawn(|| {
                        let _inside = self.node.netns().enter()?;
                        self.call_here(verb, pod)
                    })
                })
                .collect();
            // Every one that was started is waited for, also when another failed.
            let ends = calls.into_iter().map(std::thread::ScopedJoinHandle::join);
            ends.collect::<Vec<_>>()
        });
        let took = start.elapsed();
        for end in ends {
            end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(took)
    }

    /// The same in a thread that is in the node's namespace.
    fn call_here(&self, verb: Verb, pod: &Pod) -> Result<Cost> {
        let given = if self.kind.is_full() {
            pod.capabilities()
        } else {
            Map::new()
        };
        let count = self.list.plugins.len();
        let mut result: Option<Value> = None;
        let cpu = cpu_of_children()?;
        let start = Instant::now();
        for step in 0..count {
            let index = if verb == Verb::Del {
                count - 1 - step
            } else {
                step
            };
            let request = self.list.request(index, result.as_ref(), &given);
            let mut child = self.start(verb, index, pod)?;
            tell(&mut child, request);
            let answer = finish(child, verb)?;
            if verb == Verb::Add {
                result = Some(serde_json::from_str(&answer).context("the result of ADD")?);
            }
        }
        Ok(Cost {
            took: start.elapsed(),
            cpu_ms: cpu_of_children()? - cpu,
        })
    }

    /// The most memory that the first plugin has at any time of a call, in 10^6 bytes: `VmHWM` at its end. What wait4(2)
    /// tells would have our own memory in it, which the child shares until its program starts.
    pub fn peak_rss(&self, verb: Verb, pod: &Pod) -> Result<f64> {
        self.node.netns().run(|| {
            let mut child = self.start(verb, 0, pod)?;
            let pid = Pid::from_raw(i32::try_from(child.id())?);
            // It waits for its input until this is done.
            ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).context("trace the plugin")?;
            tell(&mut child, self.list.request(0, None, &Map::new()));
            let mut peak = None;
            loop {
                match waitpid(pid, Some(WaitPidFlag::__WALL))? {
                    WaitStatus::PtraceEvent(..) => {
                        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
                        peak = high_water_mark(&status);
                        ptrace::cont(pid, None)?;
                    }
                    WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
                    WaitStatus::Exited(_, 0) => break,
                    other => bail!("{} ended with {other:?}", verb.as_str()),
                }
            }
            peak.context("the plugin ended unseen")
        })?
    }

    /// Started from a thread inside of the node's namespace, not through code between fork and exec: so the kernel
    /// need not copy our page tables, which would count as time of the plugin.
    fn start(&self, verb: Verb, index: usize, pod: &Pod) -> Result<Child> {
        let name = self.list.program(index);
        let program = find(&self.path, name).with_context(|| format!("no plugin {name}"))?;
        let path = std::env::join_paths(self.path.iter().map(PathBuf::as_path))?;
        Command::new(&program)
            .env_clear()
            // The reference plugins run iptables.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb.as_str())
            .env("CNI_CONTAINERID", pod.space.name())
            .env("CNI_NETNS", pod.space.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {}", Path::new(&program).display()))
    }
}

fn tell(child: &mut Child, request: Map<String, Value>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that reads nothing says why in its answer.
        let _ = stdin.write_all(Value::Object(request).to_string().as_bytes());
    }
}

fn finish(child: Child, verb: Verb) -> Result<String> {
    let output = child.wait_with_output().context("wait for the plugin")?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} failed ({}): {answer}",
        verb.as_str(),
        output.status
    );
    Ok(answer)
}

/// Milliseconds of processor time of all children that were waited for so far, with theirs.
fn cpu_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e3)
}

fn high_water_mark(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_megabytes() {
        let status = "VmPeak:\t    9999 kB\nVmHWM:\t    2000 kB\n";
        assert_eq!(high_water_mark(status), Some(2.048));
        assert_eq!(high_water_mark("State:\tZ\n"), None);
    }
}
