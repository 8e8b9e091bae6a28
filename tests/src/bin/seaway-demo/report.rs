//! Progress lines, the table at the end, and the same as JSON.

use std::time::Instant;

use comfy_table::Table;
use serde::Serialize;

/// What was checked so far.
pub(crate) struct Report {
    pub(crate) start: Instant,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    ok: bool,
    ms: u64,
    detail: String,
}

/// A progress line on stderr.
pub(crate) fn say(start: Instant, line: &str) {
    eprintln!("{:>6.1} s  {line}", start.elapsed().as_secs_f64());
}

impl Report {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            checks: Vec::new(),
        }
    }

    pub(crate) fn passed(&mut self, name: &str, started: Instant, detail: String) {
        say(self.start, &format!("ok    {name}: {detail}"));
        self.checks.push(Check {
            name: name.to_owned(),
            ok: true,
            ms: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            detail,
        });
    }

    pub(crate) fn failed(&mut self, name: &str, detail: String) {
        say(self.start, &format!("FAIL  {name}: {detail}"));
        self.checks.push(Check {
            name: name.to_owned(),
            ok: false,
            ms: 0,
            detail,
        });
    }

    /// Something was checked, and nothing failed.
    pub(crate) fn ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["check", "", "time", "detail"]);
        for check in &self.checks {
            let verdict = if check.ok { "ok" } else { "FAIL" };
            table.add_row([
                check.name.clone(),
                verdict.to_owned(),
                format!("{} ms", check.ms),
                check.detail.clone(),
            ]);
        }
        table
    }

    pub(crate) fn json(&self) -> String {
        let object = serde_json::json!({ "ok": self.ok(), "checks": self.checks });
        object.to_string()
    }
}
