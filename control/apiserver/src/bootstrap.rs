//! Objects that every cluster has.

use serde_json::{Value, json};

use crate::answer::Result;
use crate::kinds::{self, Kind};
use crate::objects::{self, ObjectRef, UpdateMode};
use crate::server::Shared;
use crate::status::Status;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const NAME: &str = "kubernetes";

/// Creates what is missing and corrects the advertised address.
pub(crate) async fn run(shared: &Shared) -> Result<()> {
    for name in NAMESPACES {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure(shared, kind("", "namespaces")?, "", name, namespace).await?;
    }
    let service = kind("", "services")?;
    ensure(shared, service, "default", NAME, kubernetes_service(shared)).await?;
    let address = shared.config.advertise_address.ip();
    if address.is_loopback() || address.is_unspecified() {
        // No Pod could use it, and validation refuses it as it does everybody's.
        tracing::info!(%address, "Service default/kubernetes has no endpoint: the advertised address is local");
        return Ok(());
    }
    advertise(shared).await
}

/// Creates the endpoint of `default/kubernetes`, or corrects it.
async fn advertise(shared: &Shared) -> Result<()> {
    let slice = kind("discovery.k8s.io", "endpointslices")?;
    ensure(shared, slice, "default", NAME, kubernetes_slice(shared)).await?;
    let wanted = kubernetes_slice(shared);
    let target = object(slice, "default", NAME);
    let change = Box::new(move |old: &Value| {
        let mut new = old.clone();
        for part in ["endpoints", "ports"] {
            new[part] = wanted[part].clone();
        }
        Ok(new)
    });
    objects::update(
        &shared.store,
        &shared.ranges,
        target,
        UpdateMode::Main,
        change,
        false,
    )
    .await?;
    Ok(())
}

fn kind(group: &str, plural: &str) -> Result<&'static Kind> {
    kinds::find(group, "v1", plural)
        .ok_or_else(|| Status::internal(format!("the table of kinds has no {plural}")).into())
}

fn object(kind: &'static Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    }
}

async fn ensure(
    shared: &Shared,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    body: Value,
) -> Result<()> {
    let target = object(kind, namespace, name);
    if shared.store.get(&target.bucket(), &target.key()).is_some() {
        return Ok(());
    }
    objects::create(
        &shared.store,
        &shared.ranges,
        kind,
        namespace.into(),
        body,
        false,
    )
    .await?;
    Ok(())
}

/// One Service address per family, always the first of its range.
fn kubernetes_service(shared: &Shared) -> Value {
    let ranges = &shared.config.ranges.services;
    let address = ranges
        .first()
        .map(|range| range.member(0).to_string())
        .unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "ports": [{
                "name": "https",
                "protocol": "TCP",
                "port": 443,
                "targetPort": shared.config.advertise_address.port(),
            }],
        },
    })
}

fn kubernetes_slice(shared: &Shared) -> Value {
    let address = shared.config.advertise_address;
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            // No managed-by label: the EndpointSlice controller leaves it alone, since the Service has no selector.
            "labels": { "kubernetes.io/service-name": NAME },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
    })
}
