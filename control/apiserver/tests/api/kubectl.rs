//! An unmodified kubectl. It takes over a quarter of a second to start, so one server serves a whole story.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::Served;

struct Kubectl<'a> {
    served: &'a Served,
}

/// Whether it went well, and what it said on both streams.
struct Said {
    ok: bool,
    out: String,
    err: String,
}

impl Kubectl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.served.kubeconfig())
            .arg("--cache-dir")
            .arg(self.served.dir.path().join("cache"))
            .args(line.split_whitespace())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a line with something on its standard input.
    async fn with(&self, line: &str, input: &str) -> Said {
        let mut child = self.command(line).spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        Said {
            ok: output.status.success(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Runs a line that must go well; its output.
    async fn ok(&self, line: &str) -> String {
        let said = self.with(line, "").await;
        assert!(said.ok, "kubectl {line}: {}", said.err);
        said.out
    }

    /// Runs a line that must fail; its complaint.
    async fn fails(&self, line: &str) -> String {
        let said = self.with(line, "").await;
        assert!(!said.ok, "kubectl {line}: {}", said.out);
        said.err
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: echo, image: seaway.dev/echo, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: tcp, port: 80, targetPort: 8080}
  - {name: udp, port: 81, targetPort: 8080, protocol: UDP}
";

#[tokio::test]
async fn looks_around() {
    let mut served = Served::start().await;
    let kubectl = Kubectl { served: &served };
    assert!(
        kubectl
            .ok("version")
            .await
            .contains("Server Version: v1.33.")
    );
    assert_eq!(kubectl.ok("get --raw /readyz").await, "ok");
    let resources = kubectl.ok("api-resources -o name").await;
    for name in [
        "pods",
        "deployments.apps",
        "endpointslices.discovery.k8s.io",
        "leases.coordination.k8s.io",
    ] {
        assert!(
            resources.lines().any(|line| line == name),
            "{name}: {resources}"
        );
    }
    let namespaces = kubectl.ok("get namespaces").await;
    let first: Vec<&str> = namespaces
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(first, ["NAME", "STATUS", "AGE"]);
    assert!(kubectl.ok("get all").await.contains("service/kubernetes"));
    assert!(
        kubectl
            .ok("describe service kubernetes")
            .await
            .contains("10.96.0.1")
    );
    assert!(
        kubectl
            .ok("describe namespace default")
            .await
            .contains("Active")
    );
    assert!(
        kubectl
            .ok("explain service.spec.clusterIP")
            .await
            .contains("clusterIP")
    );
    served.stop().await;
}

#[tokio::test]
async fn creates_changes_and_deletes() {
    let mut served = Served::start().await;
    let kubectl = Kubectl { served: &served };
    let created = kubectl.with("create -f -", WEB).await;
    assert_eq!(
        created.out, "deployment.apps/web created\nservice/web created",
        "{}",
        created.err
    );
    let wide = kubectl.ok("get deployments -o wide").await;
    assert!(
        wide.contains("CONTAINERS") && wide.contains("seaway.dev/echo"),
        "{wide}"
    );
    assert_eq!(
        kubectl.ok("scale deployment web --replicas=5").await,
        "deployment.apps/web scaled"
    );
    assert_eq!(
        kubectl
            .ok("get deployment web -o jsonpath={.spec.replicas}")
            .await,
        "5"
    );
    kubectl
        .ok("scale deployment web --current-replicas=5 --replicas=3")
        .await;
    assert_eq!(
        kubectl.ok("label service web tier=front").await,
        "service/web labeled"
    );
    assert!(kubectl.ok("get services -l tier=front -o name").await == "service/web");
    kubectl.ok("annotate service web note=x").await;
    kubectl
        .ok("set image deployment/web echo=seaway.dev/pause")
        .await;
    assert!(
        kubectl
            .ok("get deployment web -o yaml")
            .await
            .contains("image: seaway.dev/pause")
    );
    kubectl.ok(r#"patch service web -p {"spec":{"ports":[{"port":81,"protocol":"UDP","$patch":"delete"}]}}"#).await;
    assert_eq!(
        kubectl
            .ok("get service web -o jsonpath={.spec.ports[*].name}")
            .await,
        "tcp"
    );
    kubectl.ok("delete service web").await;
    kubectl.ok("delete deployment --all").await;
    assert!(
        kubectl
            .fails("get service web")
            .await
            .contains("services \"web\" not found")
    );
    served.stop().await;
}

#[tokio::test]
async fn applies_edits_and_compares() {
    let mut served = Served::start().await;
    let kubectl = Kubectl { served: &served };
    let applied = kubectl.with("apply -f -", WEB).await;
    assert_eq!(
        applied.out, "deployment.apps/web created\nservice/web created",
        "{}",
        applied.err
    );
    let before = kubectl
        .ok("get service web -o jsonpath={.spec.clusterIP}/{.spec.ports[0].nodePort}")
        .await;
    let again = kubectl.with("apply -f -", WEB).await;
    assert_eq!(
        again.out, "deployment.apps/web unchanged\nservice/web unchanged",
        "{}",
        again.err
    );
    let less = WEB.replace(
        "  - {name: udp, port: 81, targetPort: 8080, protocol: UDP}\n",
        "",
    );
    let compared = kubectl.with("diff -f -", &less).await;
    assert!(
        compared.out.contains("-  - name: udp"),
        "{} {}",
        compared.out,
        compared.err
    );
    let changed = kubectl.with("apply -f -", &less).await;
    assert_eq!(
        changed.out, "deployment.apps/web unchanged\nservice/web configured",
        "{}",
        changed.err
    );
    let after = kubectl
        .ok("get service web -o jsonpath={.spec.clusterIP}/{.spec.ports[0].nodePort}")
        .await;
    assert_eq!(before, after);
    let editor = served.dir.path().join("editor");
    std::fs::write(
        &editor,
        "#!/bin/sh\nsed -i 's/replicas: 2/replicas: 4/' \"$1\"\n",
    )
    .unwrap();
    let mut command = kubectl.command("edit deployment web");
    let edited = editor_of(&mut command, editor).output().await.unwrap();
    assert!(
        edited.status.success(),
        "{}",
        String::from_utf8_lossy(&edited.stderr)
    );
    assert_eq!(
        kubectl
            .ok("get deployment web -o jsonpath={.spec.replicas}")
            .await,
        "4"
    );
    let replaced = kubectl.with("replace -f -", &less).await;
    assert_eq!(
        replaced.out, "deployment.apps/web replaced\nservice/web replaced",
        "{}",
        replaced.err
    );
    served.stop().await;
}

fn editor_of(command: &mut Command, editor: PathBuf) -> &mut Command {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    command.env("KUBE_EDITOR", editor)
}

#[tokio::test]
async fn explains_what_is_wrong() {
    let mut served = Served::start().await;
    let kubectl = Kubectl { served: &served };
    let unknown = kubectl
        .with("create -f -", &WEB.replace("replicas: 2", "replicaz: 2"))
        .await;
    assert!(
        unknown.err.contains("unknown field \"spec.replicaz\""),
        "{}",
        unknown.err
    );
    let misspelt = "apiVersion: v1\nkind: Sevrice\nmetadata: {name: web}\n";
    for verb in ["create", "apply"] {
        let unknown = kubectl.with(&format!("{verb} -f -"), misspelt).await;
        let message = "no matches for kind \"Sevrice\" in version \"v1\"";
        assert!(unknown.err.contains(message), "{}", unknown.err);
    }
    let invalid = kubectl
        .with("create -f -", &WEB.replace("port: 80,", "port: 80000,"))
        .await;
    let message = "The Service \"web\" is invalid: spec.ports[0].port: Invalid value: 80000: must be between 1 and 65535, \
                   inclusive";
    assert!(invalid.err.contains(message), "{}", invalid.err);
    assert!(
        kubectl
            .with("create -f -", "kind: [")
            .await
            .err
            .contains("error parsing")
    );
    let typed = kubectl.fails("create configmap x --from-literal=a=b").await;
    assert!(typed.contains("kubectl create -f FILE"), "{typed}");
    let selector = kubectl.fails("get pods --field-selector spec.foo=1").await;
    assert!(
        selector.contains("field label not supported: spec.foo"),
        "{selector}"
    );
    served.stop().await;
}

#[tokio::test]
async fn waits_and_watches() {
    let mut served = Served::start().await;
    let kubectl = Kubectl { served: &served };
    let watching = kubectl
        .command("get configmaps -w -o name --field-selector metadata.name=late")
        .spawn()
        .unwrap();
    let waiting = kubectl.command("wait --for=delete service/web --timeout=20s");
    kubectl.with("create -f -", WEB).await;
    let mut waiting = waiting;
    let waiting = waiting.spawn().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    kubectl.ok("delete service web").await;
    let waited = waiting.wait_with_output().await.unwrap();
    assert!(
        waited.status.success(),
        "{}",
        String::from_utf8_lossy(&waited.stderr)
    );
    kubectl
        .with(
            "create -f -",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: late}}",
        )
        .await;
    // The server ends its watches when it stops; kubectl then ends well.
    served.stop().await;
    let watched = watching.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&watched.stdout).trim(),
        "configmap/late"
    );
}
