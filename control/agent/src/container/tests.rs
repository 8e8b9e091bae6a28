use expect_test::expect;
use serde_json::{Value, json};

use super::*;

fn resolve(container: &Value) -> Result<Launch, Refusal> {
    let mut container = container.clone();
    container["name"] = "web".into();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"containers": [container], "serviceAccountName": "sa"},
    }))
    .unwrap();
    let node = NodeFacts {
        program: Path::new("/opt/seaway"),
        node_name: "n1",
        node_ips: &["192.168.100.1".parse().unwrap()],
        pod_ips: &["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
    };
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    launch(&pod, &container, &node, |path| {
        [Path::new("/usr/bin/nginx"), Path::new("/opt/app/run")].contains(&path)
    })
}

fn line(container: &Value) -> String {
    match resolve(container) {
        Ok(launch) => format!(
            "{} {:?} in {}",
            launch.program.display(),
            launch.args,
            launch.directory.display()
        ),
        Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
    }
}

#[test]
fn programs() {
    for (container, want) in [
        (
            json!({"image": "seaway.dev/echo"}),
            expect![[r#"/opt/seaway ["echo"] in /"#]],
        ),
        (
            json!({"image": "seaway.dev/echo:v1", "args": ["--tcp", "9000"]}),
            expect![[r#"/opt/seaway ["echo", "--tcp", "9000"] in /"#]],
        ),
        (
            json!({"image": "seaway.dev/pause@sha256:00"}),
            expect![[r#"/opt/seaway ["pause"] in /"#]],
        ),
        (
            json!({"image": "any", "command": ["nginx", "-g"], "args": ["$(HOSTNAME) $$(X) $(NO) $"]}),
            expect![[r#"/usr/bin/nginx ["-g", "web-1 $(X) $(NO) $"] in /"#]],
        ),
        (
            json!({"command": ["/opt/app/run"], "workingDir": "/tmp"}),
            expect![[r#"/opt/app/run [] in /tmp"#]],
        ),
        (
            json!({"command": ["run"], "env": [{"name": "PATH", "value": "/nowhere:/opt/app"}]}),
            expect![[r#"/opt/app/run [] in /"#]],
        ),
        (
            json!({"image": "registry:5000/nginx"}),
            expect![[
                r#"ErrImageNeverPull: Container image "registry:5000/nginx" is not present with pull policy of Never: this node pulls no images; use seaway.dev/echo or seaway.dev/pause, or give a command (a program of the node)"#
            ]],
        ),
        (
            json!({"command": ["missing"]}),
            expect![[
                r#"CreateContainerError: exec: "missing": executable file not found in $PATH of the node"#
            ]],
        ),
        (
            json!({"command": ["/bin/missing"]}),
            expect![[
                r#"CreateContainerError: exec: "/bin/missing": executable file not found on the node"#
            ]],
        ),
        (
            json!({"image": "seaway.dev/echo", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "k"}}}]}),
            expect![[
                r#"CreateContainerConfigError: env "A": only valueFrom.fieldRef is supported by this agent"#
            ]],
        ),
        (
            json!({"image": "seaway.dev/echo", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            expect![[
                r#"CreateContainerConfigError: env "A": fieldPath "spec.x" is not supported"#
            ]],
        ),
    ] {
        want.assert_eq(&line(&container));
    }
}

#[test]
fn environment_of_a_container() {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let launch = resolve(&json!({"image": "seaway.dev/echo", "env": [
        {"name": "GREETING", "value": "hello"}, {"name": "LINE", "value": "$(GREETING) $(LATER)"},
        {"name": "LATER", "value": "x"}, {"name": "EMPTY"},
        field("POD", "metadata.name"), field("NS", "metadata.namespace"), field("UID", "metadata.uid"),
        field("IP", "status.podIP"), field("IPS", "status.podIPs"), field("HOST", "status.hostIP"),
        field("NODE", "spec.nodeName"), field("SA", "spec.serviceAccountName"),
        field("APP", "metadata.labels['app']"), field("NONE", "metadata.annotations['none']"),
    ]}))
    .unwrap();
    let lines: Vec<String> = launch
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    expect![[r#"
        APP=web
        EMPTY=
        GREETING=hello
        HOME=/root
        HOST=192.168.100.1
        HOSTNAME=web-1
        IP=10.244.1.5
        IPS=10.244.1.5,fd00::5
        LATER=x
        LINE=hello $(LATER)
        NODE=n1
        NONE=
        NS=shop
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        POD=web-1
        SA=sa
        UID=u1"#]]
    .assert_eq(&lines.join("\n"));
}
