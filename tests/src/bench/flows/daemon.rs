//! The proxy of the node under test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{Command, Process, Signal, Spawn};

use super::crowd::manifests;
use super::refusal;
use super::world::{Space, World};
use crate::bench::one_node::wiring::tail;

/// Where it says that it serves, and in which mode.
const HEALTHZ: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";
/// Until it has everything in the kernel.
const PATIENCE: Duration = Duration::from_secs(60);

/// `seaway-proxy run`; what it left in the kernel goes when it is dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    world: &'a World,
    program: PathBuf,
    child: Option<Child>,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    /// Starts it in a mode; it serves when this returns.
    pub async fn start(world: &'a World, program: &Path, mode: &str) -> Result<Self> {
        let dir = world.scratch.join("manifests");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("all.yaml"), manifests())?;
        refusal::install(&world.scratch)?;
        let mut daemon = Self {
            world,
            program: program.to_owned(),
            child: None,
            log: world.scratch.join("proxy.log"),
        };
        daemon.run(mode).await?;
        Ok(daemon)
    }

    /// Starts it anew, where it does not run.
    pub async fn run(&mut self, mode: &str) -> Result<()> {
        self.configure(mode)?;
        let spawn = Spawn::new(&self.program)
            .args(["run", "--hostname-override=n1"])
            .arg(format!("--config={}", self.config().display()))
            .arg(format!(
                "--manifests={}",
                self.world.scratch.join("manifests").display()
            ))
            .arg("--ignore-other-proxies")
            .args(self.kernel_flags()?)
            .env("PATH", refusal::path(&self.world.scratch)?)
            .env("XTABLES_LOCKFILE", self.world.scratch.join("xtables.lock"))
            .netns(&self.world.netns(Space::Node)?)
            .stdout(&self.log)
            .stderr(&self.log);
        self.child = Some(spawn.start()?);
        let deadline = Instant::now() + PATIENCE;
        while !self.is_healthy()? {
            ensure!(
                Instant::now() < deadline,
                "the proxy does not serve:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn is_healthy(&mut self) -> Result<bool> {
        if let Some(child) = &mut self.child {
            ensure!(
                child.try_wait()?.is_none(),
                "the proxy has ended:\n{}",
                tail(&self.log)
            );
        }
        Ok(!self.ask(HEALTHZ, "/healthz")?.is_empty())
    }

    fn config(&self) -> PathBuf {
        self.world.scratch.join("config.yaml")
    }

    fn configure(&self, mode: &str) -> Result<()> {
        let config = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             clusterCIDR: 10.244.0.0/16,fd00:10:244::/48\nhealthzBindAddress: {HEALTHZ}\nmetricsBindAddress: {METRICS}\n"
        );
        Ok(fs::write(self.config(), config)?)
    }

    /// Changes the mode in its file, and has it read that.
    pub async fn reload(&self, mode: &str) -> Result<()> {
        self.configure(mode)?;
        let child = self.child.as_ref().context("it does not run")?;
        let process = Process::open(child.id())?.context("it has ended")?;
        process.signal(Signal::Hangup)?;
        let deadline = Instant::now() + PATIENCE;
        while self.ask(METRICS, "/proxyMode")?.trim_end() != mode {
            ensure!(Instant::now() < deadline, "the mode stays:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Has the next change of rules in which this text stands fail, in IPv6.
    pub fn refuse(&self, text: &str) -> Result<()> {
        refusal::refuse(&self.world.scratch, text)
    }

    /// Whether a change of rules was refused since.
    pub fn has_refused(&self) -> bool {
        refusal::is_over(&self.world.scratch)
    }

    /// The body of an answer of its, or nothing.
    fn ask(&self, at: &str, path: &str) -> Result<String> {
        let answer = self
            .world
            .netns(Space::Node)?
            .run(|| -> std::io::Result<String> {
                let mut stream = TcpStream::connect(at)?;
                stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            })?
            .unwrap_or_default();
        let body = answer
            .split_once("\r\n\r\n")
            .filter(|_| answer.starts_with("HTTP/1.0 200"));
        Ok(body.map_or(String::new(), |(_, body)| body.to_owned()))
    }

    fn kernel_flags(&self) -> Result<[String; 3]> {
        Ok([
            format!("--cgroup-root={}", self.world.cgroup()?.display()),
            format!("--bpffs-root={}", self.world.bpffs.display()),
            self.run_dir(),
        ])
    }

    fn run_dir(&self) -> String {
        format!("--run-dir={}", self.world.scratch.join("run").display())
    }

    /// Changes its mode; how long that took.
    pub async fn switch(&self, mode: &str) -> Result<Duration> {
        let started = Instant::now();
        Command::new(&self.program)
            .args(["switch", mode, &self.run_dir()])
            .timeout(PATIENCE)
            .output()
            .await
            .with_context(|| format!("the log of the proxy ends with\n{}", self.log()))?;
        let took = started.elapsed();
        Ok(took)
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    fn cleanup(&self) -> Result<()> {
        let log = self.world.scratch.join("cleanup.log");
        let mut child = Spawn::new(&self.program)
            .arg("cleanup")
            .args(self.kernel_flags()?)
            .env("XTABLES_LOCKFILE", self.world.scratch.join("xtables.lock"))
            .netns(&self.world.netns(Space::Node)?)
            .stdout(&log)
            .stderr(&log)
            .start()
            .context("start cleanup")?;
        ensure!(child.wait()?.success(), "cleanup failed:\n{}", tail(&log));
        Ok(())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.kill();
        if let Err(error) = self.cleanup() {
            eprintln!("{error:#}");
        }
    }
}
