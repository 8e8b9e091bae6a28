//! A pod as a process of its own, in its namespace and cgroup: only there it is seen by everything that a mode does.
//! It is told on its standard input what to do, and ends with it, however we end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::traffic::{self, Ask, Told};
use super::wiring::{Node, Role};

/// The port of all backends.
pub const PORT: u16 = 8080;

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "pod";

/// Serve, and do what is asked on standard input, one JSON line each
#[derive(Debug, Args)]
pub struct PodArgs {
    /// The cgroup to join first
    #[arg(long)]
    cgroup: PathBuf,
    /// What to answer, as a number
    #[arg(long)]
    tag: u8,
}

/// The subcommand.
pub async fn run(args: &PodArgs) -> Result<()> {
    fs::write(args.cgroup.join("cgroup.procs"), "0").context("join the cgroup")?;
    let server = tokio::spawn(traffic::serve(PORT, args.tag));
    println!("ready");
    while let Some(line) = asked().await? {
        let told = traffic::answer(serde_json::from_str(&line)?).await;
        println!("{}", serde_json::to_string(&told)?);
        if server.is_finished() {
            bail!("the server of this pod ended");
        }
    }
    Ok(())
}

/// The next line of standard input; none at its end.
async fn asked() -> Result<Option<String>> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
    Ok(read.await?.transpose()?)
}

/// A pod that runs; ended when dropped.
#[derive(Debug)]
pub struct Pod {
    role: Role,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _child: Child,
}

impl Pod {
    /// Starts it; it serves when this returns.
    pub async fn start(node: &Node, role: Role) -> Result<Self> {
        Self::start_in(node, role, &node.pods_cgroup()).await
    }

    /// The same where no socket hook sees it, so that its packets are translated one by one; another one of this role
    /// serves already.
    pub async fn start_unseen(node: &Node, role: Role) -> Result<Self> {
        Self::start_in(node, role, &node.server_cgroup()).await
    }

    async fn start_in(node: &Node, role: Role, cgroup: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let runtime = tokio::runtime::Handle::current();
        let spawn = || {
            let _inside = runtime.enter();
            Command::new(program)
                .arg(SUBCOMMAND)
                .arg(format!("--cgroup={}", cgroup.display()))
                .arg(format!("--tag={}", tag(role)))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
        };
        let mut child = node
            .pod_netns(role)?
            .run(spawn)?
            .context("start this program in a pod")?;
        let (stdin, stdout) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .context("no pipes to the pod")?;
        let mut pod = Self {
            role,
            stdin,
            stdout: BufReader::new(stdout).lines(),
            _child: child,
        };
        match pod.line().await?.as_str() {
            "ready" => Ok(pod),
            other => bail!("pod {role:?} said {other}"),
        }
    }

    /// Asks; what it says is to be taken with [`Pod::told`].
    pub async fn ask(&mut self, ask: &Ask) -> Result<()> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        self.stdin.write_all(&line).await?;
        Ok(())
    }

    /// What it says to the last thing asked.
    pub async fn told(&mut self) -> Result<Told> {
        let line = self.line().await?;
        match serde_json::from_str(&line)? {
            Told::Failed(why) => bail!("pod {:?}: {why}", self.role),
            told => Ok(told),
        }
    }

    /// Both.
    pub async fn answer(&mut self, ask: &Ask) -> Result<Told> {
        self.ask(ask).await?;
        self.told().await
    }

    async fn line(&mut self) -> Result<String> {
        let line = self.stdout.next_line().await?;
        line.with_context(|| format!("pod {:?} ended", self.role))
    }
}

/// What this pod answers.
pub fn tag(role: Role) -> u8 {
    role.address().octets()[3]
}
