//! Pure modules wait for nothing, read no clock, no file and no socket.

use super::Source;

/// Files and directories (with a final `/`) that are pure.
const PURE: &[&str] = &[
    "crates/model/src/",
    "crates/cluster/src/convert/",
    "proxy/src/iptables/rule.rs",
    "proxy/src/iptables/plan.rs",
    "proxy/src/iptables/render.rs",
    "proxy/src/iptables/parse.rs",
    "proxy/src/iptables/diff.rs",
    "proxy/src/iptables/walk.rs",
    "proxy/src/iptables/plan/",
    "proxy/src/iptables/walk/",
    "proxy/src/ebpf/plan.rs",
    "proxy/src/ebpf/diff.rs",
    "cni/src/plan.rs",
    "cni/overlay/src/plan.rs",
    "control/apiserver/src/patch/",
    "control/apiserver/src/table/",
    "control/apiserver/src/select/",
    "ebpf/logic/src/",
    "ebpf/abi/src/",
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
    let mut found = Vec::new();
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

fn is_pure(source: &Source) -> bool {
    !source.is_test()
        && PURE.iter().any(|pure| {
            source.path == *pure || (pure.ends_with('/') && source.path.starts_with(pure))
        })
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
        assert_eq!(check(&[bad]).len(), 1);
        let text =
            "// Instant::now is not ours\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
        assert!(check(&[source("crates/model/src/a.rs", text)]).is_empty());
        assert!(check(&[source("crates/kernel/src/a.rs", "Instant::now()")]).is_empty());
    }
}
