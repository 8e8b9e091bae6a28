//! An unmodified kubectl, command by command, against the bundled control plane.

use anyhow::{Result, ensure};
use seaway_lab::{Finished, Lab, LabConfig, Mode};
use seaway_tests::{fixture, require, workload};

fn config() -> LabConfig {
    LabConfig::new(fixture::lab_name())
        .map(|config| config.nodes(1, Mode::Iptables))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Splits at blanks: no argument in these tests has one.
async fn kubectl(lab: &Lab, line: &str) -> Result<Finished> {
    Ok(lab.kubectl(line.split(' ')).await?)
}

async fn ok(lab: &Lab, line: &str) -> Result<String> {
    let done = kubectl(lab, line).await?;
    ensure!(
        done.code == Some(0),
        "kubectl {line}: {}{}",
        done.stdout,
        done.stderr
    );
    Ok(done.stdout)
}

async fn says(lab: &Lab, line: &str, words: &[&str]) -> Result<()> {
    let text = ok(lab, line).await?;
    for word in words {
        ensure!(
            text.contains(word),
            "kubectl {line}: no {word:?} in:\n{text}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_every_day() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(config(), async |lab| {
        looking_around(lab).await?;
        workload(lab).await?;
        changing(lab).await?;
        deleting(lab).await
    })
    .await;
}

/// From a manifest: the typed `kubectl create namespace` sends protobuf, which the server does not read yet.
async fn create(lab: &Lab, manifest: &str) -> Result<()> {
    let done = lab.kubectl_with(manifest, ["create", "-f", "-"]).await?;
    ensure!(done.code == Some(0), "{}", done.stderr);
    Ok(())
}

async fn looking_around(lab: &Lab) -> Result<()> {
    says(lab, "version", &["Server Version: v1.33"]).await?;
    says(lab, "get nodes", &["NAME", "STATUS", "n1", "Ready"]).await?;
    says(lab, "get nodes -o wide", &["INTERNAL-IP", "192.168.100.1"]).await?;
    says(lab, "get namespaces", &["default", "kube-system", "Active"]).await?;
    says(
        lab,
        "api-resources",
        &["deployments", "endpointslices", "leases", "replicasets"],
    )
    .await?;
    says(
        lab,
        "describe node n1",
        &["Name:", "n1", "PodCIDR:", "Conditions:"],
    )
    .await?;
    says(
        lab,
        "get service kubernetes -o yaml",
        &["kind: Service", "clusterIP: 10.96.0.1"],
    )
    .await
}

async fn workload(lab: &Lab) -> Result<()> {
    let file = workload::manifest("echo.yaml")
        .to_string_lossy()
        .into_owned();
    says(
        lab,
        &format!("create -f {file}"),
        &["deployment.apps/echo created", "service/echo created"],
    )
    .await?;
    says(
        lab,
        "rollout status deployment/echo --timeout=30s",
        &["successfully rolled out"],
    )
    .await?;
    says(lab, "get deployments", &["echo", "3/3"]).await?;
    says(lab, "get replicasets", &["echo-", "DESIRED"]).await?;
    says(
        lab,
        "get pods -o wide",
        &["Running", "1/1", "10.244.", "n1"],
    )
    .await?;
    says(lab, "get pods -l app=echo -o name", &["pod/echo-"]).await?;
    let none = kubectl(lab, "get pods -l app=other").await?;
    ensure!(
        none.stderr.contains("No resources found"),
        "{}",
        none.stderr
    );
    says(lab, "get endpointslices", &["echo-", "IPv4", "8080"]).await?;
    says(
        lab,
        "describe service echo",
        &["Selector:", "app=echo", "Endpoints:", "10.244."],
    )
    .await?;
    says(
        lab,
        "describe deployment echo",
        &["Replicas:", "3 desired", "NewReplicaSet:"],
    )
    .await?;
    says(
        lab,
        "describe pod -l app=echo",
        &["Node:", "n1/192.168.100.1", "Ready:", "True"],
    )
    .await?;
    says(
        lab,
        "wait deployment/echo --for=condition=Available --timeout=30s",
        &["condition met"],
    )
    .await?;
    let pod = ok(
        lab,
        "get pods -l app=echo -o jsonpath={.items[0].metadata.name}",
    )
    .await?;
    says(lab, &format!("logs {pod}"), &["echo: TCP"]).await?;
    says(lab, "get --raw /healthz", &["ok"]).await
}

async fn changing(lab: &Lab) -> Result<()> {
    says(lab, "label deployment echo tier=web", &["labeled"]).await?;
    says(
        lab,
        "get deployments -l tier=web -o name",
        &["deployment.apps/echo"],
    )
    .await?;
    says(lab, "annotate deployment echo note=one", &["annotated"]).await?;
    let patch = r#"{"spec":{"replicas":2}}"#;
    for kind in ["strategic", "merge"] {
        let line = format!("patch deployment echo --type={kind} -p {patch}");
        says(lab, &line, &["deployment.apps/echo patched"]).await?;
    }
    let patch = r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#;
    says(
        lab,
        &format!("patch deployment echo --type=json -p {patch}"),
        &["patched"],
    )
    .await?;
    says(
        lab,
        "rollout status deployment/echo --timeout=30s",
        &["successfully rolled out"],
    )
    .await?;
    says(lab, "scale deployment/echo --replicas=2", &["scaled"]).await?;
    says(
        lab,
        "rollout status deployment/echo --timeout=30s",
        &["successfully rolled out"],
    )
    .await?;
    says(
        lab,
        "get deployment echo -o jsonpath={.status.readyReplicas}",
        &["2"],
    )
    .await?;

    let file = workload::manifest("echo.yaml")
        .to_string_lossy()
        .into_owned();
    says(
        lab,
        &format!("apply -f {file}"),
        &["deployment.apps/echo configured"],
    )
    .await?;
    says(
        lab,
        &format!("apply -f {file}"),
        &["deployment.apps/echo unchanged"],
    )
    .await?;
    says(
        lab,
        "get deployment echo -o jsonpath={.spec.replicas}",
        &["3"],
    )
    .await?;
    edit(lab).await?;
    watch(lab).await
}

/// The editor is sed: what kubectl sees is a changed file, as from any editor.
async fn edit(lab: &Lab) -> Result<()> {
    let script = "KUBE_EDITOR='sed -i s/tier:.web/tier:\\ back/' exec \"$0\" edit deployment echo";
    let done = seaway_kernel::Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(seaway_lab::kubectl_program())
        .env("KUBECONFIG", lab.kubeconfig())
        .output()
        .await?;
    ensure!(
        done.text().contains("deployment.apps/echo edited"),
        "{}",
        done.text()
    );
    says(
        lab,
        "get deployments -l tier=back -o name",
        &["deployment.apps/echo"],
    )
    .await
}

/// A watch sees what happens after it was started.
async fn watch(lab: &Lab) -> Result<()> {
    let line = "get configmaps -w --request-timeout=4s -o name";
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen}\n";
    // The watch begins with what is there already, so the order of the two does not matter.
    let (watched, created) = tokio::join!(kubectl(lab, line), create(lab, manifest));
    created?;
    let watched = watched?;
    ensure!(
        watched.stdout.contains("configmap/seen"),
        "{}{}",
        watched.stdout,
        watched.stderr
    );
    Ok(())
}

async fn deleting(lab: &Lab) -> Result<()> {
    says(
        lab,
        "delete service echo-outside",
        &["service \"echo-outside\" deleted"],
    )
    .await?;
    says(lab, "delete deployment echo --timeout=30s", &["deleted"]).await?;
    says(lab, "wait pod -l app=echo --for=delete --timeout=30s", &[]).await?;
    let gone = kubectl(lab, "get deployment echo").await?;
    ensure!(
        gone.stderr
            .contains("Error from server (NotFound): deployments.apps \"echo\" not found"),
        "{}",
        gone.stderr
    );
    create(
        lab,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: scratch}\n",
    )
    .await?;
    create(
        lab,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inside, namespace: scratch}\n",
    )
    .await?;
    says(lab, "delete namespace scratch --timeout=30s", &["deleted"]).await?;
    let gone = kubectl(lab, "get configmap inside -n scratch").await?;
    ensure!(
        gone.code != Some(0),
        "the namespace is gone, its content is not"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_as_kubernetes_says_it() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(config(), async |lab| {
        for (manifest, words) in MISTAKES {
            let done = lab.kubectl_with(manifest, ["create", "-f", "-"]).await?;
            ensure!(done.code == Some(1), "accepted:\n{manifest}");
            for word in *words {
                ensure!(
                    done.stderr.contains(word),
                    "no {word:?} in: {}",
                    done.stderr
                );
            }
        }
        let unknown = "apiVersion: v1\nkind: Sevrice\nmetadata: {name: s}\n";
        let done = lab.kubectl_with(unknown, ["create", "-f", "-"]).await?;
        ensure!(
            done.stderr
                .contains("no matches for kind \"Sevrice\" in version \"v1\""),
            "{}",
            done.stderr
        );
        let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twice}\n";
        lab.kubectl_with(twice, ["create", "-f", "-"]).await?;
        let again = lab.kubectl_with(twice, ["create", "-f", "-"]).await?;
        ensure!(
            again.stderr.contains("configmaps \"twice\" already exists"),
            "{}",
            again.stderr
        );
        Ok(())
    })
    .await;
}

/// A manifest, and what kubectl must say about it.
const MISTAKES: &[(&str, &[&str])] = &[
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n",
        &[
            "The Service \"s\" is invalid",
            "spec.ports[0].port",
            "between 1 and 65535",
        ],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}\n",
        &[
            "The Service \"s\" is invalid",
            "spec.ports[0].nodePort",
            "not in the valid range",
        ],
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n",
        &[
            "The ConfigMap \"Not_A_Name\" is invalid",
            "metadata.name",
            "RFC 1123",
        ],
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec: {containers: [{name: c, image: seaway.dev/pause}]}\n",
        &[
            "The Deployment \"d\" is invalid",
            "spec.template.metadata.labels",
            "`selector` does not match template `labels`",
        ],
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n",
        &["spec.containers", "Required value"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {prots: [{port: 80}]}\n",
        &["unknown field \"spec.prots\""],
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a\n",
        &["yaml"],
    ),
];
