//! What a packet costs in the programs of eBPF mode, by `BPF_PROG_TEST_RUN`: nanoseconds, at several numbers of Services
//! and flows, without links, queues and the rest of the kernel.
//!
//! A run changes its packet. So that one call can run a program many times, Services stand in rings: the backend of one is
//! the address of the next one, and each packet is translated into the next one's ([`rings`]). [`ground`] is the node,
//! [`talk`] makes the packets.

mod classes;
mod ground;
mod rings;
mod talk;

use anyhow::Result;
use clap::Args;

use self::classes::Classes;
use self::ground::Ground;
use super::{Figures, Stage};

/// Flags of the scenario.
#[derive(Debug, Args)]
pub struct PacketArgs {
    /// Numbers of Services to measure at
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000, 30_000], value_parser = clap::value_parser!(u32).range(10..=60_000))]
    services: Vec<u32>,

    /// Numbers of flows to measure at
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100_000], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: Vec<u32>,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &PacketArgs) -> Result<Figures> {
    let mut figures = Figures::new("packet");
    let mut flows = args.flows.clone();
    // The table is filled on and on.
    flows.sort_unstable();
    let most = flows.last().copied().unwrap_or(1);
    for services in &args.services {
        let mut ground = Ground::new(*services, most).await?;
        let mut classes = Classes::new(stage, &mut ground, &mut figures, *services)?;
        for flows in &flows {
            stage.say(&format!("{services} Services, {flows} flows"));
            classes.at(*flows)?;
        }
    }
    Ok(figures)
}
