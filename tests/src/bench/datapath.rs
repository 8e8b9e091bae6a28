//! What a packet pays for it that there are many Services.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use clap::Args;

use super::one_node::pod::PORT;
use super::one_node::services::targets;
use super::one_node::traffic::{Ask, Exchange, Told};
use super::one_node::wiring::Role;
use super::one_node::{Bench, BenchArgs, Measured, Pod};
use super::statistics::median;
use super::{Figures, Stage, Unit, node_port};

/// Few Services, to compare with.
const FEW: usize = 10;

/// In eBPF mode, of a client whose sockets are not translated, but each of its packets.
const BY_PACKET: &str = "packet";

/// Exchanges under way at once.
const CONNECTIONS: usize = 32;

/// Flags of the scenario.
#[derive(Debug, Args)]
pub struct DatapathArgs {
    #[command(flatten)]
    bench: BenchArgs,
}

/// Runs the scenario.
pub async fn run(stage: &Stage, args: &DatapathArgs) -> Result<Figures> {
    let contenders = args.bench.contenders().await?;
    let mut figures = Figures::new("datapath");
    let mut bench = Bench::new(stage, &args.bench).await?;
    let many = args.bench.services();
    let mut sizes = vec![FEW, many];
    sizes.dedup();
    for size in &sizes {
        bench.stand.services.plan(*size);
    }
    for size in sizes {
        bench.populate(stage, size).await?;
        let rates = size == many;
        let measure = async |measured: &mut Measured<'_>, client: &mut Pod| {
            measured.datapath(client, rates).await
        };
        bench
            .each(stage, &args.bench, &contenders, &mut figures, measure)
            .await?;
    }
    node_port::compare(stage, &mut bench, &args.bench, &mut figures).await?;
    Ok(figures)
}

impl Measured<'_> {
    /// At one number of Services.
    async fn datapath(&mut self, client: &mut Pod, rates: bool) -> Result<()> {
        let (running, took) = self.stand.cold_start(client, self.contender).await?;
        let count = self.stand.services.count();
        self.say(&format!("{count} Services served after {took:.2} s"));
        self.first_packets(client).await?;
        if rates {
            self.rates(client, "service", "crr", Exchange::NewConnection)
                .await?;
            self.rates(client, "service", "rr", Exchange::KeptConnection)
                .await?;
        }
        if rates && self.contender.writes_maps() {
            let mut unseen = Pod::start_unseen(&self.stand.node, Role::Client).await?;
            let client = &mut unseen;
            self.rates(client, BY_PACKET, "crr", Exchange::NewConnection)
                .await?;
            self.rates(client, BY_PACKET, "rr", Exchange::KeptConnection)
                .await?;
        }
        running.stop().await
    }

    /// Connections one after the other, to each target and, in turn with them, to the backend itself.
    async fn first_packets(&mut self, client: &mut Pod) -> Result<()> {
        let count = self.stage.times(200, 50);
        let (mut direct, mut service) = (Vec::new(), Vec::new());
        for _ in 0..self.stage.times(10, 3) {
            for target in self.targets()? {
                service.extend(connect(client, target, count).await?);
                direct.extend(connect(client, backend(), count).await?);
            }
        }
        let path = |path| [self.labels, &[("path", path)]].concat();
        for (labels, samples) in [(path("service"), service), (path("direct"), direct)] {
            self.figures
                .percentiles(&labels, "first_packet", Unit::Microseconds, &samples);
        }
        Ok(())
    }

    /// Exchanges a second, each time through a Service and then to the backend itself: the ratio is of such pairs.
    async fn rates(
        &mut self,
        client: &mut Pod,
        way: &'static str,
        name: &str,
        exchange: Exchange,
    ) -> Result<()> {
        let millis = self.stage.times(1000, 300) as u64;
        let (mut through, mut direct, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.stage.times(5, 2) {
            for target in self.targets()? {
                let mut rate = async |target| {
                    let ask = Ask::Rate {
                        target,
                        exchange,
                        connections: CONNECTIONS,
                        millis,
                    };
                    match client.answer(&ask).await? {
                        Told::PerSecond(rate) => Ok(rate),
                        other => bail!("the client told {other:?}"),
                    }
                };
                let pair = (rate(target).await?, rate(backend()).await?);
                through.push(pair.0);
                direct.push(pair.1);
                ratios.push(pair.0 / pair.1);
            }
        }
        let path = |path| [self.labels, &[("path", path)]].concat();
        let labels = path(way);
        self.figures
            .median(&labels, name, Unit::PerSecond, &through);
        let metric = format!("{name}_ratio_to_direct");
        let middle = median(&ratios).unwrap_or_default();
        self.say(&format!("{metric} ({way}): {middle:.3}"));
        if way == BY_PACKET {
            self.figures
                .named_median(&labels, &metric, Unit::Ratio, &ratios);
            return Ok(());
        }
        self.figures
            .median(&path("direct"), name, Unit::PerSecond, &direct);
        self.figures
            .named_median(self.labels, &metric, Unit::Ratio, &ratios);
        Ok(())
    }

    fn targets(&self) -> Result<Vec<SocketAddr>> {
        let services = &self.stand.services;
        services.addresses_of(&targets(services.count()))
    }
}

/// What all targets lead to.
fn backend() -> SocketAddr {
    SocketAddr::new(Role::First.address().into(), PORT)
}

/// Microseconds of each of so many connections.
async fn connect(client: &mut Pod, target: SocketAddr, count: usize) -> Result<Vec<f64>> {
    match client.answer(&Ask::Connect { target, count }).await? {
        Told::Times(times) => Ok(times),
        other => bail!("the client told {other:?}"),
    }
}
