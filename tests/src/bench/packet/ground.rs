//! A node with one pod's link, and the programs loaded for it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};
use seaway_ebpf_abi::programs;
use seaway_kernel::{NetNs, Netlink, cgroup};
use seaway_model::{Change, DetectLocal, Family};
use seaway_proxy::dataplane::Dataplane as _;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, MapSizes, Programs};

use super::{rings, talk};
use crate::bench::frames::BATCH;
use crate::bench::node_port::received;

const LINK: &str = "sw00000000001";
/// The other end of that link.
const PEER: &str = "peer";
/// Behind the pod's link, where all routes lead.
const GATEWAY: u8 = 5;

/// Everything that the scenario makes; gone when dropped.
pub(super) struct Ground {
    name: String,
    bpffs: PathBuf,
    cgroup: PathBuf,
    netns: NetNs,
    /// Index of the pod's link.
    pub(super) link: u32,
    programs: Option<Programs>,
}

/// What a call of a program gave.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) packet: Vec<u8>,
    /// Of one run, in nanoseconds.
    pub(super) took: f64,
}

impl Ground {
    /// A node with so many Services, and room for so many flows of either family.
    pub(super) async fn new(services: u32, flows: u32) -> Result<Self> {
        let name = format!("swpacket{}", std::process::id());
        let mut ground = Self {
            bpffs: PathBuf::from("/sys/fs/bpf/seaway-bench").join(&name),
            cgroup: cgroup::mount_point()?.join(&name),
            netns: NetNs::create(&name)?,
            name,
            link: 0,
            programs: None,
        };
        cgroup::create(&ground.cgroup)?;
        ground.wire()?;
        let netlink = Netlink::in_namespace(&ground.netns)?;
        let link = netlink.link(LINK).await?;
        ground.link = link.context("the pod's link is gone")?.index;
        ground.serve(services, flows).await?;
        Ok(ground)
    }

    fn wire(&self) -> Result<()> {
        let mut batch = format!(
            "link set lo up\nlink add {LINK} type veth peer name {PEER}\nlink set {PEER} up\nlink set {LINK} up\n"
        );
        for (family, services) in [
            (Family::V4, "10.96.0.0/12"),
            (Family::V6, "fd00:10:96::/80"),
        ] {
            let via = talk::client(family, GATEWAY);
            batch += &format!(
                "neigh add {via} lladdr 02:00:00:00:00:05 dev {LINK} nud permanent\n\
                 route add {via} dev {LINK}\n\
                 route add {services} via {via} dev {LINK} onlink\n"
            );
            // Clients, too.
            let clients = match family {
                Family::V4 => "10.244.1.0/24",
                Family::V6 => "fd00:10:244:1::/64",
            };
            batch += &format!("route add {clients} via {via} dev {LINK} onlink\n");
        }
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("start ip")?;
        let mut input = child.stdin.take().context("no input to ip")?;
        input.write_all(batch.as_bytes())?;
        drop(input);
        ensure!(child.wait()?.success(), "ip refused: {batch}");
        let _inside = self.netns.enter()?;
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{key}"), "1")?;
        }
        Ok(())
    }

    async fn serve(&mut self, services: u32, flows: u32) -> Result<()> {
        let sizes = MapSizes {
            frontends: 4 * services + 65_536,
            backends: 4 * services + 65_536,
            // Two entries each, and of a full table the oldest would go.
            flows: (6 * flows).max(65_536),
            ..MapSizes::default()
        };
        let clients = vec!["10.244.0.0/16".parse()?, "fd00:10:244::/48".parse()?];
        let config = EbpfConfig {
            bpffs_root: self.bpffs.clone(),
            detect_local: DetectLocal::ClusterCidr(clients),
            sizes,
            ..EbpfConfig::new("bench", &self.cgroup)
        };
        let mut plane = {
            let _inside = self.netns.enter()?;
            EbpfDataplane::new(config)?
        };
        plane.observe().await?;
        let plan = plane.plan(&rings::services(services), &Change::Full);
        plane.apply(plan).await?;
        let layout = format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION);
        let mut loaded = Programs::load(&self.bpffs.join(layout), sizes)?;
        loaded.classifier(programs::IDLE)?.load()?;
        // Of a veth without any XDP program no frame can be made. And the kernel calls what is attached directly; for what is
        // not it changes its code before and after each call, waits for all CPUs, and the call finds cold caches.
        for (program, link) in [(programs::XDP_UPLINK, LINK), (programs::XDP_IDLE, PEER)] {
            let _inside = self.netns.enter()?;
            let program = loaded.xdp(program)?;
            // Ours are loaded with the rest.
            if program.fd().is_err() {
                program.load()?;
            }
            program.attach(link, XdpMode::Driver)?;
        }
        self.programs = Some(loaded);
        Ok(())
    }

    /// `struct xdp_md`: data, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`, `egress_ifindex`.
    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let words = [0, packet.len() as u32, 0, self.link, 0, 0];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Has so many frames come in by the pod's link, in the batches of a driver, with an XDP program there that decides what
    /// becomes of them: those that the other end got, a second.
    pub(super) fn live(&mut self, program: &str, packet: &[u8], batches: u32) -> Result<f64> {
        let context = self.frame(packet);
        let before = received(&self.netns, PEER)?;
        let loaded = self.programs.as_mut().context("nothing is loaded")?;
        let begun = Instant::now();
        {
            let _inside = self.netns.enter()?;
            loaded.xdp(program)?.test_run(TestRunOptions {
                data_in: Some(packet),
                ctx_in: Some(&context),
                repeat: batches * BATCH,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })?;
        }
        let took = begun.elapsed().as_secs_f64();
        let frames = received(&self.netns, PEER)? - before;
        ensure!(frames > 0, "no frame arrives at the other end");
        Ok(frames as f64 / took)
    }

    /// Has a program run over a packet, and over what it made of it, so many times.
    pub(super) fn run(&mut self, program: &str, packet: &[u8], repeat: u32) -> Result<Ran> {
        let frame = self.frame(packet);
        let loaded = self.programs.as_mut().context("nothing is loaded")?;
        let _inside = self.netns.enter()?;
        let mut out = vec![0; 256];
        let at_driver = [programs::XDP_UPLINK, programs::XDP_IDLE].contains(&program);
        let context = if at_driver {
            frame
        } else {
            // struct __sk_buff: ifindex is the eleventh word.
            let mut context = vec![0_u8; 192];
            context[40..44].copy_from_slice(&self.link.to_ne_bytes());
            context
        };
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = if at_driver {
            loaded.xdp(program)?.test_run(options)?
        } else {
            loaded.classifier(program)?.test_run(options)?
        };
        out.truncate(result.data_size_out as usize);
        Ok(Ran {
            code: result.return_value as i32,
            packet: out,
            took: result.duration.as_nanos() as f64,
        })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.programs = None;
        // Links go with their pins.
        let pins = fs::remove_dir_all(&self.bpffs);
        let _ = fs::remove_dir("/sys/fs/bpf/seaway-bench");
        let removed = pins
            .map_err(|error| error.to_string())
            .and_then(|()| NetNs::delete(&self.name).map_err(|error| error.to_string()))
            .and_then(|()| {
                let empty = cgroup::wait_empty(&self.cgroup, Duration::from_secs(1));
                empty
                    .and_then(|_| cgroup::delete(&self.cgroup))
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = removed {
            eprintln!("left behind: {}: {error}", self.name);
        }
    }
}
