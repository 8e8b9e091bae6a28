//! A node in a network namespace, with a directory of manifests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seaway_kernel::NetNs;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    netns: NetNs,
    dir: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let netns = NetNs::anonymous().unwrap();
        let node = Self {
            netns,
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(node.path("manifests")).unwrap();
        node.sh("ip link set lo up");
        node.manifest(
            "node.yaml",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
        );
        node
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn manifest(&self, name: &str, text: &str) {
        // At once, as editors do it.
        self.write("new", text);
        std::fs::rename(self.path("new"), self.path(&format!("manifests/{name}"))).unwrap();
    }

    pub(crate) fn sh(&self, line: &str) {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.netns.run(|| command.output()).unwrap().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
    }

    /// Runs something here.
    pub(crate) fn here<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.netns.run(f).unwrap()
    }

    /// A file as a process of this node sees it.
    pub(crate) fn read(&self, path: &str) -> String {
        let text = self.netns.run(|| std::fs::read_to_string(path)).unwrap();
        text.unwrap_or_default().trim().to_owned()
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seaway-proxy"));
        let run_dir = self.path("run");
        command
            .args([subcommand, "--run-dir", &run_dir])
            .env_remove("KUBECONFIG")
            .env_remove("RUST_LOG");
        command
    }

    fn node_command(&self, subcommand: &str, args: &[&str]) -> Command {
        let mut command = self.command(subcommand);
        let manifests = self.path("manifests");
        command
            .args(["--manifests", &manifests, "--hostname-override", "n1"])
            .args(args);
        command
    }

    /// Runs a subcommand about this node to its end: exit code, stdout, stderr.
    pub(crate) fn ask(&self, subcommand: &str, args: &[&str]) -> (i32, String, String) {
        self.finish(self.node_command(subcommand, args))
    }

    /// The same with variables in its environment.
    pub(crate) fn ask_with(
        &self,
        subcommand: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> (i32, String, String) {
        let mut command = self.node_command(subcommand, args);
        command.envs(env.iter().copied());
        self.finish(command)
    }

    /// A port of all addresses that is taken.
    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        self.netns
            .run(|| TcpListener::bind(address))
            .unwrap()
            .unwrap()
    }

    /// Runs a subcommand that takes no node where no cgroup2 hierarchy is mounted.
    pub(crate) fn without_cgroup2(&self, subcommand: &str) -> (i32, String, String) {
        let wrapper = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            "umount --all --types cgroup2 && exec \"$@\"",
            "sh",
        ];
        self.within(&wrapper, &self.command(subcommand))
    }

    /// Runs a subcommand about this node as root of a user namespace, whom the kernel lets do less.
    pub(crate) fn in_user_namespace(
        &self,
        subcommand: &str,
        args: &[&str],
    ) -> (i32, String, String) {
        let wrapper = ["unshare", "--map-root-user", "--net"];
        self.within(&wrapper, &self.node_command(subcommand, args))
    }

    fn within(&self, wrapper: &[&str], inner: &Command) -> (i32, String, String) {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_remove("KUBECONFIG")
            .env_remove("RUST_LOG");
        self.finish(command)
    }

    /// Runs a subcommand that takes no node.
    pub(crate) fn bare(&self, subcommand: &str) -> (i32, String, String) {
        self.bare_with(subcommand, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn bare_with(
        &self,
        subcommand: &str,
        env: &[(&str, &str)],
    ) -> (i32, String, String) {
        let mut command = self.command(subcommand);
        command.envs(env.iter().copied());
        self.finish(command)
    }

    /// The same with flags.
    pub(crate) fn bare_args(&self, subcommand: &str, args: &[&str]) -> (i32, String, String) {
        let mut command = self.command(subcommand);
        command.args(args);
        self.finish(command)
    }

    /// Runs a subcommand about this node whose output nobody reads: the signal that ended it, and stderr.
    pub(crate) fn ask_without_reader(
        &self,
        subcommand: &str,
        args: &[&str],
    ) -> (Option<i32>, String) {
        let mut command = self.node_command(subcommand, args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer);
        let output = self.netns.run(|| command.output()).unwrap().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.signal(), error)
    }

    fn finish(&self, mut command: Command) -> (i32, String, String) {
        let output = self.netns.run(|| command.output()).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Starts the daemon.
    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Daemon {
        let mut command = self.node_command("run", args);
        command.envs(env.iter().copied());
        self.start(command)
    }

    /// Starts a subcommand that takes no manifests.
    pub(crate) fn spawn(&self, subcommand: &str, args: &[&str]) -> Daemon {
        let mut command = self.command(subcommand);
        command.args(args);
        self.start(command)
    }

    /// Names a server at this port of the node, without credentials.
    pub(crate) fn kubeconfig(&self, port: u16) -> String {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c,
  clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}],
  contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}]}}\n"
        );
        self.write("kubeconfig", &text);
        self.path("kubeconfig")
    }

    fn start(&self, mut command: Command) -> Daemon {
        let log = self.path("log");
        command.stderr(File::create(&log).unwrap());
        let child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        Daemon { child, log }
    }

    /// Status and body; `None` if nobody listens.
    pub(crate) fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.netns.run(ask).unwrap().ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The status alone; 0 if nobody listens.
    pub(crate) fn status(&self, port: u16, path: &str) -> u16 {
        self.get(port, path).map_or(0, |(status, _)| status)
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "never came: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) struct Daemon {
    child: Child,
    log: String,
}

impl Daemon {
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Gone already, as a rule.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A load balancer with policy Local and this health check port.
pub(crate) fn service(name: &str, last: u8, health_check_port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.{last}
  clusterIPs: [10.96.0.{last}]
  externalTrafficPolicy: Local
  healthCheckNodePort: {health_check_port}
  ports: [{{name: http, port: 80, protocol: TCP, nodePort: {}}}]
",
        30_000 + u16::from(last)
    )
}

pub(crate) fn endpoint(last: u8, node: &str) -> String {
    format!("{{addresses: [10.244.1.{last}], nodeName: {node}, conditions: {{ready: true}}}}")
}

pub(crate) fn slice(service: &str, endpoints: &[String]) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-1
  namespace: default
  labels: {{kubernetes.io/service-name: {service}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}
