//! What a packet pays for it that there are many Services.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::one_node::pod::PORT;
use super::one_node::services::targets;
use super::one_node::traffic::{Ask, Exchange, Told};
use super::one_node::wiring::Role;
use super::one_node::{Bench, BenchArgs, Contender, Pod, Stand};
use super::{Figures, Stage, Unit};

/// Few Services, to compare with.
const FEW: usize = 10;

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
        let (services, endpoints) = (size.to_string(), args.bench.endpoints());
        for contender in &contenders {
            let mut labels = contender.labels();
            labels.extend([("services", services.as_str()), ("endpoints", &endpoints)]);
            let mut measured = Measured {
                stage,
                stand: &bench.stand,
                contender,
                labels: &labels,
                figures: &mut figures,
            };
            let client = &mut bench.client;
            let done = measured.run(client, size == many).await;
            done.with_context(|| contender.title())?;
        }
    }
    Ok(figures)
}

/// One proxy under test, at one number of Services.
struct Measured<'a> {
    stage: &'a Stage,
    stand: &'a Stand,
    contender: &'a Contender,
    labels: &'a [(&'static str, &'a str)],
    figures: &'a mut Figures,
}

impl Measured<'_> {
    async fn run(&mut self, client: &mut Pod, rates: bool) -> Result<()> {
        let (running, took) = self.stand.cold_start(client, self.contender).await?;
        let count = self.stand.services.count();
        self.say(&format!("{count} Services served after {took:.2} s"));
        self.first_packets(client).await?;
        if rates {
            self.rates(client, "crr", Exchange::NewConnection).await?;
            self.rates(client, "rr", Exchange::KeptConnection).await?;
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
    async fn rates(&mut self, client: &mut Pod, name: &str, exchange: Exchange) -> Result<()> {
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
        for (labels, samples) in [(path("service"), through), (path("direct"), direct)] {
            self.figures
                .median(&labels, name, Unit::PerSecond, &samples);
        }
        let metric = format!("{name}_ratio_to_direct");
        self.figures
            .named_median(self.labels, &metric, Unit::Ratio, &ratios);
        Ok(())
    }

    fn targets(&self) -> Result<Vec<SocketAddr>> {
        let services = &self.stand.services;
        services.addresses_of(&targets(services.count()))
    }

    fn say(&self, line: &str) {
        self.stage
            .say(&format!("{}: {line}", self.contender.title()));
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
