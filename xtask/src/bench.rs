//! `cargo xtask bench`: set up, build what users run (the release profile), and hand over to `seaway-bench`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::workspace::{Profile, Workspace};
use crate::{demo, setup, test};

#[derive(Args)]
#[command(after_help = "Scenarios and their flags: `cargo xtask bench help`, docs/bench.md")]
pub(crate) struct BenchArgs {
    /// The scenario and its flags, as `seaway-bench` takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<ExitCode> {
    let built = [Profile::Release, Profile::Dev]
        .into_iter()
        .find(|profile| workspace.binaries(*profile).join(BINARY).is_file());
    match asked(&args.args, &scenarios(COMMAND_LINE))? {
        Asked::List(list) => {
            print!("{list}");
            return Ok(ExitCode::SUCCESS);
        }
        // One of another day may know other flags, but to wait for minutes is worse.
        Asked::Help => {
            if let Some(profile) = built {
                return demo::become_binary(workspace, profile, BINARY, &args.args);
            }
        }
        Asked::Figures => {}
    }
    setup::ensure(workspace)?;
    test::build_binaries(workspace, Profile::Release)?;
    demo::become_binary(workspace, Profile::Release, BINARY, &args.args)
}

const BINARY: &str = "seaway-bench";

/// Read as text, since nothing of ours is linked: the list of scenarios is in it, and nowhere else.
const COMMAND_LINE: &str = include_str!("../../tests/src/bin/seaway-bench.rs");

/// A scenario by its name, and what it measures.
type Scenario = (String, String);

/// The variants of `enum Scenario` with what is said of them; hidden ones have only an attribute.
fn scenarios(source: &str) -> Vec<Scenario> {
    let lines = source.lines().map(str::trim);
    let within = lines
        .skip_while(|line| *line != "enum Scenario {")
        .take_while(|line| *line != "}");
    let mut about = None;
    let mut found = Vec::new();
    for line in within {
        match line.strip_prefix("/// ") {
            Some(text) => about = Some(text.to_owned()),
            None => {
                let name = line.split(['(', ',']).next().unwrap_or_default();
                found.extend(about.take().map(|about| (name.to_lowercase(), about)));
            }
        }
    }
    found
}

/// What a command line wants, as far as can be told before anything is built.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// This, and nothing else.
    List(String),
    /// What `seaway-bench` says of a scenario.
    Help,
    Figures,
}

fn asked(args: &[String], scenarios: &[Scenario]) -> Result<Asked> {
    let names = || scenarios.iter().map(|(name, _)| name.as_str());
    let is_scenario = |arg: &String| names().any(|name| name == arg);
    let wants_help = args
        .iter()
        .any(|arg| matches!(arg.as_str(), "help" | "--help" | "-h"));
    match (args.iter().any(is_scenario), wants_help) {
        (true, true) => Ok(Asked::Help),
        (true, false) => Ok(Asked::Figures),
        (false, true) => {
            let mut list =
                String::from("cargo xtask bench [--quick] [--json] SCENARIO [FLAGS]\n\n");
            for (name, about) in scenarios {
                list += &format!("  {name:<12} {about}\n");
            }
            Ok(Asked::List(
                list + "\nFlags of a scenario: `cargo xtask bench SCENARIO --help`, docs/bench.md\n",
            ))
        }
        (false, false) => {
            let names: Vec<_> = names().collect();
            bail!(
                "no scenario in {:?}; there are {} (`cargo xtask bench help`)",
                args.join(" "),
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_the_binary() {
        let all = scenarios(COMMAND_LINE);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["walkthrough", "programming", "cni", "plot"] {
            assert!(names.contains(&name), "{name} not in {names:?}");
        }
        // Each variant of the enum is one, but for those that are hidden.
        let body = COMMAND_LINE.split("enum Scenario {").nth(1).unwrap();
        let body = body.split("\n}").next().unwrap();
        let variants = body.lines().filter(|line| line.ends_with(',')).count();
        assert_eq!(all.len(), variants - body.matches("hide = true").count());
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase()))
        );
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_built() {
        let scenarios = [("cni", "ADD and DEL"), ("plot", "Draw")]
            .map(|(name, about)| (name.to_owned(), about.to_owned()));
        let ask = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            asked(&args, &scenarios)
        };
        for (line, expected) in [
            ("cni", Asked::Figures),
            ("--quick cni --json", Asked::Figures),
            ("plot a.json --output help.svg", Asked::Figures),
            ("cni --help", Asked::Help),
            ("help cni", Asked::Help),
        ] {
            assert_eq!(ask(line).unwrap(), expected, "{line}");
        }
        for line in ["help", "--help", "--quick -h"] {
            let Asked::List(list) = ask(line).unwrap() else {
                panic!("{line}");
            };
            assert!(list.contains("  cni          ADD and DEL\n"), "{list}");
        }
        for line in ["cnii", "--quick", "wrong --json"] {
            let error = ask(line).unwrap_err().to_string();
            assert!(error.contains("there are cni, plot"), "{error}");
        }
    }
}
