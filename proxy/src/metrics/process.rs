//! Metrics of the process, with the names that every Prometheus client has.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads `/proc/self` when asked.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without /proc there is nothing to say.
        let Some(usage) = Usage::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        encode(
            &mut encoder,
            "process_cpu",
            "User and system time of this process and its threads",
            Some(&Unit::Seconds),
            &cpu,
        )?;
        let resident = ConstGauge::new(usage.resident_bytes);
        encode(
            &mut encoder,
            "process_resident_memory",
            "Memory that is held in RAM",
            Some(&Unit::Bytes),
            &resident,
        )?;
        let files = ConstGauge::new(usage.open_files);
        encode(
            &mut encoder,
            "process_open_fds",
            "Open file descriptors",
            None,
            &files,
        )
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    open_files: i64,
}

/// `USER_HZ`: what `/proc` counts in, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            cpu_seconds: cpu_ticks(&stat)? as f64 / TICKS_PER_SECOND,
            resident_bytes: resident_kib(&status)?.checked_mul(1024)?,
            open_files: i64::try_from(files).ok()?,
        })
    }
}

/// Fields 14 and 15, counted behind the name of the program, which may hold anything (proc(5)).
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2048));
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 0 && usage.open_files > 0 && usage.cpu_seconds >= 0.0);
    }
}
