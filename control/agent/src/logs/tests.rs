use std::fs;

use futures::StreamExt;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pod::facts::{ContainerFacts, Running};
use crate::records::Store;

struct Fixture {
    _directory: TempDir,
    registry: Registry,
    pod: Pod,
    dir: PodDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let dir = Store::open(directory.path()).unwrap().pod("u1");
        let metadata = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1"}});
        Self {
            _directory: directory,
            registry: Registry::default(),
            pod: serde_json::from_value(metadata).unwrap(),
            dir,
        }
    }

    fn write(&self, attempt: u32, text: &str) {
        fs::write(self.dir.prepare_log("c", attempt).unwrap(), text).unwrap();
    }

    fn publish(&self, attempt: u32, running: bool) {
        let running = running.then(|| Running {
            started_at: jiff::Timestamp::now(),
            ready: true,
            signalled_at: None,
            killed: false,
        });
        let container = ContainerFacts {
            attempt,
            running,
            ..ContainerFacts::default()
        };
        let facts = Facts {
            containers: [("c".to_owned(), container)].into(),
            ..Facts::default()
        };
        self.registry.publish(&self.pod, &self.dir, &facts);
    }

    async fn read(&self, query: &Query) -> Result<String, String> {
        let log = self
            .registry
            .open("shop", "web", "c", query)
            .await
            .map_err(|e| e.to_string())?;
        let parts: Vec<Vec<u8>> = log.stream().map(Result::unwrap).collect().await;
        Ok(String::from_utf8(parts.concat()).unwrap())
    }
}

#[tokio::test]
async fn whole_and_parts() {
    let fixture = Fixture::new();
    fixture.write(1, "old\n");
    fixture.write(2, "one\ntwo\nthree");
    fixture.publish(2, true);
    let tail = |lines| Query {
        tail_lines: Some(lines),
        ..Query::default()
    };
    for (query, want) in [
        (Query::default(), "one\ntwo\nthree"),
        (tail(0), ""),
        (tail(1), "three"),
        (tail(2), "two\nthree"),
        (tail(9), "one\ntwo\nthree"),
        (
            Query {
                limit_bytes: Some(5),
                ..Query::default()
            },
            "one\nt",
        ),
        (
            Query {
                limit_bytes: Some(0),
                ..Query::default()
            },
            "",
        ),
        (
            Query {
                previous: true,
                follow: true,
                ..Query::default()
            },
            "old\n",
        ),
    ] {
        assert_eq!(fixture.read(&query).await.as_deref(), Ok(want), "{query:?}");
    }
    fixture.write(3, &"x".repeat(70_000).replace("xxxxxxxxxx", "123456789\n"));
    fixture.publish(3, true);
    assert_eq!(fixture.read(&tail(6999)).await.unwrap().len(), 69_990);
}

#[tokio::test]
async fn refusals() {
    let fixture = Fixture::new();
    let none = fixture.read(&Query::default()).await.unwrap_err();
    assert_eq!(none, "pod \"shop/web\" not found on this node");
    fixture.publish(0, false);
    let waiting = fixture.read(&Query::default()).await.unwrap_err();
    assert_eq!(
        waiting,
        "container \"c\" in pod \"web\" is waiting to start"
    );
    fixture.write(1, "x");
    fixture.publish(1, true);
    let previous = Query {
        previous: true,
        ..Query::default()
    };
    let previous = fixture.read(&previous).await.unwrap_err();
    assert_eq!(
        previous,
        "previous terminated container \"c\" in pod \"web\" not found"
    );
    let times = Query {
        timestamps: true,
        ..Query::default()
    };
    assert!(
        fixture
            .read(&times)
            .await
            .unwrap_err()
            .starts_with("timestamps is not supported")
    );
    let other = fixture
        .registry
        .open("shop", "web", "d", &Query::default())
        .await
        .unwrap_err();
    assert_eq!(
        other.to_string(),
        "container \"d\" is not valid for pod \"web\""
    );
    let mut successor = fixture.pod.clone();
    successor.metadata.uid = Some("u2".to_owned());
    fixture.registry.forget(&successor);
    assert!(
        fixture.read(&Query::default()).await.is_ok(),
        "another pod of that name is not this one"
    );
    fixture.registry.forget(&fixture.pod);
    assert!(fixture.read(&Query::default()).await.is_err());
}

#[tokio::test]
async fn follows_until_the_container_ends() {
    let fixture = Fixture::new();
    fixture.write(1, "one\n");
    fixture.publish(1, true);
    let query = Query {
        follow: true,
        ..Query::default()
    };
    let writer = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fixture.write(1, "one\ntwo\n");
        tokio::time::sleep(Duration::from_millis(300)).await;
        fixture.write(1, "one\ntwo\nthree\n");
        fixture.publish(1, false);
    };
    let (text, ()) = tokio::join!(fixture.read(&query), writer);
    assert_eq!(text.as_deref(), Ok("one\ntwo\nthree\n"));
}
