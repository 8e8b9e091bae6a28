//! `/version`, `/healthz`, `/livez`, `/readyz`: open to all.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::answer;
use crate::query::Query;
use crate::server::Shared;

/// The Kubernetes version whose API this is. kubectl picks its behaviour by it, and needs it to parse as semver.
const MAJOR: &str = "1";
const MINOR: &str = "33";
const GIT_VERSION: &str = concat!("v1.33.4+seaway.", env!("CARGO_PKG_VERSION"));

pub(super) fn version() -> Response {
    let body = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    answer::json(StatusCode::OK, &body)
}

/// Go's names.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/readyz` fails once the server is stopping; the others say that it answers.
pub(super) fn health(shared: &Shared, path: &str, query: &Query) -> Response {
    let name = path.trim_matches('/').split('/').next().unwrap_or_default();
    let mut checks = vec![("ping", true), ("store", shared.store.revision() > 0)];
    if name == "readyz" {
        checks.push(("shutdown", !shared.stopping.is_cancelled()));
    }
    let healthy = checks.iter().all(|(_, passed)| *passed);
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    if healthy && !query.has("verbose") {
        return answer::text(code, "ok");
    }
    let line = |(check, passed): &(&str, bool)| {
        if *passed {
            format!("[+]{check} ok\n")
        } else {
            format!("[-]{check} failed\n")
        }
    };
    let lines: String = checks.iter().map(line).collect();
    let verdict = if healthy { "passed" } else { "failed" };
    answer::text(code, format!("{lines}{name} check {verdict}\n"))
}
