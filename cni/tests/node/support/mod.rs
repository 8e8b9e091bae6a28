//! A node and its pods for the tests of the plugin: namespaces, directories, and the built binary called as runtimes
//! call it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use seaway_cni::node::NodeFile;
use seaway_kernel::{Command, CommandError, MacAddr, NetNs, Netlink, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace with a name, which runtimes give as a path; deleted when dropped.
pub(crate) struct Namespace {
    pub(crate) netns: NetNs,
    name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-cni-{what}-{}-{number}", std::process::id());
        let netns = NetNs::create(&name).unwrap();
        Self { netns, name }
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::in_namespace(&self.netns).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.name);
    }
}

/// A node whose overlay has done its part.
pub(crate) struct Node {
    pub(crate) space: Namespace,
    dir: TempDir,
}

/// What the plugin answered: its JSON, or the code and message of the error.
pub(crate) type Answer = Result<Value, (u64, String)>;

impl Node {
    pub(crate) async fn new(pod_cidrs: &[&str]) -> Self {
        let node = Self {
            space: Namespace::new("node"),
            dir: tempfile::tempdir().unwrap(),
        };
        let netlink = node.space.netlink();
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        netlink
            .add_vxlan_external("seaway.vxlan", 8472, mac, 1450)
            .await
            .unwrap();
        let link = netlink.link("seaway.vxlan").await.unwrap().unwrap();
        netlink.set_up(link.index).await.unwrap();
        for own in ["10.244.1.0/32", "fd00:1::/128"] {
            netlink
                .add_address(link.index, own.parse().unwrap(), Scope::Global)
                .await
                .unwrap();
        }
        let file = NodeFile {
            node_name: "n1".into(),
            pod_cidrs: pod_cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            mtu: 1450,
            vxlan_link: "seaway.vxlan".into(),
        };
        file.write(&node.run_dir()).unwrap();
        node
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The file of an address that is in use.
    pub(crate) fn entry(&self, address: &str) -> PathBuf {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let directory = self.state_dir().join("ipam/seaway").join(boot.trim());
        std::fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path())
            .find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with(&format!("{address}@"))
            })
            .unwrap()
    }

    /// The config as a runtime flattens it.
    pub(crate) fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "seaway",
            "type": "seaway-cni",
            "runDir": self.run_dir(),
            "stateDir": self.state_dir(),
        })
    }

    pub(crate) async fn add(&self, id: &str, pod: &Namespace) -> Answer {
        self.call("ADD", id, &pod.path(), self.config("1.0.0"))
            .await
    }

    /// DEL as after a failed ADD: without a previous result.
    pub(crate) async fn del(&self, id: &str, netns: &str) -> Answer {
        self.call("DEL", id, netns, self.config("1.0.0")).await
    }

    pub(crate) async fn check(&self, id: &str, pod: &Namespace, previous: &Value) -> Answer {
        let mut config = self.config("1.0.0");
        config["prevResult"] = previous.clone();
        self.call("CHECK", id, &pod.path(), config).await
    }

    pub(crate) async fn call(&self, verb: &str, id: &str, netns: &str, config: Value) -> Answer {
        self.run(
            "seaway-cni",
            &environment(verb, id, netns),
            &config.to_string(),
        )
        .await
    }

    /// The plugin under that name, with exactly these variables and that input.
    pub(crate) async fn run(&self, name: &str, env: &[(&str, &str)], stdin: &str) -> Answer {
        let program = self.bin_dir().join(name);
        if !program.exists() {
            std::fs::create_dir_all(self.bin_dir()).unwrap();
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_seaway-cni"), &program).unwrap();
        }
        let mut command = Command::new(program)
            .env_clear()
            .netns(&self.space.netns)
            .stdin(stdin);
        for (key, value) in env {
            command = command.env(key, value);
        }
        answer(command.output().await.map(|output| output.stdout))
    }

    /// The plugin under that name, with the usual variables and these beside them.
    pub(crate) async fn call_as(
        &self,
        name: &str,
        verb: &str,
        (id, netns): (&str, &str),
        more: &[(&str, &str)],
        config: &Value,
    ) -> Answer {
        let path = self.bin_dir().display().to_string();
        let mut env = environment(verb, id, netns).to_vec();
        env[4].1 = &path;
        for (key, value) in more {
            env.retain(|(present, _)| present != key);
            env.push((key, value));
        }
        self.run(name, &env, &config.to_string()).await
    }

    /// Where plugins are looked for.
    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// A plugin that is a shell script.
    pub(crate) fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(self.bin_dir()).unwrap();
        let path = self.bin_dir().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// The links, besides loopback and the overlay's.
    pub(crate) async fn pod_links(&self) -> Vec<String> {
        let links = self.space.netlink().links().await.unwrap();
        links
            .into_iter()
            .map(|link| link.name)
            .filter(|name| name.starts_with("sw"))
            .collect()
    }

    /// The addresses in use, as the tool for operators says it.
    pub(crate) async fn leases(&self) -> Vec<IpAddr> {
        let output = Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
            .args(["ipam", "--json", "--state-dir"])
            .arg(self.state_dir())
            .output()
            .await
            .unwrap();
        let list: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        list.iter()
            .filter(|entry| entry["state"] == "in use")
            .map(|entry| entry["address"].as_str().unwrap().parse().unwrap())
            .collect()
    }
}

pub(crate) fn environment<'a>(
    verb: &'a str,
    id: &'a str,
    netns: &'a str,
) -> [(&'a str, &'a str); 5] {
    [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", id),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
}

fn answer(output: Result<Vec<u8>, CommandError>) -> Answer {
    match output {
        Ok(stdout) if stdout.is_empty() => Ok(Value::Null),
        Ok(stdout) => Ok(serde_json::from_slice(&stdout).unwrap()),
        Err(CommandError::Failed { stdout, stderr, .. }) => {
            let error: Value = serde_json::from_slice(&stdout)
                .unwrap_or_else(|_| panic!("no error object; stderr: {stderr}"));
            let message = error["msg"].as_str().unwrap().to_owned();
            Err((error["code"].as_u64().unwrap(), message))
        }
        Err(other) => panic!("{other}"),
    }
}

/// The pod's first address of an ADD result.
pub(crate) fn address(result: &Value) -> IpAddr {
    addresses(result)[0]
}

/// All of them.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let all = result["ips"].as_array().unwrap().iter();
    all.map(|ip| {
        let text = ip["address"].as_str().unwrap();
        text.split('/').next().unwrap().parse().unwrap()
    })
    .collect()
}
