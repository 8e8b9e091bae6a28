//! `cargo xtask test`: set up, build, run every suite; count what was skipped and why, and what needed a second attempt.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::{Profile, Workspace};
use crate::{leaks, progress, setup};

/// The binaries of an installation, and the one that measures them.
const MEASURED: [&str; 5] = [
    "seaway",
    "seaway-proxy",
    "seaway-overlay",
    "seaway-cni",
    "seaway-bench",
];

#[derive(Args, Default)]
pub(crate) struct TestArgs {
    /// Names (parts of names) of tests to run; all by default
    pub(crate) filters: Vec<String>,
    /// Package to test; all by default
    #[arg(short, long)]
    pub(crate) package: Option<String>,
    /// How often a test that failed is tried again; one that then passes is named as flaky
    #[arg(long, default_value_t = 0)]
    pub(crate) retries: u32,
}

/// How a run of the suite ended.
pub(crate) struct Outcome {
    pub(crate) passed: bool,
    /// nextest's own closing line.
    pub(crate) summary: String,
    pub(crate) skips: Vec<Skip>,
    /// Tests that failed first and passed then.
    pub(crate) flaky: Vec<String>,
    /// What the whole suite left on the machine, or took away.
    pub(crate) leaks: Vec<String>,
}

/// A test that found a need of its own unmet (see `tests/src/require.rs`).
pub(crate) struct Skip {
    pub(crate) need: String,
    pub(crate) test: String,
    pub(crate) reason: String,
}

pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    let outcome = suite(workspace, args)?;
    report(&outcome);
    if outcome.passed && outcome.leaks.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// Builds the binaries that the end-to-end suites start, then runs nextest.
pub(crate) fn suite(workspace: &Workspace, args: &TestArgs) -> Result<Outcome> {
    build_binaries(workspace, Profile::Dev)?;
    let skipped = workspace.target.join("skipped-tests");
    if skipped.exists() {
        std::fs::remove_file(&skipped).context("cannot remove the list of skipped tests")?;
    }
    // Of a part, others may run at the same time.
    let whole = args.filters.is_empty() && args.package.is_none();
    let before = whole.then(|| leaks::survey(workspace));
    let shell = workspace.shell()?;
    let mut command = Command::new("cargo");
    let retries = args.retries.to_string();
    command.args(["nextest", "run", "--no-fail-fast", "--retries", &retries]);
    match &args.package {
        Some(package) => command.args(["--package", package]),
        None => command.arg("--workspace"),
    };
    command
        .args(&args.filters)
        .current_dir(&workspace.root)
        .env("PATH", shell.var_os("PATH").unwrap_or_default())
        .env("SEAWAY_BIN_DIR", workspace.binaries(Profile::Dev))
        .env("SEAWAY_SKIPPED_TESTS", &skipped)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    eprintln!("==> cargo nextest run");
    let mut child = command.spawn().context("cannot run cargo nextest")?;
    let stderr = child.stderr.take().context("nextest has no stderr")?;
    let mut summary = String::new();
    let mut flaky = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("cannot read what nextest prints")?;
        if line.trim_start().starts_with("Summary [") {
            summary = line.trim().to_owned();
        }
        flaky.extend(flaky_test(&line));
        eprintln!("{line}");
    }
    let status = child.wait()?;
    if summary.is_empty() && status.success() {
        bail!("nextest ran no test");
    }
    let skips = match std::fs::read_to_string(&skipped) {
        Ok(text) => parse_skips(&text),
        Err(_) => Vec::new(),
    };
    let leaks = before.map(|before| leaks::since(&before, workspace));
    Ok(Outcome {
        passed: status.success(),
        summary,
        skips,
        flaky,
        leaks: leaks.unwrap_or_default(),
    })
}

/// Builds what the suites start, or (release) what users run and what measures it: there each binary is linked and
/// optimised as a whole, which takes a minute.
pub(crate) fn build_binaries(workspace: &Workspace, profile: Profile) -> Result<()> {
    let wanted = match profile {
        Profile::Dev => vec!["--bins".to_owned()],
        Profile::Release => MEASURED.map(|name| format!("--bin={name}")).to_vec(),
    };
    let profile = profile.name();
    let what = format!("cargo build --workspace --profile {profile}");
    progress::step(&what, || {
        let shell = workspace.shell()?;
        xshell::cmd!(
            shell,
            "cargo build --workspace --profile {profile} --quiet {wanted...}"
        )
        .quiet()
        .run()?;
        Ok(())
    })
}

pub(crate) fn report(outcome: &Outcome) {
    for skip in &outcome.skips {
        eprintln!("skipped: {}: {}", skip.test, skip.reason);
    }
    if !outcome.skips.is_empty() {
        eprintln!("{} tests skipped for unmet needs", outcome.skips.len());
    }
    for test in &outcome.flaky {
        eprintln!("passed at the second attempt only: {test}");
    }
    for leak in &outcome.leaks {
        eprintln!("not as before the suite: {leak}");
    }
    println!("{}", outcome.summary);
}

/// The test that nextest's closing list has as flaky in this line, if any.
fn flaky_test(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("FLAKY ")?;
    // FLAKY 2/2 [   0.011s] (1/3) package::binary module::test
    let (_, test) = rest.split_once(']')?;
    let test = test.trim_start();
    let name = match test.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, name)) => name,
        None => test,
    };
    Some(name.trim().to_owned())
}

fn parse_skips(text: &str) -> Vec<Skip> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            Some(Skip {
                need: fields.next()?,
                test: fields.next()?,
                reason: fields.next()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_test_is_named() {
        let name = Some("seaway-proxy::scenes scenes_of_ipv4".to_owned());
        for line in [
            "   FLAKY 2/2 [   1.234s] (  17/1219) seaway-proxy::scenes scenes_of_ipv4",
            "     FLAKY 2/3 [   1.234s] seaway-proxy::scenes scenes_of_ipv4",
        ] {
            assert_eq!(flaky_test(line), name, "{line}");
        }
        assert_eq!(flaky_test("  PASS [   1.2s] (1/2) a::b c"), None);
    }

    #[test]
    fn a_skip_is_need_test_reason() {
        let skips = parse_skips("root\tservices\tneeds root\nbroken line\n");
        assert_eq!(skips.len(), 1);
        assert_eq!(skips[0].need, "root");
        assert_eq!(skips[0].reason, "needs root");
    }
}
