//! Which packets are measured.

use anyhow::{Result, ensure};
use seaway_ebpf_abi::programs;
use seaway_model::{Family, Protocol};

use super::ground::Ground;
use super::rings::Ring;
use super::talk::{HOPS, Says, Talk};
use crate::bench::statistics::median;
use crate::bench::{Figures, Stage, Unit};

/// What programs answer.
const PASS: i32 = -1;
const REDIRECT: i32 = 7;
const XDP_TX: i32 = 3;

/// Runs in a call. Even, for both ends of the ring.
const ROUNDS: u32 = 250;
/// The host of the flows that are measured, and the first of those that only fill the table.
const HOST: u8 = 5;
const CROWD: u8 = 10;

const XDP_FORWARD: &str = "xdp forward";
const XDP_REVERSE: &str = "xdp reverse";
const FORWARD: &str = "from_pod";
const BACK: &str = "from_uplink";

const KINDS: [(Family, Protocol); 4] = [
    (Family::V4, Protocol::Udp),
    (Family::V4, Protocol::Tcp),
    (Family::V6, Protocol::Udp),
    (Family::V6, Protocol::Tcp),
];

fn family_label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Batches in a call of live frames: a frame is sent once in each at most, and has a hop less each time.
const BATCHES: u32 = 200;
/// How often XDP is tried: a busy machine may let a second go by between two calls.
const ATTEMPTS: usize = 20;
/// Runs in a call of what answers a packet, and so cannot run over its own answer.
const ONCE: u32 = 1;
/// A place without a Service, and a port that no Service has.
const NOWHERE: u32 = 0x000f_0000;

/// The node, and where figures go.
pub(super) struct Classes<'a> {
    ground: &'a mut Ground,
    figures: &'a mut Figures,
    calls: usize,
    filling: Ring,
    services: u32,
    /// How many flows fill the table, of each family.
    filled: u32,
    /// What a run of an empty program takes: a classifier among many and alone, and XDP among many.
    empty: [f64; 3],
}

type Label = (&'static str, String);

impl<'a> Classes<'a> {
    /// Measures what the measuring costs.
    pub(super) fn new(
        stage: &Stage,
        ground: &'a mut Ground,
        figures: &'a mut Figures,
        services: u32,
    ) -> Result<Self> {
        let mut classes = Self {
            ground,
            figures,
            calls: stage.times(400, 40),
            filling: Ring::filling(services),
            services,
            filled: 0,
            empty: [0.0; 3],
        };
        for (place, program, name, rounds) in [
            (0, programs::IDLE, "empty classifier", ROUNDS),
            (1, programs::IDLE, "empty classifier", ONCE),
            (2, programs::XDP_IDLE, "empty XDP", ROUNDS),
        ] {
            let samples = (0..classes.calls)
                .map(|_| Ok(classes.ground.run(program, &[0; 60], rounds)?.took))
                .collect::<Result<Vec<f64>>>()?;
            classes.empty[place] = median(&samples).unwrap_or_default();
            let services = services.to_string();
            let labels = [
                ("program", name),
                ("services", &services),
                ("runs", &rounds.to_string()),
            ];
            classes
                .figures
                .median(&labels, "run", Unit::Nanoseconds, &samples);
        }
        Ok(classes)
    }

    /// Every class, with so many flows in the table.
    pub(super) fn at(&mut self, flows: u32) -> Result<()> {
        self.fill(flows)?;
        for (family, protocol) in KINDS {
            let talk = Talk {
                family,
                protocol,
                host: HOST,
                port: 4000,
                place: Ring::ONE.first,
            };
            self.established(&talk, flows)?;
            self.live(&talk, flows)?;
            if flows > 1 && protocol == Protocol::Udp {
                self.every_flow(&talk, flows)?;
            }
            if protocol == Protocol::Tcp {
                self.strangers(&talk, flows)?;
            }
        }
        Ok(())
    }

    /// What a packet took beyond an empty program.
    fn figure(&mut self, class: &str, talk: &Talk, flows: u32, rounds: u32, samples: &[f64]) {
        let empty = match class {
            XDP_FORWARD | XDP_REVERSE => self.empty[2],
            _ => self.empty[usize::from(rounds == ONCE)],
        };
        let net: Vec<f64> = samples.iter().map(|took| took - empty).collect();
        let labels: [Label; 6] = [
            ("class", class.to_owned()),
            ("family", family_label(talk.family).to_owned()),
            ("protocol", talk.protocol.as_str().to_lowercase()),
            ("services", self.services.to_string()),
            ("flows", flows.to_string()),
            ("runs", rounds.to_string()),
        ];
        let labels = labels.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.figures
            .median(&labels, "packet", Unit::Nanoseconds, &net);
    }

    /// The clients that fill the table, with the place where they begin.
    fn crowd(&self, talk: &Talk, flows: u32) -> Vec<Talk> {
        let place = self.filling.first;
        let clients = flows.div_ceil(self.filling.size);
        let ports = 60_000;
        (0..clients)
            .map(|client| Talk {
                protocol: Protocol::Udp,
                host: CROWD + (client / ports) as u8,
                port: 1024 + (client % ports) as u16,
                place,
                ..*talk
            })
            .collect()
    }

    /// Opens flows until there are so many of each family, and reports what first packets cost.
    fn fill(&mut self, flows: u32) -> Result<()> {
        for (family, protocol) in KINDS.iter().filter(|kind| kind.1 == Protocol::Udp) {
            let talk = Talk {
                family: *family,
                protocol: *protocol,
                host: CROWD,
                port: 0,
                place: 0,
            };
            let there = self.filled.div_ceil(self.filling.size) as usize;
            let mut samples = Vec::new();
            for talk in self.crowd(&talk, flows.max(2)).iter().skip(there) {
                samples.push(self.round(talk, FORWARD, false, Says::More, self.filling.size)?);
            }
            let rounds = self.filling.size;
            self.figure("first", &talk, flows, rounds, &samples);
        }
        self.filled = flows.max(2);
        Ok(())
    }

    /// A call over a ring: the packet comes back with fewer hops. What one run took.
    fn round(
        &mut self,
        talk: &Talk,
        program: &str,
        back: bool,
        says: Says,
        rounds: u32,
    ) -> Result<f64> {
        let packet = talk.packet(back, says, HOPS)?;
        let ran = self.ground.run(program, &packet, rounds)?;
        let expected = talk.packet(back, says, HOPS - rounds as u8)?;
        let code = if program == programs::XDP_UPLINK {
            XDP_TX
        } else {
            REDIRECT
        };
        // The Ethernet header is written or left.
        ensure!(
            ran.code == code && ran.packet.get(14..) == expected.get(14..),
            "{talk:?} by {program}: code {}, packet {:x?}",
            ran.code,
            ran.packet
        );
        Ok(ran.took)
    }

    /// One flow, in both directions.
    fn established(&mut self, talk: &Talk, flows: u32) -> Result<()> {
        let size = Ring::ONE.size;
        self.round(talk, FORWARD, false, Says::Open, size)?;
        self.round(talk, BACK, true, Says::Accept, size)?;
        self.round(talk, FORWARD, false, Says::More, size)?;
        for (class, program, back) in [("forward", FORWARD, false), ("reverse", BACK, true)] {
            let samples = (0..self.calls)
                .map(|_| self.round(talk, program, back, Says::More, ROUNDS))
                .collect::<Result<Vec<f64>>>()?;
            self.figure(class, talk, flows, ROUNDS, &samples);
        }
        for (class, program, back) in [(XDP_FORWARD, FORWARD, false), (XDP_REVERSE, BACK, true)] {
            let samples = (0..self.calls)
                .map(|_| {
                    // Once a second a packet goes the long way, which XDP leaves to tc; in between there is time enough.
                    let mut last = self.at_driver(talk, program, back);
                    for _ in 1..ATTEMPTS {
                        if last.is_ok() {
                            break;
                        }
                        last = self.at_driver(talk, program, back);
                    }
                    last
                })
                .collect::<Result<Vec<f64>>>()?;
            self.figure(class, talk, flows, ROUNDS, &samples);
        }
        Ok(())
    }

    /// A call of XDP, behind a packet for the classifier.
    fn at_driver(&mut self, talk: &Talk, program: &str, back: bool) -> Result<f64> {
        self.round(talk, program, back, Says::More, Ring::ONE.size)?;
        self.round(talk, programs::XDP_UPLINK, back, Says::More, ROUNDS)
    }

    /// Frames that are really sent, by XDP and, in turn with it, by the classifier, to which another XDP program leaves them.
    fn live(&mut self, talk: &Talk, flows: u32) -> Result<()> {
        let ways = [("xdp", programs::XDP_UPLINK), ("tc", programs::XDP_IDLE)];
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..self.calls.div_ceil(4) {
            for ((_, program), rates) in ways.iter().zip(&mut rates) {
                self.round(talk, FORWARD, false, Says::More, Ring::ONE.size)?;
                let packet = talk.packet(false, Says::More, HOPS)?;
                rates.push(self.ground.live(program, &packet, BATCHES)?);
            }
        }
        for ((way, _), rates) in ways.iter().zip(&rates) {
            let labels: [Label; 5] = [
                ("way", (*way).to_owned()),
                ("family", family_label(talk.family).to_owned()),
                ("protocol", talk.protocol.as_str().to_lowercase()),
                ("services", self.services.to_string()),
                ("flows", flows.to_string()),
            ];
            let labels = labels.each_ref().map(|(key, value)| (*key, value.as_str()));
            self.figures
                .median(&labels, "live_frames", Unit::PerSecond, rates);
        }
        Ok(())
    }

    /// Each packet of another flow, through the whole table: none of them is in a near cache.
    fn every_flow(&mut self, talk: &Talk, flows: u32) -> Result<()> {
        let rounds = self.filling.size;
        // Opened a while ago: the first round has their entries renewed, the second has their slots filled.
        let mut samples = Vec::new();
        for _ in 0..3 {
            samples.clear();
            for talk in self.crowd(talk, flows) {
                samples.push(self.round(&talk, FORWARD, false, Says::More, rounds)?);
            }
        }
        self.figure("forward, every flow in turn", talk, flows, rounds, &samples);
        Ok(())
    }

    /// Packets of no flow: to no Service at all, and to a port that a Service does not have.
    fn strangers(&mut self, talk: &Talk, flows: u32) -> Result<()> {
        let nowhere = Talk {
            place: NOWHERE,
            ..*talk
        };
        for (class, talk, says, code, rounds) in [
            ("none, open", nowhere, Says::Open, PASS, ROUNDS),
            ("none, later", nowhere, Says::More, PASS, ROUNDS),
            ("refused", *talk, Says::Open, REDIRECT, ONCE),
        ] {
            let mut packet = talk.packet(false, says, HOPS)?;
            if class == "refused" {
                // Another destination port.
                let at = if talk.family == Family::V4 { 36 } else { 56 };
                if let Some(port) = packet.get_mut(at + 1) {
                    *port ^= 1;
                }
            }
            let samples = (0..self.calls)
                .map(|_| {
                    let ran = self.ground.run(FORWARD, &packet, rounds)?;
                    ensure!(ran.code == code, "{class}: code {}", ran.code);
                    Ok(ran.took)
                })
                .collect::<Result<Vec<f64>>>()?;
            self.figure(class, &talk, flows, rounds, &samples);
        }
        Ok(())
    }
}
