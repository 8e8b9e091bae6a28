//! Packets between pods in mode ebpf, of pods that the plugin attached on two nodes: that they go past the stack and who may say
//! otherwise, that no connection notices where they go, and that a limited pod stays limited.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{Netlink, Scope};
use seaway_lab::{Daemon, Lab, LabConfig, Place, eventually};
use seaway_tests::bench::overlay::stream::Server;
use seaway_tests::runtimes::{Namespace, Scratch};
use seaway_tests::{fixture, require, runtimes};
use serde_json::{Map, json};

/// For whatever has to come about. A busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

const PORT: u16 = 9100;
const PAST: &str = "packets between pods: past the stack";
const THROUGH: &str = "packets between pods: through the stack";

/// A pod, attached as a runtime does it.
struct Pod {
    node: &'static str,
    space: Namespace,
    address: IpAddr,
}

/// Attaches pods; their addresses go back with the lab.
struct Runtime<'a> {
    lab: &'a Lab,
    scratch: Scratch,
}

impl Runtime<'_> {
    /// A pod that is asked at its last address: where pods have both families, that of IPv6.
    async fn pod(&self, node: &'static str, capabilities: serde_json::Value) -> Result<Pod> {
        let space = Namespace::new("pod")?;
        let (cache, capabilities) = (
            self.scratch.path().join(node),
            serde_json::from_value(capabilities)?,
        );
        let attached =
            runtimes::attach_addresses(self.lab, node, cache, &space, capabilities).await?;
        let address = attached.last().copied().context("a pod has no address")?;
        Ok(Pod {
            node,
            space,
            address,
        })
    }

    async fn plain(&self, node: &'static str) -> Result<Pod> {
        self.pod(node, json!(Map::new())).await
    }
}

/// Runs a test with a lab of two nodes in mode ebpf.
async fn with_runtime(test: impl AsyncFnOnce(&Runtime<'_>) -> Result<()>) {
    with_runtime_in(fixture::two_in_mode_ebpf(), test).await;
}

async fn with_runtime_in(config: LabConfig, test: impl AsyncFnOnce(&Runtime<'_>) -> Result<()>) {
    if !require::met(require::LAB) || !require::met(&[require::Need::Program("nft")]) {
        return;
    }
    fixture::with_lab(config, async |lab| {
        let scratch = Scratch::new("paths")?;
        test(&Runtime { lab, scratch }).await
    })
    .await;
}

/// What the kernel of a node holds, in words.
async fn dump(lab: &Lab, node: &str) -> Result<String> {
    let args = ["dump", "--actual", "--mode=ebpf"];
    let finished = lab.proxy(node, &args).await?;
    ensure!(finished.code == Some(0), "{}", finished.stderr);
    Ok(finished.stdout)
}

async fn until(lab: &Lab, node: &str, says: &str) -> Result<()> {
    let look = async || {
        let text = dump(lab, node).await?;
        ensure!(text.contains(says), "{text}");
        Ok(())
    };
    Ok(eventually(&format!("{node}: {says}"), PATIENCE, look).await?)
}

async fn counter(lab: &Lab, node: &str, label: &str) -> Result<u64> {
    let text = dump(lab, node).await?;
    let mut words = text.split_whitespace();
    words.find(|word| *word == label).context("no counter")?;
    Ok(words.next().context("no count")?.parse()?)
}

/// Answers what comes by TCP and UDP, until it is dropped.
fn echo(pod: &Pod) -> Result<Server> {
    let at = SocketAddr::new(any_like(pod.address), PORT);
    Server::start_at(pod.space.netns(), at, |stream| {
        drop(thread::spawn(move || give_back(stream)));
    })
}

/// Any address of the family.
fn any_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Every byte back to who sent it, until that one ends.
fn give_back(mut stream: TcpStream) -> io::Result<u64> {
    stream.set_nonblocking(false)?;
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)
}

fn connect(from: &Pod, to: &Pod) -> Result<TcpStream> {
    let target = SocketAddr::new(to.address, PORT);
    let stream = from
        .space
        .netns()
        .run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// How often a number is said in a turn: so that a few turns are more than the window that connection tracking knows of.
const TIMES: usize = 1000;

/// A number there and back.
fn turn(stream: &mut TcpStream, number: u64) -> Result<()> {
    let said = number.to_be_bytes().repeat(TIMES);
    stream.write_all(&said)?;
    let mut answer = vec![0; said.len()];
    stream.read_exact(&mut answer)?;
    ensure!(answer == said, "{number} came back as something else");
    Ok(())
}

/// A connection on which numbers go there and back without a pause.
struct Talk {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Talk {
    fn begin(from: &Pod, to: &Pod) -> Result<Self> {
        let mut stream = connect(from, to)?;
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                turn(&mut stream, counts.fetch_add(1, Ordering::Relaxed))?;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Ok(Self { stop, done, thread })
    }

    /// Waits until it has got ahead.
    async fn goes_on(&self) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + 50;
        let look = async || {
            let now = self.done.load(Ordering::Relaxed);
            ensure!(now >= goal || self.thread.is_finished(), "{now} of {goal}");
            Ok(())
        };
        eventually("numbers between pods", PATIENCE, look).await?;
        ensure!(!self.thread.is_finished(), "the connection broke");
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// One datagram that comes back.
fn datagram(from: &Pod, to: &Pod) -> Result<()> {
    let any = any_like(to.address);
    let socket = from.space.netns().run(|| UdpSocket::bind((any, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"hello", (to.address, PORT))?;
    let mut buffer = [0; 16];
    ensure!(socket.recv(&mut buffer)? == 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_past_the_stack_with_own_addresses_and_where_no_rule_is() {
    with_runtime(go_past_the_stack).await;
}

/// The network between the nodes is IPv4 all the same.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_ipv6_go_past_the_stack_where_pods_have_both_families() {
    with_runtime_in(fixture::two_in_mode_ebpf().dual_stack(), async |runtime| {
        let pod = runtime.plain("n1").await?;
        ensure!(pod.address.is_ipv6(), "{}", pod.address);
        go_past_the_stack(runtime).await
    })
    .await;
}

async fn go_past_the_stack(runtime: &Runtime<'_>) -> Result<()> {
    let lab = runtime.lab;
    let (pod, beside) = (runtime.plain("n1").await?, runtime.plain("n1").await?);
    let far = runtime.plain("n2").await?;
    let _servers = [&pod, &beside, &far].map(echo);
    for pod in [&pod, &beside, &far] {
        until(lab, pod.node, PAST).await?;
        until(lab, pod.node, &format!("{} at link", pod.address)).await?;
    }
    for node in ["n1", "n2"] {
        until(lab, node, "at node").await?;
    }
    // Past the stack in both directions, on the node of either.
    for (from, to, counted) in [
        (&pod, &beside, &[("n1", "pod_local", 20)][..]),
        (
            &pod,
            &far,
            &[
                ("n1", "pod_remote", 10),
                ("n1", "pod_local", 10),
                ("n2", "pod_remote", 10),
                ("n2", "pod_local", 10),
            ],
        ),
    ] {
        let mut before = Vec::new();
        for (node, label, _) in counted {
            before.push(counter(lab, node, label).await?);
        }
        let mut stream = connect(from, to)?;
        for number in 0..5 {
            turn(&mut stream, number)?;
            datagram(from, to)?;
        }
        for ((node, label, packets), before) in counted.iter().zip(before) {
            let count = counter(lab, node, label).await? - before;
            ensure!(count >= *packets, "{node} {label}: {count}");
        }
        arrives_whole(from, to)?;
    }
    foreign_sources_are_dropped(lab, &pod, &beside).await?;
    rules_count(lab, &pod, &beside).await
}

/// Many bytes, each of which says where it belongs, there and back.
fn arrives_whole(from: &Pod, to: &Pod) -> Result<()> {
    const CHUNKS: u64 = 200;
    let chunk = |number: u64| -> Vec<u8> {
        let words = (0..8192).map(|word| number << 32 | word);
        words.flat_map(u64::to_be_bytes).collect()
    };
    let mut stream = connect(from, to)?;
    let mut sender = stream.try_clone()?;
    let sent = thread::spawn(move || -> io::Result<()> {
        for number in 0..CHUNKS {
            sender.write_all(&chunk(number))?;
        }
        sender.shutdown(Shutdown::Write)
    });
    for number in 0..CHUNKS {
        let expected = chunk(number);
        let mut came = vec![0; expected.len()];
        stream.read_exact(&mut came)?;
        ensure!(came == expected, "chunk {number} is another");
    }
    ensure!(stream.read(&mut [0])? == 0, "more came than was sent");
    let sent = sent.join();
    Ok(sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
}

/// What a pod sends with another's address.
async fn foreign_sources_are_dropped(lab: &Lab, pod: &Pod, beside: &Pod) -> Result<()> {
    let netlink = Netlink::in_namespace(pod.space.netns())?;
    let link = netlink.link("eth0").await?.context("no eth0")?.index;
    let foreign = match pod.address {
        IpAddr::V4(_) => IpAddr::from([10, 244, 99, 99]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0x10, 0x244, 99, 0, 0, 0, 99]),
    };
    netlink
        .add_address(link, foreign.into(), Scope::Global)
        .await?;
    // Of IPv6 it may be used when nobody else is found to have it.
    let netns = pod.space.netns().clone();
    tokio::task::spawn_blocking(move || netns.await_ready()).await??;
    let before = counter(lab, pod.node, "dropped_spoofed").await?;
    let socket = pod.space.netns().run(|| UdpSocket::bind((foreign, 0)))??;
    socket.send_to(b"hello", (beside.address, PORT))?;
    let dropped = async || {
        let count = counter(lab, pod.node, "dropped_spoofed").await? - before;
        ensure!(count > 0, "none");
        Ok(())
    };
    eventually("the datagram is dropped", PATIENCE, dropped).await?;
    datagram(pod, beside)
}

/// A rule for forwarded packets, as those that make NetworkPolicies, counts as soon as it is seen; and no longer.
async fn rules_count(lab: &Lab, pod: &Pod, beside: &Pod) -> Result<()> {
    let node = lab.node(pod.node)?;
    let (from, to) = (pod.address, beside.address);
    let family = if to.is_ipv4() { "ip" } else { "ip6" };
    nft(&node, &format!("add table {family} netpol")).await?;
    let hook = "{ type filter hook forward priority 0; policy accept; }";
    nft(&node, &format!("add chain {family} netpol forward {hook}")).await?;
    let rule =
        format!("add rule {family} netpol forward {family} saddr {from} {family} daddr {to} drop");
    nft(&node, &rule).await?;
    until(lab, pod.node, THROUGH).await?;
    let target = SocketAddr::new(to, PORT);
    let refused = pod
        .space
        .netns()
        .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)))?;
    let kind = refused.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::TimedOut), "{kind:?}");
    nft(&node, &format!("delete table {family} netpol")).await?;
    until(lab, pod.node, PAST).await?;
    datagram(pod, beside)
}

async fn nft(node: &Place, line: &str) -> Result<()> {
    let finished = node.run("nft", [line]).await?;
    ensure!(finished.code == Some(0), "{line}: {}", finished.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_between_pods_notices_what_becomes_of_the_proxy() {
    with_runtime(connections_go_on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_of_ipv6_notices_what_becomes_of_the_proxy() {
    with_runtime_in(fixture::two_in_mode_ebpf().dual_stack(), connections_go_on).await;
}

async fn connections_go_on(runtime: &Runtime<'_>) -> Result<()> {
    let lab = runtime.lab;
    let (pod, beside) = (runtime.plain("n1").await?, runtime.plain("n1").await?);
    let far = runtime.plain("n2").await?;
    let _servers = [&pod, &beside, &far].map(echo);
    for node in ["n1", "n2"] {
        until(lab, node, PAST).await?;
    }
    let pairs = [(&pod, &beside), (&pod, &far), (&far, &beside)];
    let mut talks = Vec::new();
    let begin = || pairs.map(|(from, to)| Talk::begin(from, to));
    for talk in begin() {
        talks.push(talk?);
    }
    go_on(&talks).await?;
    switch(lab, "n1", "iptables").await?;
    // Some that begin in the stack.
    for talk in begin() {
        talks.push(talk?);
    }
    go_on(&talks).await?;
    for mode in ["ebpf", "iptables", "ebpf"] {
        switch(lab, "n1", mode).await?;
        if mode == "ebpf" {
            until(lab, "n1", PAST).await?;
        }
        go_on(&talks).await?;
    }
    for node in ["n1", "n2"] {
        let proxy = Daemon::Proxy(node.into());
        lab.kill(&proxy).await?;
        go_on(&talks).await?;
        lab.start(&proxy).await?;
        go_on(&talks).await?;
    }
    // Through the stack again, when nothing of ours is left.
    lab.stop(&Daemon::Proxy("n1".into())).await?;
    let cleaned = lab.proxy_cleanup("n1").await?;
    ensure!(cleaned.code == Some(0), "{}", cleaned.stderr);
    ensure!(dump(lab, "n1").await?.contains("nothing is loaded"));
    go_on(&talks).await?;
    talks.into_iter().try_for_each(Talk::end)
}

async fn go_on(talks: &[Talk]) -> Result<()> {
    for talk in talks {
        talk.goes_on().await?;
    }
    Ok(())
}

/// Changes the mode while the daemon runs.
async fn switch(lab: &Lab, node: &str, mode: &str) -> Result<()> {
    let program = lab.config().binaries.join("seaway-proxy");
    let run_dir = format!("--run-dir={}", lab.node_files(node).join("run").display());
    let finished = lab
        .node(node)?
        .run(program, ["switch", mode, &run_dir])
        .await?;
    ensure!(finished.code == Some(0), "{mode}: {}", finished.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_pod_stays_limited() {
    /// Bytes a second, and what may pass at once.
    const RATE: u64 = 500_000;
    const BURST: u64 = 100_000;
    const BYTES: usize = 1_500_000;
    with_runtime(async |runtime| {
        let lab = runtime.lab;
        let (rate, burst) = (RATE * 8, BURST * 8);
        let limits = json!({"bandwidth": {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst}});
        let limited = runtime.pod("n1", limits).await?;
        let plain = runtime.plain("n1").await?;
        let _servers = [&limited, &plain].map(echo);
        until(lab, "n1", PAST).await?;
        until(lab, "n1", &format!("{} at link", plain.address)).await?;
        let link = format!("{} at link", limited.address);
        let is_slow = async || {
            let text = dump(lab, "n1").await?;
            let line = text.lines().find(|line| line.contains(&link));
            let line = line.context("the pod is not known")?;
            ensure!(line.ends_with(", through the stack"), "{line}");
            Ok::<_, anyhow::Error>(())
        };
        eventually("the limit is seen", PATIENCE, is_slow).await?;
        for (from, to) in [(&plain, &limited), (&limited, &plain)] {
            let started = Instant::now();
            let mut stream = connect(from, to)?;
            let mut reader = stream.try_clone()?;
            let echoed = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
            stream.write_all(&vec![7; BYTES])?;
            stream.shutdown(Shutdown::Write)?;
            let echoed = echoed.join().map_err(|_| anyhow::anyhow!("no reader"))??;
            ensure!(echoed == BYTES as u64, "{echoed}");
            // Whatever is slow besides makes it longer only.
            let least = Duration::from_secs_f64((BYTES as u64 - BURST) as f64 / RATE as f64);
            let took = started.elapsed();
            ensure!(took >= least, "{took:?}, not {least:?}");
        }
        Ok(())
    })
    .await;
}
