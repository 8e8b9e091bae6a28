//! One proxy under test after the other, with the Services that there are.

use anyhow::{Context as _, Result};

use super::super::{Figures, Stage};
use super::bench::{Bench, BenchArgs, Stand};
use super::contender::Contender;
use super::pod::Pod;

/// One proxy under test, and where its figures go. What is measured is the scenario's.
pub struct Measured<'a> {
    pub stage: &'a Stage,
    pub stand: &'a Stand,
    pub contender: &'a Contender,
    pub labels: &'a [(&'static str, &'a str)],
    pub figures: &'a mut Figures,
}

impl Measured<'_> {
    /// Says how it goes, and of whom that is.
    pub fn say(&self, line: &str) {
        self.stage
            .say(&format!("{}: {line}", self.contender.title()));
    }
}

impl Bench {
    /// Lets `measure` have each of the proxies, in order. The figures are labelled with the proxy and with how many
    /// Services and endpoints there are.
    pub async fn each(
        &mut self,
        stage: &Stage,
        args: &BenchArgs,
        contenders: &[Contender],
        figures: &mut Figures,
        mut measure: impl AsyncFnMut(&mut Measured<'_>, &mut Pod) -> Result<()>,
    ) -> Result<()> {
        let services = self.stand.services.count().to_string();
        let endpoints = args.endpoints();
        for contender in contenders {
            let mut labels = contender.labels();
            labels.extend([("services", services.as_str()), ("endpoints", &endpoints)]);
            let mut measured = Measured {
                stage,
                stand: &self.stand,
                contender,
                labels: &labels,
                figures: &mut *figures,
            };
            let done = measure(&mut measured, &mut self.client).await;
            done.with_context(|| contender.title())?;
        }
        Ok(())
    }
}
