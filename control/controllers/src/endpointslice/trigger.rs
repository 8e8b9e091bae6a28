//! When the change happened that makes a slice be written.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::pods;

/// The times seen so far for one Service, as Kubernetes' `TriggerTimeTracker`: the time of a Pod is that of the last
/// transition of its readiness, the time of a Service that of its creation.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    pods: HashMap<String, Timestamp>,
    service: Option<Timestamp>,
}

impl Triggers {
    /// The earliest of the times that are new since the last call.
    pub(super) fn update(&mut self, service: &Service, pods: &[&Arc<Pod>]) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let mut news: Vec<Timestamp> = Vec::new();
        if self.service != created {
            news.extend(created);
            self.service = created;
        }
        let now: HashMap<String, Timestamp> = pods
            .iter()
            .filter_map(|pod| {
                let time = pods::condition(pod, "Ready")?
                    .last_transition_time
                    .as_ref()?
                    .0;
                Some((pod.metadata.uid.clone()?, time))
            })
            .collect();
        let later = |uid: &String, time| self.pods.get(uid).is_none_or(|known| *known < time);
        news.extend(
            now.iter()
                .filter(|(uid, time)| later(uid, **time))
                .map(|(_, t)| *t),
        );
        self.pods = now;
        news.into_iter().min()
    }
}
