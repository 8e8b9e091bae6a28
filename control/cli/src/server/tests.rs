use std::path::Path;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn args(flags: &str) -> ServerArgs {
    let flags = flags.split_whitespace();
    Cli::try_parse_from(["seaway"].into_iter().chain(flags))
        .unwrap()
        .server
}

fn refused(flags: &str, expected: &str) {
    let error = Settings::new(&args(flags)).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains(expected), "{flags}: {message}");
    assert!(!message.contains('\n'), "more than one sentence: {message}");
}

const LISTEN: &str = "--listen 127.0.0.1:6443";

#[test]
fn defaults_are_the_contract() {
    let settings = Settings::new(&args(LISTEN)).unwrap();
    assert_eq!(settings.advertise, "127.0.0.1:6443".parse().unwrap());
    assert_eq!(
        settings.controllers.cluster_cidrs,
        ["10.244.0.0/16".parse().unwrap()]
    );
    assert_eq!(settings.controllers.node_mask_v4, 24);
    assert_eq!(settings.controllers.node_grace, Duration::from_secs(50));
    assert!(settings.ranges.node_ports.contains(30_000));
    assert!(settings.ranges.node_ports.contains(32_767));
}

#[test]
fn contradictions_name_the_flags() {
    refused(
        &format!("{LISTEN} --service-cidr 10.244.128.0/20"),
        "--cluster-cidr 10.244.0.0/16 and --service-cidr 10.244.128.0/20 overlap",
    );
    refused(
        &format!("{LISTEN} --cluster-cidr 10.244.1.0/16"),
        "did you mean 10.244.0.0/16?",
    );
    refused(
        &format!("{LISTEN} --cluster-cidr 10.0.0.0/16,10.1.0.0/16"),
        "one range per address family",
    );
    refused(
        &format!("{LISTEN} --node-cidr-mask-size 12"),
        "--node-cidr-mask-size 12 is shorter than the /16 of --cluster-cidr 10.244.0.0/16",
    );
    refused(
        &format!("{LISTEN} --node-cidr-mask-size 32"),
        "leaves no addresses",
    );
    refused(
        &format!("{LISTEN} --service-cidr 10.96.0.0/30"),
        "--service-cidr 10.96.0.0/30",
    );
    refused(
        &format!("{LISTEN} --service-node-port-range 5-4"),
        "--service-node-port-range 5-4",
    );
    refused("--listen 0.0.0.0:6443", "--advertise-address is needed");
    refused(
        &format!("{LISTEN} --advertise-address 0.0.0.0:6443"),
        "clients cannot connect",
    );
}

#[test]
fn durations_and_ports() {
    assert_eq!(settings::duration("50s"), Ok(Duration::from_secs(50)));
    assert_eq!(settings::duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(settings::duration("5m"), Ok(Duration::from_secs(300)));
    assert!(settings::duration("soon").unwrap_err().contains("`soon`"));
    assert!(
        settings::ports("30000")
            .unwrap_err()
            .contains("30000-32767")
    );
}

async fn start(flags: &str, dir: &Path) -> String {
    let dir = dir.display();
    let error = run(args(&format!("{flags} --data-dir {dir}")))
        .await
        .unwrap_err();
    format!("{error:#}")
}

#[tokio::test]
async fn a_port_in_use_changes_nothing() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let listen = format!("--listen {}", holder.local_addr().unwrap());
    let message = start(&listen, &data).await;
    assert!(message.contains("the port is in use"), "{message}");
    assert!(!data.exists());
}

#[tokio::test]
async fn a_locked_store_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let _holder = Store::open(dir.path(), Options::default()).unwrap();
    let flags = "--listen 127.0.0.1:0 --advertise-address 127.0.0.1:1";
    let message = start(flags, dir.path()).await;
    let holder = format!("(pid {}) uses it", std::process::id());
    assert!(message.contains(&holder), "{message}");
    assert!(message.contains("--data-dir"), "{message}");
    assert!(!dir.path().join("pki").exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_said_plainly() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let flags = "--listen 127.0.0.1:0 --advertise-address 127.0.0.1:1";
    let message = start(flags, &file.path().join("data")).await;
    assert!(
        message.contains("--data-dir") && message.contains("can write"),
        "{message}"
    );
}
