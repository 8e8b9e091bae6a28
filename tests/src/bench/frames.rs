//! A sender that costs little: frames that an XDP program puts on a link, again and again, as a card would get them from afar.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};
use nix::net::if_::if_nametoindex;
use seaway_ebpf_abi::programs::{AGAIN, XDP_AGAIN};
use seaway_kernel::NetNs;
use seaway_proxy::ebpf::{MapSizes, Programs};

/// Where maps are pinned, which nobody uses.
const PINS: &str = "/sys/fs/bpf/seaway-bench";
/// Frames that are sent together (`NAPI_POLL_WEIGHT`).
pub(super) const BATCH: u32 = 64;

/// The sender at one link; gone when dropped.
pub(super) struct Frames {
    programs: Programs,
    pins: PathBuf,
    netns: NetNs,
    index: u32,
}

impl Frames {
    /// At a link of a namespace, whose other end has to take frames.
    pub(super) fn new(netns: NetNs, link: &str) -> Result<Self> {
        let pins = PathBuf::from(PINS).join(format!("frames{}", std::process::id()));
        fs::create_dir_all(&pins).with_context(|| format!("create {}", pins.display()))?;
        let sizes = MapSizes {
            affinity: 64,
            flows: 64,
            sockets: 64,
            ..MapSizes::default()
        };
        let mut programs = Programs::load(&pins, sizes)?;
        let index = netns.run(|| -> Result<u32> {
            let program = programs.xdp(XDP_AGAIN)?;
            program.load()?;
            // It goes with the program. Without it the link makes no frames.
            program.attach(link, XdpMode::Driver)?;
            Ok(if_nametoindex(link)?)
        })??;
        Ok(Self {
            programs,
            pins,
            netns,
            index,
        })
    }

    /// Sends a frame of UDP over IPv4, so many batches.
    pub(super) fn send(&mut self, frame: &[u8], batches: u32) -> Result<()> {
        let header = frame.get(..AGAIN).context("the frame is too short")?;
        let bytes = [header, frame].concat();
        // `struct xdp_md`: the frame begins behind its metadata.
        let words = [AGAIN as u32, bytes.len() as u32, 0, self.index, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let _inside = self.netns.enter()?;
        self.programs.xdp(XDP_AGAIN)?.test_run(TestRunOptions {
            data_in: Some(&bytes),
            ctx_in: Some(&context),
            repeat: batches * BATCH,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.pins) {
            eprintln!("left behind: {}: {error}", self.pins.display());
        }
        // Not if somebody else has something there.
        let _ = fs::remove_dir(PINS);
    }
}
