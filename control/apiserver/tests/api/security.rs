//! TLS, client certificates, kubeconfigs.

use std::os::unix::fs::PermissionsExt;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api as Client, ListParams};
use seaway_apiserver::pki::{KubeconfigRequest, issue_kubeconfig};

use crate::support::{Api, Served};

#[tokio::test]
async fn certificates_are_asked_for_where_it_matters() {
    let mut served = Served::start().await;
    let namespaces: Client<Namespace> = Client::all(served.client().await);
    assert_eq!(
        namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );

    // The same authority, no certificate.
    let kubeconfig = kube::config::Kubeconfig::read_from(served.kubeconfig()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    config.auth_info = kube::config::AuthInfo::default();
    let anonymous = kube::Client::try_from(config).unwrap();
    assert_eq!(anonymous.apiserver_version().await.unwrap().minor, "33");
    let namespaces: Client<Namespace> = Client::all(anonymous);
    let refused = namespaces.list(&ListParams::default()).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 401),
        "{refused:?}"
    );
    served.stop().await;
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let mut served = Served::start().await;
    let stranger = tempfile::tempdir().unwrap();
    let out = stranger.path().join("stranger.kubeconfig");
    issue_kubeconfig(&KubeconfigRequest {
        data_dir: stranger.path(),
        user: "system:admin",
        groups: &["system:masters".into()],
        names: &[],
        server: &served.url(),
        out: &out,
    })
    .unwrap();
    let mut kubeconfig = kube::config::Kubeconfig::read_from(&out).unwrap();
    let ours = kube::config::Kubeconfig::read_from(served.kubeconfig()).unwrap();
    kubeconfig.clusters = ours.clusters;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    let namespaces: Client<Namespace> = Client::all(kube::Client::try_from(config).unwrap());
    assert!(namespaces.list(&ListParams::default()).await.is_err());
    served.stop().await;
}

#[tokio::test]
async fn issued_kubeconfigs_work_and_are_private() {
    let mut served = Served::start().await;
    let out = served.dir.path().join("n1.kubeconfig");
    issue_kubeconfig(&KubeconfigRequest {
        data_dir: served.dir.path(),
        user: "system:node:n1",
        groups: &["system:nodes".into()],
        names: &["192.0.2.7".into(), "n1".into()],
        server: &served.url(),
        out: &out,
    })
    .unwrap();
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kubeconfig = kube::config::Kubeconfig::read_from(&out).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    let namespaces: Client<Namespace> = Client::all(kube::Client::try_from(config).unwrap());
    assert_eq!(
        namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );
    served.stop().await;
}

#[tokio::test]
async fn the_router_itself_lets_nobody_in_without_a_name() {
    use tower::ServiceExt;
    let api = Api::start().await;
    let request = http::Request::get("/api/v1/pods")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = api.server.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
}
