//! What a process costs: processor time with all that it starts, memory, and what it writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Of the cgroup: children count, also those that have ended.
    pub cpu_ms: f64,
    /// Bytes that the process itself wrote to files and pipes: nearly all of it is what the programs are told that
    /// change the kernel. Netlink and bpf(2) are not counted.
    pub written: u64,
    /// `VmRSS` in 10^6 bytes.
    pub rss_mb: f64,
    /// `VmHWM` in 10^6 bytes.
    pub peak_rss_mb: f64,
}

impl Usage {
    /// Reads them.
    pub fn of(pid: u32, cgroup: &Path) -> Result<Self> {
        let cpu = read(&cgroup.join("cpu.stat"))?;
        let written = written(pid)?;
        let (rss_mb, peak_rss_mb) = resident_mb(pid)?;
        let cpu_us = number(&cpu, "usage_usec")
            .with_context(|| format!("{} is not as cgroups(7) says", cgroup.display()))?;
        Ok(Self {
            cpu_ms: cpu_us as f64 / 1e3,
            written,
            rss_mb,
            peak_rss_mb,
        })
    }
}

/// Resident memory of a process, now (`VmRSS`) and at most (`VmHWM`), in 10^6 bytes.
pub fn resident_mb(pid: u32) -> Result<(f64, f64)> {
    let status = read(Path::new(&format!("/proc/{pid}/status")))?;
    let megabytes = |key| Some(number(&status, key)? as f64 * 1024.0 / 1e6);
    let both = megabytes("VmRSS:").zip(megabytes("VmHWM:"));
    both.with_context(|| format!("process {pid} is not as proc(5) says"))
}

/// Memory of the eBPF maps that a process has open, each counted once, in 10^6 bytes.
pub fn map_mb(pid: u32) -> Result<f64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for file in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // A file may have been closed meanwhile.
        let text = fs::read_to_string(file?.path()).unwrap_or_default();
        maps.extend(number(&text, "map_id:").zip(number(&text, "memlock:")));
    }
    Ok(maps.values().sum::<u64>() as f64 / 1e6)
}

/// The sum of the threads: the process's own figure has that of its ended children in it, and so all that they print.
fn written(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        // A thread may have ended meanwhile.
        let io = fs::read_to_string(task?.path().join("io")).unwrap_or_default();
        sum += number(&io, "wchar:").unwrap_or_default();
    }
    Ok(sum)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The number behind a key, whatever its unit.
fn number(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(key)).then_some(words))?;
    line.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_key() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t    1000 kB\n";
        assert_eq!(number(status, "VmRSS:"), Some(1000));
        assert_eq!(number("usage_usec 5\nuser_usec 3\n", "usage_usec"), Some(5));
        assert_eq!(number(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let cgroup = seaway_kernel::cgroup::mount_point().unwrap();
        let usage = Usage::of(std::process::id(), &cgroup);
        // The root of the hierarchy has its own cpu.stat.
        assert!(usage.unwrap().rss_mb > 1.0);
    }
}
