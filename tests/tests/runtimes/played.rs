//! The plugin, called as real runtimes were recorded to call it, by one that is played: what Debian's are too old to send.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{Netlink, RouteSocket};
use seaway_tests::require::{self, Need};
use seaway_tests::runtimes::libcni::addresses;
use seaway_tests::runtimes::list::{NEW, OLD};
use seaway_tests::runtimes::{Attachment, Libcni, List, Namespace, Node, REFERENCE_PLUGINS, node};
use seaway_tests::trace;
use serde_json::{Map, Value, json};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Binaries,
    Need::File("/usr/lib/cni/portmap", "containernetworking-plugins"),
];

/// For a connection on one machine.
const LIMIT: Duration = Duration::from_secs(5);

const RANGE: &[&str] = &["10.244.1.0/24"];

/// A node, its runtime, and what was there before.
struct Stage {
    node: Node,
    runtime: Libcni,
    before: BTreeSet<String>,
}

impl Stage {
    async fn new() -> Result<Self> {
        let node = Node::new().await?;
        let runtime = Libcni {
            node: node.netns().clone(),
            path: vec![
                seaway_lab::topology::binaries()?,
                REFERENCE_PLUGINS.into(),
                node.dir().join("bin"),
            ],
            cache: node.dir().join("cache"),
        };
        let before = trace::of_namespace(node.netns()).await?;
        Ok(Self {
            node,
            runtime,
            before,
        })
    }

    /// A list of ours and these others, in the form in which we ship ours: old and new clients take it.
    fn list(&self, network: &str, others: &[Value], speaks: &[&str]) -> Result<List> {
        let ours = self.node.plugin(network, RANGE)?;
        let plugins: Vec<Value> = std::iter::once(ours)
            .chain(others.iter().cloned())
            .collect();
        let list = json!({
            "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": network, "plugins": plugins,
        });
        List::parse(&list.to_string(), speaks)
    }

    async fn owners(&self) -> Result<Vec<(String, IpAddr)>> {
        let plugin = seaway_lab::topology::binaries()?.join("seaway-cni");
        node::owners(&plugin, &self.node.state()).await
    }

    /// As it was, and no address has an owner.
    async fn is_as_before(&self) -> Result<()> {
        let owners = self.owners().await?;
        ensure!(owners.is_empty(), "addresses are left: {owners:?}");
        trace::is_again(self.node.netns(), &self.before).await
    }

    /// The same but for the bridge, which the reference plugin leaves.
    async fn is_as_before_the_bridge(&self) -> Result<()> {
        let netlink = Netlink::in_namespace(self.node.netns())?;
        netlink.delete_link_named("cni0").await?;
        self.is_as_before().await
    }
}

fn pod(space: &Namespace) -> Attachment {
    Attachment {
        container_id: space.name().to_owned(),
        ifname: "eth0".into(),
        netns: space.path(),
        args: format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID={0};K8S_POD_UID=uid-{0}",
            space.name()
        ),
        capabilities: Map::new(),
    }
}

fn given(capabilities: Value) -> Map<String, Value> {
    match capabilities {
        Value::Object(given) => given,
        other => panic!("capabilities are an object, not {other}"),
    }
}

/// What a plugin is given that serves both.
fn a_port_and_limits() -> Map<String, Value> {
    let rate = 8_000_000;
    given(json!({
        "portMappings": [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": rate, "ingressBurst": rate, "egressRate": rate, "egressBurst": rate},
    }))
}

#[tokio::test]
async fn as_cri_o_calls_it() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let list = stage.list("crio", &[], NEW)?;
    // At its start: is the plugin fit, can it serve, and what is to be forgotten of an earlier life?
    let answer = stage.runtime.version(&list, 0).await?;
    let supported = answer["supportedVersions"].as_array().context("versions")?;
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        ensure!(supported.contains(&json!(version)), "{answer}");
    }
    stage.runtime.status(&list).await?;
    let none: Vec<Attachment> = Vec::new();
    assert_eq!(stage.runtime.gc(&list, &none).await, []);
    // Camel case, and a burst beyond 32 bits.
    let space = Namespace::new("pod")?;
    let mut pod = pod(&space);
    pod.capabilities = given(json!({
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
        "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 34_359_738_359_u64, "egressRate": 0, "egressBurst": 0},
    }));
    stage.runtime.add(&list, &pod).await?;
    stage.runtime.check(&list, &pod).await?;
    stage.runtime.del(&list, &pod).await?;
    stage.is_as_before().await
}

#[tokio::test]
async fn as_containerd_calls_it() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    for speaks in [OLD, NEW] {
        let stage = Stage::new().await?;
        let list = stage.list("containerd", &[], speaks)?;
        let space = Namespace::new("pod")?;
        let mut pod = pod(&space);
        // Names of Go's fields, in which its JSON is not strict.
        pod.capabilities = given(json!({
            "portMappings": [{"HostPort": 18080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 10_000_000, "IngressBurst": 4_294_967_295_u32, "EgressRate": 0, "EgressBurst": 0},
        }));
        let loopback = List::parse(
            r#"{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}"#,
            speaks,
        )?;
        let lo = Attachment {
            ifname: "lo".into(),
            ..pod.clone()
        };
        stage.runtime.add(&loopback, &lo).await?;
        stage.runtime.add(&list, &pod).await?;
        if list.at_least("1.1.0") {
            stage.runtime.status(&list).await?;
        }
        stage.runtime.del(&list, &pod).await?;
        stage.runtime.del_again(&list, &pod).await?;
        stage.runtime.del_again(&list, &pod).await?;
        stage.is_as_before().await?;
    }
    Ok(())
}

#[tokio::test]
async fn as_podman_calls_it() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let list = stage.list("podman", &[], OLD)?;
    stage.runtime.version(&list, 0).await?;
    let space = Namespace::new("pod")?;
    let mut pod = pod(&space);
    pod.args = "IgnoreUnknown=1;K8S_POD_NAME=w;MAC=02:00:00:00:00:50;IP=10.244.1.50".into();
    // Unlike the convention, a map from networks to names.
    pod.capabilities = given(json!({"aliases": {"podman": ["w"]}}));
    let result = stage.runtime.add(&list, &pod).await?;
    assert_eq!(addresses(&result), ["10.244.1.50/32".parse()?]);
    let link = Netlink::in_namespace(space.netns())?.link("eth0").await?;
    let mac = link.context("no eth0")?.mac.context("no address")?;
    assert_eq!(mac.to_string(), "02:00:00:00:00:50");
    stage.runtime.del(&list, &pod).await?;
    stage.is_as_before().await
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_no_obstacle_and_nothing_is_left() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let list = stage.list("gone", &[], OLD)?;
    let space = Namespace::new("pod")?;
    let pod = pod(&space);
    stage.runtime.add(&list, &pod).await?;
    drop(space);
    // containerd gives no path, but the result of ADD; then neither.
    let result = json!({"cniVersion": "1.0.0", "ips": []});
    let request = list.request(0, Some(&result), &Map::new());
    let nowhere = Attachment {
        netns: String::new(),
        ..pod.clone()
    };
    stage
        .runtime
        .call("DEL", &list, 0, request, &nowhere)
        .await?;
    stage.runtime.del_again(&list, &pod).await?;
    // Others give the path that led there.
    stage.runtime.del(&list, &pod).await?;
    stage.is_as_before().await
}

#[tokio::test]
async fn a_later_plugin_that_fails_leaves_nothing_of_ours() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let bin = stage.node.dir().join("bin");
    std::fs::create_dir_all(&bin)?;
    let script = "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || { echo '{\"code\": 7, \"msg\": \"no\"}'; exit 1; }\n";
    let program: PathBuf = bin.join("refuses");
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let list = stage.list("fails", &[json!({"type": "refuses"})], NEW)?;
    let space = Namespace::new("pod")?;
    let failure = stage.runtime.add(&list, &pod(&space)).await.err();
    let failure = failure.context("ADD went well")?;
    assert_eq!(
        (failure.plugin.as_str(), failure.code),
        ("refuses", Some(7))
    );
    let left = Netlink::in_namespace(space.netns())?.link("eth0").await?;
    assert_eq!(left, None);
    stage.is_as_before().await
}

#[tokio::test]
async fn reference_plugins_come_behind_it_in_every_version() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let others = [
            json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}),
            json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
            json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}),
        ];
        let mut list = stage.list("chained", &others, &["0.4.0"])?;
        list.version = version.to_owned();
        // Ours is to leave to them what they are there for.
        if let Some(ours) = list.plugins.first_mut() {
            ours.remove("capabilities");
        }
        let space = Namespace::new("pod")?;
        let mut pod = pod(&space);
        pod.capabilities = a_port_and_limits();
        let result = stage.runtime.add(&list, &pod).await?;
        assert_eq!(result["cniVersion"], version);
        assert_eq!(addresses(&result).len(), 1, "{result}");
        if version != "0.3.1" {
            // Debian's portmap cannot check a mapping of one family: the others are asked.
            list.plugins.pop();
            stage.runtime.check(&list, &pod).await?;
            list.plugins
                .push(serde_json::from_value(others[2].clone())?);
        }
        stage.runtime.del(&list, &pod).await?;
        let owners = stage.owners().await?;
        ensure!(owners.is_empty(), "{version}: {owners:?}");
        let links = Netlink::in_namespace(stage.node.netns())?.links().await?;
        let of_pods = links.iter().filter(|link| link.name.starts_with("sw"));
        assert_eq!(of_pods.count(), 0, "{version}: {links:?}");
    }
    Ok(())
}

#[tokio::test]
async fn it_comes_behind_reference_plugins_in_every_version() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]],
            "dataDir": stage.node.dir().join("host-local"),
        },
    });
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let mut list = stage.list("behind", std::slice::from_ref(&bridge), &["0.4.0"])?;
        list.version = version.to_owned();
        list.plugins.reverse();
        let space = Namespace::new("pod")?;
        let mut pod = pod(&space);
        pod.capabilities = a_port_and_limits();
        let result = stage.runtime.add(&list, &pod).await?;
        assert_eq!(result["cniVersion"], version);
        let [address] = addresses(&result)[..] else {
            anyhow::bail!("{result}");
        };
        assert_eq!(address.prefix(), 24, "as the bridge has it: {result}");
        let limits = RouteSocket::in_namespace(stage.node.netns())?.queued_links()?;
        assert_eq!(
            limits.len(),
            2,
            "the bridge's link to the pod, and ours: {limits:?}"
        );
        // At the address that the node has in its overlay.
        let port = SocketAddr::from(([10, 244, 1, 0], 18080));
        let listener = space.netns().run(|| TcpListener::bind("0.0.0.0:8080"))??;
        let connect = || TcpStream::connect_timeout(&port, LIMIT);
        let client = stage.node.netns().run(connect)?.context(version)?;
        assert_eq!(listener.accept()?.1, client.local_addr()?);
        if version != "0.3.1" {
            stage.runtime.check(&list, &pod).await?;
        }
        stage.runtime.del(&list, &pod).await?;
        stage.is_as_before_the_bridge().await?;
    }
    Ok(())
}

#[tokio::test]
async fn in_place_of_host_local_it_gives_addresses_to_a_reference_plugin() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let bin = stage.node.dir().join("bin");
    std::fs::create_dir_all(&bin)?;
    let plugin = seaway_lab::topology::binaries()?.join("seaway-cni");
    std::os::unix::fs::symlink(plugin, bin.join("host-local"))?;
    let runtime = Libcni {
        node: stage.node.netns().clone(),
        path: vec![bin, REFERENCE_PLUGINS.into()],
        cache: stage.node.dir().join("cache"),
    };
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        // One address, and room for no other.
        let list = json!({
            "cniVersion": version, "name": "bridged",
            "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": stage.node.state().join("ipam"),
                    "ranges": [[{"subnet": "10.88.0.0/30"}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        let list = List::parse(&list.to_string(), &[version])?;
        let (space, second) = (Namespace::new("pod")?, Namespace::new("pod")?);
        let result = runtime.add(&list, &pod(&space)).await?;
        assert_eq!(addresses(&result), ["10.88.0.2/30".parse()?], "{version}");
        let owner = (space.name().to_owned(), IpAddr::from([10, 88, 0, 2]));
        assert_eq!(stage.owners().await?, [owner]);
        if version != "0.3.1" {
            runtime.check(&list, &pod(&space)).await?;
        }
        let full = runtime.add(&list, &pod(&second)).await.err();
        assert_eq!(full.context("two pods, one address")?.code, Some(101));
        runtime.del(&list, &pod(&space)).await?;
        stage.is_as_before_the_bridge().await?;
    }
    Ok(())
}

#[tokio::test]
async fn gc_removes_what_no_runtime_knows_and_of_no_other_network() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let (list, other) = (
        stage.list("ours", &[], NEW)?,
        stage.list("others", &[], NEW)?,
    );
    let spaces = [(); 3].map(|()| Namespace::new("pod"));
    let [lost, known, elsewhere] = spaces;
    let (lost, known, elsewhere) = (lost?, known?, elsewhere?);
    for (list, space) in [(&list, &lost), (&list, &known), (&other, &elsewhere)] {
        stage.runtime.add(list, &pod(space)).await?;
    }
    // What cnitool sends says nothing of any pod.
    let refused = stage.runtime.gc_with(&list, None).await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(stage.owners().await?.len(), 3);

    // libcni knows the lost one by its own files, and runs DEL; without them the plugin has to find it.
    std::fs::remove_dir_all(&stage.runtime.cache)?;
    assert_eq!(stage.runtime.gc(&list, &[pod(&known)]).await, []);
    let names = |owners: Vec<(String, IpAddr)>| {
        owners
            .into_iter()
            .map(|(id, _)| id)
            .collect::<BTreeSet<_>>()
    };
    let left = [&known, &elsewhere].map(|space| space.name().to_owned());
    assert_eq!(names(stage.owners().await?), BTreeSet::from(left));

    assert_eq!(stage.runtime.gc(&list, &[]).await, []);
    let left = BTreeSet::from([elsewhere.name().to_owned()]);
    assert_eq!(names(stage.owners().await?), left);
    assert_eq!(stage.runtime.gc(&other, &[]).await, []);
    stage.is_as_before().await
}

#[tokio::test]
async fn status_says_what_add_would_say() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let list = stage.list("status", &[], NEW)?;
    stage.runtime.status(&list).await?;
    std::fs::remove_file(stage.node.dir().join("status/node.json"))?;
    let space = Namespace::new("pod")?;
    let status = stage.runtime.status(&list).await.err().map(|e| e.code);
    assert_eq!(status, Some(Some(50)));
    let add = stage.runtime.add(&list, &pod(&space)).await.err();
    assert_eq!(add.map(|e| e.code), Some(Some(11)));
    // And a DEL is served all the same.
    stage.runtime.del(&list, &pod(&space)).await?;
    stage.is_as_before().await
}

#[tokio::test]
async fn fifty_at_once_get_fifty_addresses() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let stage = Stage::new().await?;
    let list = stage.list("many", &[], NEW)?;
    let spaces = (0..50)
        .map(|_| Namespace::new("pod"))
        .collect::<Result<Vec<_>>>()?;
    let pods: Vec<Attachment> = spaces.iter().map(pod).collect();
    let adds = pods.iter().map(|pod| stage.runtime.add(&list, pod));
    let results = futures::future::try_join_all(adds).await?;
    let seen: BTreeSet<_> = results.iter().flat_map(addresses).collect();
    assert_eq!(seen.len(), 50);
    let dels = pods.iter().map(|pod| stage.runtime.del(&list, pod));
    futures::future::try_join_all(dels).await?;
    stage.is_as_before().await
}
