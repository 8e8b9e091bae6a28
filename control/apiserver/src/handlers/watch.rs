//! Watches: one JSON frame per line.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use jiff::Timestamp;
use seaway_store::{Event, EventKind, Record, WatchError, Watcher};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::list::wait_for;
use super::{Call, include_object};
use crate::answer::Result;
use crate::kinds::Kind;
use crate::meta;
use crate::negotiate::{self, Form};
use crate::objects::{bucket, load, load_bytes, prefix};
use crate::query::{Freshness, ListOptions};
use crate::select::Selection;
use crate::status::Status;
use crate::table::{self, IncludeObject, Layout};

/// A watch without `timeoutSeconds` ends at a random point between this and twice this, so that clients of a restarted
/// server do not come back all at once for ever.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The last bookmark comes this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

pub(super) async fn watch(call: Call) -> Result<Response> {
    let frames = Frames::new(negotiate::form(&call.headers)?, &call)?;
    let mut options = ListOptions::parse(&call.query)?;
    if let Some(name) = &call.name {
        options.field_selector = Some(format!("metadata.name={name}"));
    }
    let selection = Selection::parse(call.kind, &options)?;
    let stream = start(call, &options, selection, frames).await?;
    let frames = stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), stream))
    });
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// Takes the starting position and queues what comes before the live events.
async fn start(
    call: Call,
    options: &ListOptions,
    selection: Selection,
    mut frames: Frames,
) -> Result<Stream> {
    let (bucket, prefix) = (
        bucket(call.kind),
        prefix(call.kind, call.namespace.as_deref()),
    );
    let store = &call.shared.store;
    let burst = match (options.send_initial_events, options.freshness) {
        (Some(wanted), Freshness::NotOlderThan(revision) | Freshness::Exact(revision))
            if wanted =>
        {
            wait_for(&call, revision).await?;
            true
        }
        (Some(wanted), _) => wanted,
        (None, Freshness::Latest | Freshness::Any) => true,
        (None, _) => false,
    };
    let mut queue = VecDeque::new();
    let from = if burst {
        let listing = store.list(&bucket, &prefix, None)?;
        for record in listing
            .records
            .iter()
            .filter(|record| selection.matches(record))
        {
            queue.push_back(frames.event("ADDED", &frames.bytes(record)?)?);
        }
        if options.bookmarks {
            queue.push_back(frames.bookmark(listing.revision, true));
        }
        listing.revision
    } else {
        match options.freshness {
            Freshness::Latest | Freshness::Any => store.revision(),
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => revision,
        }
    };
    let source = match store.watch(&bucket, &prefix, from) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            queue.extend(end_of(error));
            None
        }
    };
    let timeout = match options.timeout_seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => DEFAULT_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()),
    };
    let now = Instant::now();
    let deadline = now + timeout;
    let interval = call.shared.config.bookmark_interval;
    Ok(Stream {
        source,
        selection,
        frames,
        queue,
        deadline,
        bookmarks: options.bookmarks.then(|| Bookmarks {
            interval,
            next: next_bookmark(now, interval, deadline),
        }),
        stopping: call.shared.stopping.clone(),
    })
}

struct Bookmarks {
    interval: Duration,
    next: Instant,
}

/// After an interval, or shortly before the deadline if that comes first.
fn next_bookmark(now: Instant, interval: Duration, deadline: Instant) -> Instant {
    let last = deadline - LAST_BOOKMARK.min(deadline - now);
    if now < last {
        (now + interval).min(last)
    } else {
        deadline + interval
    }
}

struct Stream {
    /// None: nothing more comes after the queue.
    source: Option<Watcher>,
    selection: Selection,
    frames: Frames,
    queue: VecDeque<Bytes>,
    deadline: Instant,
    bookmarks: Option<Bookmarks>,
    stopping: CancellationToken,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            let source = self.source.as_mut()?;
            let bookmark = self
                .bookmarks
                .as_ref()
                .map_or(self.deadline, |bookmarks| bookmarks.next);
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                () = sleep_until(self.deadline) => return None,
                () = sleep_until(bookmark), if self.bookmarks.is_some() => self.bookmark(),
                events = source.next() => match events {
                    Ok(events) => events.iter().for_each(|event| self.event(event)),
                    Err(error) => {
                        self.queue.extend(end_of(error));
                        self.source = None;
                    }
                },
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match self.frame(event) {
            Ok(frame) => self.queue.extend(frame),
            // An object that cannot be read back: the client must not think that it saw everything.
            Err(failure) => {
                self.queue.push_back(error_frame(failure.status()));
                self.source = None;
            }
        }
    }

    /// What the event is to this watcher. An object that leaves the selection is deleted for it, in its last matching
    /// state at the revision of the change; one that enters is added.
    fn frame(&mut self, event: &Event) -> Result<Option<Bytes>> {
        let matched = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.selection.matches(previous));
        let matches = event.kind == EventKind::Put && self.selection.matches(&event.record);
        let (kind, bytes) = match (matched, matches) {
            (false, false) => return Ok(None),
            (false, true) => ("ADDED", self.frames.bytes(&event.record)?),
            (true, true) => ("MODIFIED", self.frames.bytes(&event.record)?),
            (true, false) if event.kind == EventKind::Delete => {
                ("DELETED", self.frames.bytes(&event.record)?)
            }
            (true, false) => {
                let Some(previous) = &event.previous else {
                    return Ok(None);
                };
                let mut last = load(self.frames.kind, &previous.value)?;
                meta::set_resource_version(&mut last, event.revision());
                ("DELETED", last.to_string().into())
            }
        };
        self.frames.event(kind, &bytes).map(Some)
    }

    /// At the watcher's own position: every earlier event has been queued before.
    fn bookmark(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        // What was published since the last wait comes first; with it the position is the present.
        match source.take() {
            Ok(events) => events.iter().for_each(|event| self.event(event)),
            Err(error) => {
                self.queue.extend(end_of(error));
                self.source = None;
            }
        }
        let Some(source) = &self.source else { return };
        self.queue
            .push_back(self.frames.bookmark(source.position(), false));
        if let Some(bookmarks) = &mut self.bookmarks {
            bookmarks.next = next_bookmark(Instant::now(), bookmarks.interval, self.deadline);
        }
    }
}

/// The frame that ends a watch, if it has something to say: a client that is told nothing resumes where it was.
fn end_of(error: WatchError) -> Option<Bytes> {
    match error {
        WatchError::Compacted { asked, oldest } => Some(error_frame(
            &Status::too_old_resource_version(asked, oldest),
        )),
        WatchError::TooSlow { behind } => {
            tracing::info!(behind, "a watch is ended: its client does not keep up");
            None
        }
        WatchError::Closed => None,
    }
}

fn error_frame(status: &Status) -> Bytes {
    frame("ERROR", &status.body().to_string())
}

fn frame(kind: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

/// Writes frames in the form that the client asked for.
struct Frames {
    form: Form,
    kind: &'static Kind,
    include: IncludeObject,
    /// Column definitions come with the first table only.
    columns: bool,
}

impl Frames {
    fn new(form: Form, call: &Call) -> Result<Self> {
        Ok(Self {
            form,
            kind: call.kind,
            include: include_object(call)?,
            columns: true,
        })
    }

    fn bytes(&self, record: &Record) -> Result<Bytes> {
        load_bytes(self.kind, &record.value)
    }

    fn event(&mut self, kind: &str, object: &Bytes) -> Result<Bytes> {
        let object: Value = match self.form {
            Form::Object => {
                let mut line = Vec::with_capacity(object.len() + 40);
                line.extend_from_slice(b"{\"type\":\"");
                line.extend_from_slice(kind.as_bytes());
                line.extend_from_slice(b"\",\"object\":");
                line.extend_from_slice(object);
                line.extend_from_slice(b"}\n");
                return Ok(line.into());
            }
            Form::Table => self.layout().single(&serde_json::from_slice(object)?),
            Form::Metadata => table::partial(&serde_json::from_slice(object)?, "v1"),
        };
        Ok(frame(kind, &object.to_string()))
    }

    fn bookmark(&mut self, revision: u64, initial_events_end: bool) -> Bytes {
        let (kind, version) = match self.form {
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            _ => (self.kind.kind, self.kind.api_version()),
        };
        let mut object = json!({
            "kind": kind,
            "apiVersion": version,
            "metadata": { "resourceVersion": revision.to_string() },
        });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Table => self.layout().bookmark(&object),
            _ => object,
        };
        frame("BOOKMARK", &object.to_string())
    }

    /// For the next table.
    fn layout(&mut self) -> Layout<'static> {
        let columns = std::mem::take(&mut self.columns);
        Layout {
            kind: self.kind,
            version: "v1",
            include: self.include,
            columns,
            now: Timestamp::now(),
        }
    }
}
