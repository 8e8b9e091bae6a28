//! What the machine is, for `status.nodeInfo` and `status.capacity`.

use std::fs;

/// What is read once from `/proc`, `/sys` and `/etc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub cpus: usize,
    pub memory_kib: u64,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
}

impl Machine {
    /// Reads the facts; what cannot be read is empty, a node is not refused for it.
    pub fn read() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory_kib(&text("/proc/meminfo")),
            kernel: text("/proc/sys/kernel/osrelease"),
            os_image: os_image(&text("/etc/os-release")),
            machine_id: text("/etc/machine-id"),
            boot_id: boot_id(),
        }
    }
}

/// Identifies the boot: processes and namespaces of another one are gone.
pub fn boot_id() -> String {
    text("/proc/sys/kernel/random/boot_id")
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn memory_kib(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    total
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn os_image(release: &str) -> String {
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usual_files() {
        assert_eq!(
            memory_kib("MemTotal:       24576 kB\nMemFree: 1 kB\n"),
            24576
        );
        assert_eq!(memory_kib("nothing"), 0);
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_kib > 0 && !machine.boot_id.is_empty());
    }
}
