//! What a suite could leave behind on the machine, as a list: before and after must be the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::workspace::Workspace;

/// The kernel takes deleted namespaces apart some time later.
const PATIENCE: Duration = Duration::from_secs(20);

/// Directories below which every file counts; the directories themselves may stay, but [`PINS`].
const TREES: &[&str] = &[
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/run/netns",
    "/run/seaway",
    PINS,
    "/var/lib/cni/networks",
    "/var/lib/cni/results",
    "/var/lib/seaway",
];

/// The last data plane takes it away.
const PINS: &str = "/sys/fs/bpf/seaway";

/// Directories in which names of ours count.
const SHARED: &[&str] = &["/sys/fs/cgroup", "/tmp"];

/// Prefixes of our names there.
const OURS: &[&str] = &["seaway", "sw-"];

/// The cgroup above those of all labs stays, too.
const LABS: &str = "seaway-lab";

/// What prints a list of what is in the kernel.
const COMMANDS: &[&[&str]] = &[
    &["ip", "-o", "address"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["iptables-legacy-save"],
    &["ip6tables-legacy-save"],
    &["iptables-nft-save"],
    &["ip6tables-nft-save"],
];

/// The machine as it is now.
pub(crate) fn survey(workspace: &Workspace) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let links = output(&["ip", "-o", "link"]);
    // Of a link only the name: counters and flags of others change.
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    found.extend(names.map(|name| format!("link {name}")));
    for command in COMMANDS {
        let text = output(command);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        found.extend(lines.map(|line| format!("{}: {}", command.join(" "), lasting(line))));
    }
    for tree in TREES {
        list(Path::new(tree), &mut found);
    }
    found.extend(Path::new(PINS).exists().then(|| PINS.to_owned()));
    for directory in SHARED {
        named(Path::new(directory), 2, &mut found);
    }
    found.extend(processes(&workspace.target));
    found
}

/// What is there now and was not before, and the other way round, once that does not change any more for the better.
pub(crate) fn since(before: &BTreeSet<String>, workspace: &Workspace) -> Vec<String> {
    let start = Instant::now();
    loop {
        let now = survey(workspace);
        let more = now.difference(before).map(|line| format!("left: {line}"));
        let less = before.difference(&now).map(|line| format!("gone: {line}"));
        let differences: Vec<String> = more.chain(less).collect();
        if differences.is_empty() || start.elapsed() > PATIENCE {
            return differences;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A line without what changes by itself: counters of rules, the time that addresses and routes have left.
fn lasting(line: &str) -> &str {
    let parts = [" [", " valid_lft ", " expires "].map(|from| line.find(from));
    let end = parts.into_iter().flatten().min().unwrap_or(line.len());
    line[..end].trim_end()
}

/// A program that is not there has nothing to tell.
fn output(command: &[&str]) -> String {
    let Some((program, args)) = command.split_first() else {
        return String::new();
    };
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

fn list(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, found);
        } else {
            found.insert(path.display().to_string());
        }
    }
}

/// Names of ours, so many levels deep: below a cgroup file system is one directory for each controller.
fn named(directory: &Path, levels: usize, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if name == LABS {
            let labs = std::fs::read_dir(&path).into_iter().flatten().flatten();
            let labs = labs.map(|lab| lab.path()).filter(|lab| lab.is_dir());
            found.extend(labs.map(|lab| lab.display().to_string()));
        } else if OURS.iter().any(|prefix| name.starts_with(prefix)) {
            found.insert(path.display().to_string());
        } else if levels > 1 && is_directory {
            named(&path, levels - 1, found);
        }
    }
}

/// Processes that run a program which was built here.
fn processes(target: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| {
        let program = std::fs::read_link(entry.path().join("exe")).ok()?;
        // Ourselves.
        let ours = program.starts_with(target) && !program.ends_with("xtask");
        ours.then(|| format!("process {:?}: {}", entry.file_name(), program.display()))
    });
    links.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_times_do_not_count() {
        assert_eq!(lasting(":INPUT ACCEPT [5:300]"), ":INPUT ACCEPT");
        let address = "2: eth0    inet 10.0.0.2/24 scope global dynamic eth0\\       valid_lft 85sec preferred_lft 85sec";
        assert_eq!(
            lasting(address),
            "2: eth0    inet 10.0.0.2/24 scope global dynamic eth0\\"
        );
        assert_eq!(
            lasting("default via fe80::1 dev eth0 expires 17sec hoplimit 64"),
            "default via fe80::1 dev eth0"
        );
    }

    #[test]
    fn names_of_ours_are_found_two_levels_deep_and_others_are_not() {
        let top = std::env::temp_dir().join(format!("leaks-{}", std::process::id()));
        for path in [
            "seaway-a/inside",
            "cpu/sw-b",
            "cpu/x/sw-deep",
            "swap",
            "seaway-lab/t1",
        ] {
            std::fs::create_dir_all(top.join(path)).unwrap();
        }
        std::fs::write(top.join("swap/file"), "").unwrap();
        let (mut of_ours, mut files) = (BTreeSet::new(), BTreeSet::new());
        named(&top, 2, &mut of_ours);
        list(&top, &mut files);
        std::fs::remove_dir_all(&top).unwrap();
        let path = |path: &str| top.join(path).display().to_string();
        let wanted = ["cpu/sw-b", "seaway-a", "seaway-lab/t1"].map(path);
        assert_eq!(of_ours, BTreeSet::from(wanted));
        assert_eq!(files, BTreeSet::from([path("swap/file")]));
    }
}
