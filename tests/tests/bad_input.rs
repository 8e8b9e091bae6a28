//! Daemons and bad input: one clear sentence, a non-zero exit code, nothing changed. Nothing here needs a lab.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use seaway_tests::require::{self, Need};

const NEEDS: &[Need] = &[Need::Root, Need::Binaries];

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("seaway-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn flag(&self, name: &str) -> String {
        format!("--{name}={}", self.0.join(name).display())
    }

    fn empty(&self) -> bool {
        std::fs::read_dir(&self.0).is_ok_and(|mut entries| entries.next().is_none())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left over at worst in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs one of our programs in a network namespace of its own, for 20 s at most.
fn run(program: &str, args: &[&str]) -> Result<Output> {
    let path = seaway_lab::topology::binaries()?.join(program);
    Ok(Command::new("timeout")
        .args(["20", "unshare", "--net"])
        .arg(path)
        .args(args)
        .env_remove("KUBECONFIG")
        .output()?)
}

fn fails_with(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "exit {:?} instead of {code}: {text}",
        output.status.code()
    );
    for word in words {
        ensure!(text.contains(word), "no {word:?} in: {text}");
    }
    ensure!(!text.contains("panicked"), "{text}");
    Ok(())
}

#[test]
fn an_unknown_mode_names_the_known_ones() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let output = run("seaway-proxy", &["run", "--mode", "ipvs"])?;
    fails_with(&output, 2, &["ipvs", "iptables", "ebpf"])?;
    let output = run("seaway", &["lab", "up", "--mode", "n2=ipvs"])?;
    fails_with(&output, 2, &["unknown mode \"ipvs\": iptables or ebpf"])
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("kubeconfig")?;
    let kubeconfig = "--kubeconfig=/nonexistent/kubeconfig";
    let run_dir = scratch.flag("run-dir");
    let output = run("seaway-proxy", &["run", kubeconfig, &run_dir])?;
    fails_with(&output, 1, &["/nonexistent/kubeconfig"])?;
    let state_dir = scratch.flag("state-dir");
    let overlay = [
        "run",
        "--node-name=n1",
        "--cluster-cidr=10.244.0.0/16",
        kubeconfig,
        &run_dir,
        &state_dir,
    ];
    fails_with(
        &run("seaway-overlay", &overlay)?,
        1,
        &["/nonexistent/kubeconfig"],
    )
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("port")?;
    let manifests = scratch.0.join("manifests");
    std::fs::create_dir(&manifests)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    // In our own namespace, where the port is taken; it ends before it touches any rule.
    let output = Command::new(seaway_lab::topology::binaries()?.join("seaway-proxy"))
        .arg("run")
        .arg(format!("--manifests={}", manifests.display()))
        .args(["--hostname-override=n1", &scratch.flag("run-dir")])
        .arg(format!("--healthz-bind-address={addr}"))
        .output()?;
    fails_with(&output, 1, &[&addr, "in use"])
}

#[test]
fn a_store_that_another_server_holds_is_refused() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("store")?;
    let data = scratch.flag("data-dir");
    let args = [
        "server",
        &data,
        "--listen=127.0.0.1:0",
        "--advertise-address=127.0.0.1:6443",
    ];
    let program = seaway_lab::topology::binaries()?.join("seaway");
    let mut first = Command::new(&program)
        .args(args)
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let second = held(&scratch.0.join("data-dir"))
        .and_then(|()| Ok(Command::new(&program).args(args).output()?));
    let holder = format!("(pid {}) uses it", first.id());
    first.kill()?;
    first.wait()?;
    fails_with(&second?, 1, &[&holder])
}

/// Waits until a server has its directory.
fn held(data: &Path) -> Result<()> {
    for _ in 0..200 {
        if data.join("admin.kubeconfig").exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    anyhow::bail!("the first server did not come up")
}

#[test]
fn overlapping_networks_are_refused_before_anything_is_written() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("overlap")?;
    let output = run(
        "seaway",
        &[
            "server",
            &scratch.flag("data-dir"),
            "--listen=127.0.0.1:0",
            "--cluster-cidr=10.96.0.0/12",
            "--service-cidr=10.96.0.0/16",
        ],
    )?;
    fails_with(&output, 1, &["overlap", "10.96.0.0/12", "10.96.0.0/16"])?;
    ensure!(scratch.empty(), "something was written");
    Ok(())
}

#[test]
fn a_missing_program_is_named() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("program")?;
    let manifests = scratch.0.join("manifests");
    std::fs::create_dir(&manifests)?;
    let proxy = seaway_lab::topology::binaries()?.join("seaway-proxy");
    let output = Command::new("/usr/bin/timeout")
        .args(["20", "/usr/bin/unshare", "--net"])
        .arg(proxy)
        .args([
            "run",
            "--mode=iptables",
            "--hostname-override=n1",
            &scratch.flag("run-dir"),
        ])
        .arg(format!("--manifests={}", manifests.display()))
        .env("PATH", "/nonexistent")
        .output()?;
    fails_with(&output, 1, &["iptables", "not installed"])
}

/// Root without a capability, and somebody who is not root at all.
#[test]
fn a_missing_capability_is_named_and_nothing_is_touched() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("capability")?;
    let manifests = format!("--manifests={}", scratch.0.display());
    let run_dir = scratch.flag("run-dir");
    let without =
        |capability: &str| ["bounding-set", "inh-caps"].map(|set| format!("--{set}=-{capability}"));
    let nobody = ["--reuid=65534", "--clear-groups"].map(str::to_owned);
    for (who, mode, missing) in [
        (without("net_raw"), "iptables", "CAP_NET_RAW"),
        (without("net_admin"), "iptables", "CAP_NET_ADMIN"),
        (without("net_admin"), "ebpf", "CAP_NET_ADMIN"),
        (without("sys_admin"), "ebpf", "CAP_SYS_ADMIN"),
        (nobody.clone(), "iptables", "CAP_NET_ADMIN, CAP_NET_RAW"),
        (nobody, "ebpf", "CAP_NET_ADMIN, CAP_SYS_ADMIN"),
    ] {
        let program = seaway_lab::topology::binaries()?.join("seaway-proxy");
        let output = Command::new("timeout")
            .args(["20", "unshare", "--net", "setpriv"])
            .args(who)
            .arg(program)
            .args(["run", "--hostname-override=n1", &manifests, &run_dir])
            .args(["--mode", mode])
            .env_remove("KUBECONFIG")
            .output()?;
        let words = [&format!("mode {mode} needs {missing}"), "run it as root"];
        fails_with(&output, 1, &words)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(text.lines().count() == 1, "more than one sentence: {text}");
        ensure!(scratch.empty(), "something was written");
    }
    let range = "--cluster-cidr=10.244.0.0/16".to_owned();
    let run = [manifests, range, "--node-name=n1".to_owned()];
    for (command, flags) in [("run", &run[..]), ("cleanup", &[])] {
        let output = Command::new("timeout")
            .args(["20", "unshare", "--net", "setpriv"])
            .args(without("net_admin"))
            .arg(seaway_lab::topology::binaries()?.join("seaway-overlay"))
            .args([command, &run_dir])
            .args(flags)
            .output()?;
        let needs = format!("seaway-overlay {command} needs CAP_NET_ADMIN, which");
        fails_with(&output, 1, &[&needs, "run it as root"])?;
        ensure!(scratch.empty(), "something was written");
    }
    Ok(())
}

/// The second daemon on a node hears which process and which file are in its way.
#[test]
fn a_second_proxy_on_a_node_is_refused() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("second")?;
    let run_dir = scratch.0.join("run");
    std::fs::create_dir(&run_dir)?;
    let path = run_dir.join("proxy.lock");
    std::fs::write(&path, "4711\n")?;
    let held = std::fs::File::open(&path)?;
    held.lock()?;
    let flag = format!("--run-dir={}", run_dir.display());
    let output = run("seaway-proxy", &["cleanup", &flag])?;
    fails_with(&output, 1, &["4711", &path.display().to_string()])
}

/// Each address that a daemon listens on is named with its flag.
#[test]
fn the_flag_of_a_port_in_use_is_named() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let scratch = Scratch::new("flag")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    let proxy = [
        "run".to_owned(),
        format!("--manifests={}", scratch.0.display()),
        "--hostname-override=n1".into(),
        "--healthz-bind-address=127.0.0.1:0".into(),
        format!("--metrics-bind-address={addr}"),
        scratch.flag("run-dir"),
    ];
    let server = [
        "server".to_owned(),
        scratch.flag("data-dir"),
        format!("--listen={addr}"),
    ];
    for (program, args, flag) in [
        ("seaway-proxy", &proxy[..], "--metrics-bind-address"),
        ("seaway", &server[..], "--listen"),
    ] {
        let output = Command::new(seaway_lab::topology::binaries()?.join(program))
            .args(args)
            .env_remove("KUBECONFIG")
            .output()?;
        fails_with(&output, 1, &[&addr, flag, "in use"])?;
    }
    ensure!(
        !scratch.0.join("data-dir").exists(),
        "the server wrote something"
    );
    Ok(())
}

#[test]
fn a_lab_of_no_nodes_is_refused() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let output = run("seaway", &["lab", "up", "--nodes=0", "--name=none"])?;
    fails_with(&output, 1, &["1 to 100 nodes"])?;
    let output = run(
        "seaway",
        &["lab", "up", "--nodes=2", "--mode=n3=ebpf", "--name=none"],
    )?;
    fails_with(&output, 1, &["there is no node n3"])
}
