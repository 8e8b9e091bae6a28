//! A server without controllers, to try clients against:
//! `cargo run -p seaway-apiserver --example serve -- DATA_DIR 127.0.0.1:6443`

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use seaway_apiserver::allocate::{AddressRange, PortRange, Ranges};
use seaway_apiserver::{ApiServer, Config};
use seaway_store::{Options, Store};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data_dir: PathBuf = arguments.next().context("DATA_DIR is missing")?.into();
    let address: SocketAddr = arguments.next().context("ADDRESS is missing")?.parse()?;
    let listener = TcpListener::bind(address)?;
    let ranges = Ranges {
        services: vec![AddressRange::new("10.96.0.0/16".parse()?)?],
        node_ports: PortRange::new(30_000..=32_767)?,
    };
    let store = Store::open(&data_dir, Options::default())?;
    let config = Config::new(data_dir.clone(), listener.local_addr()?, ranges);
    let server = ApiServer::new(store, config).await?;
    println!(
        "export KUBECONFIG={}",
        data_dir.join("admin.kubeconfig").display()
    );
    let shutdown = CancellationToken::new();
    let serving = server.serve(vec![listener], shutdown.clone());
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return Ok(result?),
        _ = tokio::signal::ctrl_c() => shutdown.cancel(),
    }
    Ok(serving.await?)
}
