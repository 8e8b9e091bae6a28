//! What containers printed, as kubelet's `/containerLogs` gives it out.

use std::collections::BTreeMap;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::pod::facts::Facts;
use crate::records::PodDir;

#[cfg(test)]
mod tests;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

const BLOCK: u64 = 64 * 1024;

/// Query parameters of a log request (kubelet's `PodLogOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Query {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub since_seconds: Option<u64>,
    pub since_time: Option<String>,
}

/// Why there is no log to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("pod \"{namespace}/{pod}\" not found on this node")]
    NoPod { namespace: String, pod: String },
    #[error("container \"{container}\" is not valid for pod \"{pod}\"")]
    NoContainer { pod: String, container: String },
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start")]
    Waiting { pod: String, container: String },
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious { pod: String, container: String },
    /// Containers write their files themselves, so that they outlive the agent; nobody notes when.
    #[error("{0} is not supported: the times of log lines are not recorded on this node")]
    NoTimes(&'static str),
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
}

#[derive(Debug)]
struct Entry {
    uid: String,
    dir: PodDir,
    containers: BTreeMap<String, Attempt>,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    number: u32,
    running: bool,
}

/// The Pods of the node whose logs can be asked for, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<(String, String), Entry>>>);

/// One log, opened.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    left: Option<u64>,
    follow: Option<Follow>,
}

/// Tells whether more may come.
#[derive(Debug)]
struct Follow {
    registry: Registry,
    key: (String, String),
    container: String,
    attempt: u32,
}

impl Registry {
    /// Notes which attempts of a Pod's containers there are.
    pub fn publish(&self, pod: &Pod, dir: &PodDir, facts: &Facts) {
        let containers = facts.containers.iter().map(|(name, container)| {
            let attempt = Attempt {
                number: container.attempt,
                running: container.running.is_some(),
            };
            (name.clone(), attempt)
        });
        let entry = Entry {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            dir: dir.clone(),
            containers: containers.collect(),
        };
        self.lock().insert(key(pod), entry);
    }

    /// The Pod is gone, unless another has its name by now.
    pub fn forget(&self, pod: &Pod) {
        let mut entries = self.lock();
        let key = key(pod);
        if entries
            .get(&key)
            .is_some_and(|entry| Some(&entry.uid) == pod.metadata.uid.as_ref())
        {
            entries.remove(&key);
        }
    }

    /// Opens the log that a request names, at the place where it shall begin.
    pub async fn open(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &Query,
    ) -> Result<Log, Error> {
        for (asked, name) in [
            (query.timestamps, "timestamps"),
            (query.since_seconds.is_some(), "sinceSeconds"),
            (query.since_time.is_some(), "sinceTime"),
        ] {
            if asked {
                return Err(Error::NoTimes(name));
            }
        }
        let key = (namespace.to_owned(), pod.to_owned());
        let (path, attempt) = self.find(&key, container, query.previous)?;
        let read = |cause| Error::Read {
            path: path.clone(),
            cause,
        };
        let mut file = File::open(&path).await.map_err(read)?;
        if let Some(lines) = query.tail_lines {
            let start = tail_start(&mut file, lines).await.map_err(read)?;
            file.seek(SeekFrom::Start(start)).await.map_err(read)?;
        }
        let follow = (query.follow && !query.previous).then(|| Follow {
            registry: self.clone(),
            key,
            container: container.to_owned(),
            attempt,
        });
        Ok(Log {
            file,
            path,
            left: query.limit_bytes,
            follow,
        })
    }

    fn find(
        &self,
        key: &(String, String),
        container: &str,
        previous: bool,
    ) -> Result<(PathBuf, u32), Error> {
        let (namespace, pod) = key.clone();
        let entries = self.lock();
        let Some(entry) = entries.get(key) else {
            return Err(Error::NoPod { namespace, pod });
        };
        let container = container.to_owned();
        let Some(attempt) = entry.containers.get(&container) else {
            return Err(Error::NoContainer { pod, container });
        };
        let number = if previous {
            attempt.number.saturating_sub(1)
        } else {
            attempt.number
        };
        let path = entry.dir.log(&container, number);
        match (number, previous) {
            (0, true) => Err(Error::NoPrevious { pod, container }),
            (0, false) => Err(Error::Waiting { pod, container }),
            (_, true) if !path.exists() => Err(Error::NoPrevious { pod, container }),
            (_, false) if !path.exists() => Err(Error::Waiting { pod, container }),
            _ => Ok((path, number)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Entry>> {
        // Every change is one insert or remove: a panic elsewhere cannot have left the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow {
    fn more_may_come(&self) -> bool {
        let entries = self.registry.lock();
        let entry = entries.get(&self.key);
        let attempt = entry.and_then(|entry| entry.containers.get(&self.container));
        attempt.is_some_and(|attempt| attempt.running && attempt.number == self.attempt)
    }
}

impl Log {
    /// The bytes, as they come.
    pub fn stream(self) -> impl Stream<Item = Result<Vec<u8>, Error>> {
        futures::stream::unfold(Some(self), |log| async {
            let mut log = log?;
            match log.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(log))),
                Ok(None) => None,
                Err(cause) => {
                    let path = log.path.clone();
                    Some((Err(Error::Read { path, cause }), None))
                }
            }
        })
    }

    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let limit = self.left.unwrap_or(BLOCK).min(BLOCK);
        if limit == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut ended = false;
        loop {
            (&mut self.file).take(limit).read_to_end(&mut bytes).await?;
            if !bytes.is_empty() {
                break;
            }
            let Some(follow) = self.follow.as_ref().filter(|_| !ended) else {
                return Ok(None);
            };
            // After the end is seen the file is read once more: its last bytes may have come in between.
            ended = !follow.more_may_come();
            if !ended {
                tokio::time::sleep(POLL).await;
            }
        }
        if let Some(left) = &mut self.left {
            *left -= bytes.len() as u64;
        }
        Ok(Some(bytes))
    }
}

fn key(pod: &Pod) -> (String, String) {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

/// Where the last `lines` lines begin; reads backwards, block by block.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut missing) = (size, lines);
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut block = Vec::new();
        (&mut *file)
            .take(end - start)
            .read_to_end(&mut block)
            .await?;
        for (i, byte) in block.iter().enumerate().rev() {
            let at = start + i as u64;
            // The newline at the very end closes the last line, it does not begin another.
            if *byte == b'\n' && at + 1 < size {
                missing -= 1;
                if missing == 0 {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// Whether a path may stand in a log request: names of the API, nothing that climbs.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && Path::new(name).file_name() == Some(name.as_ref())
}
