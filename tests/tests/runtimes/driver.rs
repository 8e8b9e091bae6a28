//! Debian's libcni by a program of a few lines in Go: no runtime of its time calls CHECK.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use seaway_kernel::{Command, CommandError, Netlink, RouteFilter};
use seaway_tests::require::{self, Need};
use seaway_tests::runtimes::libcni::addresses;
use seaway_tests::runtimes::{Namespace, Node, REFERENCE_PLUGINS, node};
use seaway_tests::trace;
use serde_json::{Value, json};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Binaries,
    Need::File("/usr/bin/go", "golang-go"),
    Need::File(
        "/usr/share/gocode/src/github.com/containernetworking/cni/libcni/api.go",
        "golang-github-appc-cni-dev",
    ),
    Need::File("/usr/lib/cni/tuning", "containernetworking-plugins"),
];

/// Builds it from what Debian has, and nothing from elsewhere.
async fn build(dir: &Path) -> Result<PathBuf> {
    let program = dir.join("driver");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/runtimes/driver/main.go");
    Command::new("/usr/bin/go")
        .arg("build")
        .arg("-o")
        .arg(&program)
        .arg(source)
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", dir.join("go-cache"))
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("CGO_ENABLED", "0")
        .timeout(std::time::Duration::from_secs(180))
        .output()
        .await?;
    Ok(program)
}

#[tokio::test]
async fn debians_libcni_adds_checks_and_deletes_in_every_version() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let node = Node::new().await?;
    let driver = build(node.dir()).await?;
    let plugins = seaway_lab::topology::binaries()?;
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let before = trace::of_namespace(node.netns()).await?;
        let ours = node.plugin("libcni", &["10.244.1.0/24", "fd00:10:244:1::/64"])?;
        let list = json!({
            "cniVersion": version, "name": "libcni",
            "plugins": [ours, {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}],
        });
        let file = node.dir().join("libcni.conflist");
        std::fs::write(&file, list.to_string())?;
        let space = Namespace::new("pod")?;
        let run = async |verb: &str| -> Result<String, CommandError> {
            let output = Command::new(&driver)
                .arg(verb)
                .arg(&file)
                .args([space.name(), &space.path()])
                .arg(node.dir().join("cache"))
                .arg(&plugins)
                .arg(REFERENCE_PLUGINS)
                .netns(node.netns())
                .output()
                .await?;
            Ok(output.text())
        };
        run("VALIDATE").await?;
        let result: Value = serde_json::from_str(&run("ADD").await?)?;
        assert_eq!(result["cniVersion"], version);
        assert_eq!(addresses(&result).len(), 2, "{result}");
        let check = run("CHECK").await;
        if version == "0.3.1" {
            ensure!(check.is_err(), "there is no CHECK in {version}");
        } else {
            check?;
            break_something(&space).await?;
            let why = run("CHECK").await.err().map(|error| error.to_string());
            let why = why.unwrap_or_default();
            ensure!(why.contains("route"), "{version}: CHECK said {why:?}");
        }
        run("DEL").await?;
        run("DEL").await?;
        let owners = node::owners(&plugins.join("seaway-cni"), &node.state()).await?;
        ensure!(owners.is_empty(), "{version}: {owners:?}");
        trace::is_again(node.netns(), &before).await?;
    }
    Ok(())
}

/// Takes the default routes from a pod.
async fn break_something(pod: &Namespace) -> Result<()> {
    let netlink = Netlink::in_namespace(pod.netns())?;
    let routes = netlink.routes(RouteFilter::default()).await?;
    let defaults = routes
        .iter()
        .filter(|route| route.destination.prefix() == 0);
    let mut count = 0;
    for route in defaults {
        netlink.delete_route(route).await?;
        count += 1;
    }
    ensure!(count > 0, "{routes:?}");
    Ok(())
}
