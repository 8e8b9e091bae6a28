//! What the caller decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::agents::Dialer;
use crate::allocate::Ranges;

/// Configuration of an [`crate::ApiServer`].
#[derive(Clone)]
pub struct Config {
    /// Home of the certificate authority (`pki/`) and of `admin.kubeconfig`.
    pub data_dir: PathBuf,
    /// Where clients reach the server: the endpoint of Service `default/kubernetes` and the URL in `admin.kubeconfig`.
    pub advertise_address: SocketAddr,
    /// Further IP addresses and DNS names for the serving certificate.
    pub serving_names: Vec<String>,
    /// Overrides the URL in `admin.kubeconfig` (the advertised address may not be reachable from here).
    pub admin_server: Option<String>,
    /// Service addresses and node ports.
    pub ranges: Ranges,
    /// Age at which Events go.
    pub event_ttl: Duration,
    /// Time between two bookmarks of a watch.
    pub bookmark_interval: Duration,
    /// How the server reaches node agents, for logs.
    pub dialer: Arc<dyn Dialer>,
}

impl Config {
    /// With defaults for everything that has one.
    pub fn new(data_dir: PathBuf, advertise_address: SocketAddr, ranges: Ranges) -> Self {
        Self {
            data_dir,
            advertise_address,
            serving_names: Vec::new(),
            admin_server: None,
            ranges,
            event_ttl: Duration::from_secs(60 * 60),
            bookmark_interval: Duration::from_secs(60),
            dialer: Arc::new(crate::agents::Direct),
        }
    }
}
