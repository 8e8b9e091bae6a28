use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::{Source, stream};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.1
  ports: [{port: 80}]
";

fn write(directory: &TempDir, name: &str, text: &str) {
    // As editors and kubelet do: a new file renamed over the old one.
    let temporary = directory.path().join(".new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, directory.path().join(name)).unwrap();
}

fn start(directory: &Path, nodes: NodeScope) -> Receiver<InputEvent> {
    let wants = Wants {
        services: true,
        slices: true,
        nodes,
    };
    stream(Source::Manifests(directory.to_owned()), wants)
}

async fn next(events: &mut Receiver<InputEvent>) -> String {
    match events.recv().await.unwrap() {
        InputEvent::Service(key, service) => {
            format!("service {key} {:?}", service.map(|s| s.cluster_ips))
        }
        InputEvent::Slice(key, slice) => format!("slice {key} {}", slice.is_some()),
        InputEvent::Node(name, node) => format!("node {name} {}", node.is_some()),
        InputEvent::Findings(_, key, found) => format!("findings {key} {}", found.len()),
        InputEvent::Synced => "synced".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn follows_a_directory() {
    let directory = TempDir::new().unwrap();
    write(&directory, "web.yaml", WEB);
    write(
        &directory,
        "rest.json",
        r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
             "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}]}"#,
    );
    write(&directory, "README.md", "not a manifest");
    let mut events = start(directory.path(), NodeScope::One("n2".into()));
    // Of two files the older may be read a poll earlier, and its objects come again with the other's.
    let mut seen = BTreeSet::new();
    loop {
        let event = next(&mut events).await;
        if event == "synced" {
            break;
        }
        seen.insert(event);
    }
    let expected = [
        "node n2 true",
        "service default/web Some([10.96.0.1])",
        "slice default/web-1 true",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into());

    write(
        &directory,
        "web.yaml",
        &WEB.replace("10.96.0.1", "10.96.0.2"),
    );
    loop {
        // Every object of the directory comes again; what is unchanged is no news to the model.
        if next(&mut events).await == "service default/web Some([10.96.0.2])" {
            break;
        }
    }
    fs::remove_file(directory.path().join("web.yaml")).unwrap();
    loop {
        if next(&mut events).await == "service default/web None" {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_directory_is_in_sync() {
    let directory = TempDir::new().unwrap();
    let mut events = start(directory.path(), NodeScope::All);
    assert_eq!(next(&mut events).await, "synced");
}

#[tokio::test]
async fn a_missing_directory_is_refused_at_start() {
    let missing = Path::new("/nonexistent/manifests");
    let Err(error) = Source::open(None, Some(missing)).await else {
        panic!("opened")
    };
    expect!["cannot read the manifest directory /nonexistent/manifests: No such file or directory (os error 2)"]
        .assert_eq(&error.to_string());
}

/// When everything written so far has settled.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1)
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("web.yaml");
    fs::write(&path, "").unwrap();
    let mut directory = Directory::new(temporary.path().to_owned());
    let poll = directory.poll(SystemTime::now());
    assert!(!poll.changed && !poll.complete, "{poll:?}");

    fs::write(&path, WEB).unwrap();
    let poll = directory.poll(later());
    assert!(poll.changed && poll.complete, "{poll:?}");
    assert_eq!(directory.objects().count(), 1);

    // Truncated, and not yet written again.
    fs::write(&path, "").unwrap();
    let poll = directory.poll(SystemTime::now());
    assert!(!poll.changed && !poll.complete, "{poll:?}");
    assert_eq!(directory.objects().count(), 1);
    assert!(directory.poll(later()).changed);
    assert_eq!(directory.objects().count(), 0);
}

#[test]
fn a_broken_document_holds_back_nothing_else() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("all.yaml");
    let second = WEB.replace("name: web", "name: api");
    fs::write(&path, format!("{WEB}---\n{second}")).unwrap();
    let mut directory = Directory::new(temporary.path().to_owned());
    let poll = directory.poll(later());
    assert!(
        poll.changed && poll.complete && poll.problems.is_empty(),
        "{poll:?}"
    );

    let third = WEB.replace("name: web", "name: new");
    fs::write(
        &path,
        format!("{third}---\nkind: [Service\n---\nkind: Service\n"),
    )
    .unwrap();
    let problems = directory.poll(later()).problems.join("\n");
    let problems = problems.replace(&temporary.path().display().to_string(), "DIR");
    expect![[r#"
        DIR/all.yaml: document 2: line 9 column 7: unclosed bracket '['; earlier objects of this file stay in force
        DIR/all.yaml: document 3: line 11: no matches for kind "Service" in version ""; earlier objects of this file stay in force"#]]
    .assert_eq(&problems);
    let names = |directory: &Directory| {
        let mut names = Interner::default();
        let all: Vec<String> = directory
            .objects()
            .map(|object| object.reference(&mut names).to_string())
            .collect();
        all.join(", ")
    };
    expect!["Service default/api, Service default/new, Service default/web"]
        .assert_eq(&names(&directory));
    assert!(directory.poll(later()).problems.is_empty());

    fs::write(&path, &third).unwrap();
    assert!(directory.poll(later()).problems.is_empty());
    expect!["Service default/new"].assert_eq(&names(&directory));

    // The directory itself gone: nothing is taken for deleted.
    fs::remove_dir_all(temporary.path()).unwrap();
    let poll = directory.poll(later());
    assert!(
        !poll.changed && !poll.complete && poll.problems.len() == 1,
        "{poll:?}"
    );
    expect!["Service default/new"].assert_eq(&names(&directory));
}

#[test]
fn one_object_in_two_files_is_reported() {
    let temporary = TempDir::new().unwrap();
    fs::write(temporary.path().join("a.yaml"), WEB).unwrap();
    fs::write(temporary.path().join("b.yml"), WEB).unwrap();
    let mut directory = Directory::new(temporary.path().to_owned());
    let problems = directory.poll(later()).problems.join("\n");
    let problems = problems.replace(&temporary.path().display().to_string(), "DIR");
    expect!["Service default/web is in DIR/a.yaml and in DIR/b.yml: the latter counts"]
        .assert_eq(&problems);
    assert_eq!(directory.objects().count(), 1);
}

#[test]
fn documents_that_cannot_be_used_say_why() {
    for (text, want) in [
        ("metadata: {name: x}", "line 1: Object 'Kind' is missing"),
        (
            "# why\n---\n\nkind: Service",
            "line 4: no matches for kind \"Service\" in version \"\"",
        ),
        (
            "apiVersion: v1\nkind: Service",
            "line 1: Service: metadata.name: Required value",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: http}]}",
            "line 1: Service default/x: invalid type: string \"http\", expected i64",
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: x}",
            "line 1: no matches for kind \"EndpointSlice\" in version \"discovery.k8s.io/v1beta1\"",
        ),
        (
            "kind: List\nitems: [{}]",
            "line 1: items[0]: Object 'Kind' is missing",
        ),
        ("just text", "line 1: Object 'Kind' is missing"),
    ] {
        let parsed = parse(text);
        assert_eq!(parsed.broken, [(1, want.to_owned())], "{text}");
    }
    for text in [
        "",
        "# nothing\n",
        "---\n---\n# more\n...\n",
        "kind: ServiceList\napiVersion: v1\nitems: []\n",
    ] {
        let parsed = parse(text);
        assert!(
            parsed.objects.is_empty() && parsed.broken.is_empty(),
            "{text}"
        );
    }
    let typed = "kind: NodeList\napiVersion: v1\nitems: [{metadata: {name: n1}}]\n";
    assert_eq!(parse(typed).objects.len(), 1);
}

/// Parts of manifests, and what breaks them.
const PIECES: [&str; 26] = [
    "---\n",
    "---",
    "apiVersion: v1\n",
    "kind: Service\n",
    "kind: List\n",
    "items:\n",
    "- ",
    "  ",
    "\n",
    "metadata: {name: web}\n",
    "spec:\n",
    "ports: [{port: 80}]\n",
    "[",
    "}",
    "\"",
    "&a ",
    "*a ",
    "\t",
    "\u{0}",
    "é",
    ": ",
    "{}",
    "null\n",
    "!!binary x\n",
    "|\n",
    "# c\n",
];

proptest! {
    #[test]
    fn any_text_is_read_or_said_to_be_broken(pieces in vec(select(PIECES.to_vec()), 0..24)) {
        let parsed = parse(&pieces.concat());
        for (document, reason) in &parsed.broken {
            prop_assert!(*document > 0 && !reason.is_empty());
        }
    }
}
