//! Findings about objects as Events: whoever looks at the Service sees what is wrong with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use seaway_cluster::{EventRecorder, ObjectRef};
use seaway_model::Diagnostic;
use tokio::sync::mpsc;

use crate::healthcheck::Failure;
use crate::metrics::Metrics;

/// Tells people about objects: always in the log, and on an API server as Events. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Events {
    recorder: Option<Arc<Mutex<EventRecorder>>>,
    metrics: Metrics,
}

impl Events {
    /// Without a recorder only the log hears.
    pub fn new(recorder: Option<EventRecorder>, metrics: Metrics) -> Self {
        Self {
            recorder: recorder.map(|recorder| Arc::new(Mutex::new(recorder))),
            metrics,
        }
    }

    /// A field that cannot be used as written.
    pub fn diagnosed(&self, diagnostic: &Diagnostic) {
        let message = format!("{}: {}", diagnostic.field, diagnostic.consequence);
        self.record(object_of(diagnostic), "CannotUseField", message);
    }

    /// Tells of health check ports that cannot be had, until there is nobody left to say so.
    pub async fn tell_refused_ports(self, mut failures: mpsc::UnboundedReceiver<Failure>) {
        while let Some(failure) = failures.recv().await {
            let Failure {
                service,
                port,
                reason,
            } = failure;
            self.metrics.health_check_failures.inc();
            tracing::warn!(%service, port, reason, "cannot serve a health check port");
            let message = format!(
                "spec.healthCheckNodePort: cannot listen on port {port}: {reason}; load balancers will not send here"
            );
            // kube-proxy's reason.
            let object = ObjectRef::Service(service);
            self.record(object, "FailedToStartServiceHealthcheck", message);
        }
    }

    fn record(&self, object: ObjectRef, reason: &'static str, message: String) {
        let Some(recorder) = &self.recorder else {
            return;
        };
        let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if !recorder.warn(object, reason, message, Instant::now()) {
            self.metrics.events_dropped.inc();
        }
    }
}

/// The object that a finding of the model is about: a node has no namespace, and paths of a Service begin with `spec` or
/// `status`, which slices do not have.
fn object_of(diagnostic: &Diagnostic) -> ObjectRef {
    let key = diagnostic.object.clone();
    if key.namespace().is_empty() {
        return ObjectRef::Node(key.name().into());
    }
    let service = ["spec", "status"]
        .iter()
        .any(|part| diagnostic.field.starts_with(part));
    if service {
        ObjectRef::Service(key)
    } else {
        ObjectRef::Slice(key)
    }
}

#[cfg(test)]
mod tests {
    use seaway_model::ObjectKey;

    use super::*;

    #[test]
    fn findings_are_about_the_object_that_has_the_field() {
        let about = |namespace: &str, field: &str| {
            object_of(&Diagnostic {
                object: ObjectKey::new(namespace, "web"),
                field: field.to_owned(),
                consequence: String::new(),
            })
        };
        for field in ["spec.ports[0].port", "status.loadBalancer.ingress[0].ip"] {
            assert!(
                matches!(about("default", field), ObjectRef::Service(_)),
                "{field}"
            );
        }
        for field in ["ports[0].port", "endpoints[1].addresses[0]", "addressType"] {
            assert!(
                matches!(about("default", field), ObjectRef::Slice(_)),
                "{field}"
            );
        }
        assert!(matches!(about("", "spec.podCIDRs"), ObjectRef::Node(_)));
    }
}
