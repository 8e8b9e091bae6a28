//! A node whose `iptables` is the legacy one, with and without a usable nft variant beside it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::node::{Node, endpoint, service, slice};

/// A directory in which `iptables` is the legacy variant, and what else of iptables there is on the node.
fn programs(node: &Node, nft: bool) -> String {
    let dir = std::path::PathBuf::from(node.path("bin"));
    std::fs::create_dir(&dir).unwrap();
    let link = |name: &str, target: &str| {
        let places = ["/usr/sbin", "/sbin"].map(|place| format!("{place}/{target}"));
        let found = places
            .iter()
            .find(|path| std::path::Path::new(path).exists());
        symlink(found.unwrap(), dir.join(name)).unwrap();
    };
    for family in ["iptables", "ip6tables"] {
        for verb in ["", "-save", "-restore"] {
            link(
                &format!("{family}{verb}"),
                &format!("{family}-legacy{verb}"),
            );
            for variant in ["legacy", "nft"] {
                if variant == "legacy" || nft {
                    let name = format!("{family}-{variant}{verb}");
                    link(&name, &name);
                }
            }
        }
    }
    dir.display().to_string()
}

/// Serves one Service until the daemon is in sync; then its log, its metrics and what `dump` and `check` say.
fn serve(node: &Node, path: &str) -> [String; 4] {
    node.manifest("web.yaml", &service("web", 10, 32001));
    node.manifest("slice.yaml", &slice("web", &[endpoint(2, "n1")]));
    let mut daemon = node.run(&[], &[("PATH", path)]);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    let metrics = node.get(10249, "/metrics").unwrap().1;
    assert!(daemon.stop().success());
    let env = [("PATH", path)];
    let (code, dump, error) = node.ask_with("dump", &["--actual"], &env);
    assert_eq!(code, 0, "{error}");
    let (_, check, _) = node.bare_with("check", &env);
    [daemon.log(), metrics, dump, check]
}

#[test]
fn a_legacy_node_has_its_nat_rules_in_the_nft_variant_and_everybody_says_so() {
    let node = Node::new();
    let path = programs(&node, true);
    let [log, metrics, dump, check] = serve(&node, &path);
    assert!(log.contains("iptables: filter=legacy nat=nft"), "{log}");
    for place in [
        "table=\"filter\",variant=\"legacy\"",
        "table=\"nat\",variant=\"nft\"",
    ] {
        assert!(metrics.contains(place), "{metrics}");
    }
    assert!(dump.contains("# iptables-legacy, table filter: "), "{dump}");
    assert!(dump.contains("# iptables-nft, table nat: "), "{dump}");
    assert!(
        check.contains("iptables tables: filter=legacy nat=nft"),
        "{check}"
    );
    let (_, text, error) = node.bare_with("cleanup", &[("PATH", &path)]);
    for part in ["removed iptables-nft: ", "removed iptables-legacy: "] {
        assert!(text.contains(part), "{text}{error}");
    }
}

#[test]
fn without_the_nft_programs_everything_stays_legacy_unless_that_is_refused() {
    let node = Node::new();
    let path = programs(&node, false);
    let [log, metrics, dump, check] = serve(&node, &path);
    assert!(log.contains("iptables: filter=legacy nat=legacy"), "{log}");
    assert_eq!(
        log.matches("our nat rules stay in the legacy variant")
            .count(),
        1,
        "{log}"
    );
    assert!(log.contains("iptables-nft is not installed"), "{log}");
    assert!(
        metrics.contains("table=\"nat\",variant=\"legacy\""),
        "{metrics}"
    );
    assert!(dump.contains("# iptables-legacy: "), "{dump}");
    let said = "iptables tables: filter=legacy nat=legacy (not nft: iptables-nft is not installed)";
    assert!(check.contains(said), "{check}");

    let (code, _, error) =
        node.ask_with("plan", &["--iptables-nat-variant=nft"], &[("PATH", &path)]);
    assert_eq!(code, 1);
    for part in [
        "--iptables-nat-variant=nft",
        "iptables-nft is not installed",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_nft_variant_that_does_not_know_our_rules_is_left_alone() {
    let node = Node::new();
    let path = programs(&node, true);
    // As on a kernel without xt_recent; everything else is as it is.
    let real = "/usr/sbin/iptables-nft-restore";
    let script = std::path::PathBuf::from(&path).join("iptables-nft-restore");
    std::fs::remove_file(&script).unwrap();
    let text = format!(
        "#!/bin/sh\ninput=$(/bin/cat)\ncase \"$input\" in *recent*) echo \"no recent here\" >&2; exit 1;; esac\n\
         echo \"$input\" | {real} \"$@\"\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let [log, metrics, ..] = serve(&node, &path);
    assert!(log.contains("iptables: filter=legacy nat=legacy"), "{log}");
    assert_eq!(
        log.matches("our nat rules stay in the legacy variant")
            .count(),
        1,
        "{log}"
    );
    assert!(
        log.contains("xt_recent (for session affinity): no recent here"),
        "{log}"
    );
    assert!(!log.contains("sync failed"), "{log}");
    assert!(
        metrics.contains("table=\"nat\",variant=\"legacy\""),
        "{metrics}"
    );
}

/// Answers each byte with itself.
fn echo(stream: &mut TcpStream) {
    let mut byte = [7];
    stream.write_all(&byte).unwrap();
    stream.read_exact(&mut byte).unwrap();
}

#[test]
fn a_killed_daemon_finds_everything_where_it_was_and_connections_go_on() {
    let node = Node::new();
    let path = programs(&node, true);
    node.sh("ip addr add 10.244.1.2/32 dev lo");
    node.sh("ip route add 10.96.0.0/16 dev lo");
    let listener = node.here(|| TcpListener::bind("10.244.1.2:8080")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    node.manifest("web.yaml", &service("web", 10, 32001));
    node.manifest("slice.yaml", &slice("web", &[endpoint(2, "n1")]));
    let env = [("PATH", path.as_str())];
    let mut daemon = node.run(&[], &env);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    let connect = || node.here(|| TcpStream::connect("10.96.0.10:80")).unwrap();
    let mut connection = connect();
    echo(&mut connection);

    daemon.kill();
    echo(&mut connection);
    echo(&mut connect());
    let mut daemon = node.run(&[], &env);
    node.until("/healthz is 200", || node.status(10256, "/healthz") == 200);
    echo(&mut connection);
    echo(&mut connect());
    assert!(daemon.stop().success());
    let log = daemon.log();
    assert!(log.contains("iptables: filter=legacy nat=nft"), "{log}");
    assert!(log.contains("operations=0 deletions=0"), "{log}");
}
