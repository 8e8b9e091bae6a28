//! Pure modules wait for nothing, read no clock, no file and no socket.

use super::Source;

/// Files and directories (with a final `/`) that are pure.
const PURE: &[&str] = &[
    "crates/model/src/",
    "crates/cluster/src/convert.rs",
    "crates/cluster/src/convert/",
    "crates/cluster/src/manifests/parse.rs",
    "proxy/src/iptables/dispatch.rs",
    "proxy/src/iptables/fixed.rs",
    "proxy/src/iptables/names.rs",
    "proxy/src/iptables/parse.rs",
    "proxy/src/iptables/plan.rs",
    "proxy/src/iptables/render.rs",
    "proxy/src/iptables/rule.rs",
    "proxy/src/iptables/service.rs",
    "proxy/src/iptables/transaction.rs",
    "proxy/src/iptables/walk.rs",
    "proxy/src/ebpf/plan.rs",
    "proxy/src/ebpf/plan/",
    "proxy/src/ebpf/wanted.rs",
    "cni/src/plan.rs",
    "cni/src/protocol.rs",
    "cni/src/protocol/",
    "cni/overlay/src/diff.rs",
    "cni/overlay/src/mesh.rs",
    "cni/overlay/src/plan.rs",
    "control/apiserver/src/patch/",
    "control/apiserver/src/schema/",
    "control/apiserver/src/selector.rs",
    "control/apiserver/src/selector/",
    "control/apiserver/src/table.rs",
    "control/apiserver/src/table/",
    "control/controllers/src/plan.rs",
    "control/controllers/src/selector.rs",
    "ebpf/abi/src/",
    "ebpf/logic/src/",
];

const IMPURE: &[(&str, &str)] = &[
    ("tokio", "a runtime"),
    ("async fn", "waiting"),
    ("async move", "waiting"),
    (".await", "waiting"),
    ("std::fs", "files"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("TcpStream", "sockets"),
    ("UdpSocket", "sockets"),
    ("Instant::now", "the clock: pass the time in"),
    ("SystemTime::now", "the clock: pass the time in"),
    ("Timestamp::now", "the clock: pass the time in"),
    ("rand::", "chance: pass the number in"),
];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut found = stale(sources);
    for source in sources.iter().filter(|source| is_pure(source)) {
        for (number, line) in source.code() {
            for (pattern, what) in IMPURE {
                if line.contains(pattern) {
                    found.push(format!(
                        "{}:{number}: `{pattern}` in a pure module ({what})",
                        source.path
                    ));
                }
            }
        }
    }
    found
}

/// Entries of the list that name nothing any more: what was moved must stay pure where it is now.
fn stale(sources: &[Source]) -> Vec<String> {
    PURE.iter()
        .filter(|pure| !sources.iter().any(|source| covers(pure, &source.path)))
        .map(|pure| format!("{pure}: listed as pure in xtask/src/tidy/purity.rs, and not there"))
        .collect()
}

fn is_pure(source: &Source) -> bool {
    !source.is_test() && PURE.iter().any(|pure| covers(pure, &source.path))
}

fn covers(pure: &str, path: &str) -> bool {
    path == pure || (pure.ends_with('/') && path.starts_with(pure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_clock_in_the_model_is_found_and_one_in_its_tests_is_not() {
        let bad = source("crates/model/src/a.rs", "fn f() { Instant::now(); }\n");
        assert!(check(&[bad])[PURE.len() - 1].contains("Instant::now"));
        let text =
            "// Instant::now is not ours\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
        let fine = [
            source("crates/model/src/a.rs", text),
            source("crates/kernel/src/a.rs", "Instant::now()"),
        ];
        let found = check(&fine);
        assert!(
            found.iter().all(|line| line.contains("not there")),
            "{found:?}"
        );
    }
}
