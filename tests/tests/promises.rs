//! Documents say which test proves what: these tests hold their tables against the tests that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A document; a suite whose every test it has to name; and how many rows of its tables name one at least.
const DOCUMENTS: [(&str, Option<&str>, usize); 4] = [
    ("docs/cni.md", Some("cni/tests/node"), 25),
    ("docs/overlay.md", Some("cni/overlay/tests/nodes"), 20),
    ("docs/packets.md", None, 25),
    ("docs/runtimes.md", Some("tests/tests/runtimes"), 20),
];

/// Where tests are that a document may name.
const PLACES: [&str; 7] = [
    "cni",
    "control",
    "crates",
    "ebpf",
    "proxy",
    "tests",
    "xtask/src",
];

/// A test, as documents name it: the file (or the folder, for files whose name tells nothing), and the function.
type Test = (String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tests in a file.
fn tests_of(path: &Path, text: &str) -> BTreeSet<Test> {
    let name = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let module = match name(path).as_str() {
        "main" | "mod" | "tests" => name(path.parent().unwrap_or(path)),
        own => own.to_owned(),
    };
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let function = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ");
        if let Some(function) = function {
            let name = function.split(['(', '<']).next().unwrap_or_default();
            if marked {
                tests.insert((module.clone(), name.to_owned()));
            }
            marked = false;
        }
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    }
    tests
}

/// The tests in all files below a directory; with `deep`, in those below its directories as well.
fn tests_below(directory: &Path, deep: bool) -> Result<BTreeSet<Test>> {
    let mut tests = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && deep {
            tests.append(&mut tests_below(&path, true)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests.append(&mut tests_of(&path, &fs::read_to_string(&path)?));
        }
    }
    Ok(tests)
}

/// The tests that a text names.
fn named(text: &str) -> Vec<Test> {
    let words = text.split('`').skip(1).step_by(2);
    let is_name = |part: &str| {
        let of_a_name = |letter: char| letter == '_' || letter.is_alphanumeric();
        part.contains('_') && part.chars().all(of_a_name)
    };
    words
        .filter_map(|word| word.split_once("::"))
        .filter(|(_, test)| is_name(test))
        .map(|(module, test)| (module.to_owned(), test.to_owned()))
        .collect()
}

fn rows(text: &str) -> Vec<Vec<Test>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.map(named).filter(|tests| !tests.is_empty()).collect()
}

#[test]
fn the_promises_of_the_documents_have_their_tests() -> Result<()> {
    let mut there = BTreeSet::new();
    for place in PLACES {
        there.append(&mut tests_below(&root().join(place), true)?);
    }
    for (document, suite, least) in DOCUMENTS {
        let text = fs::read_to_string(root().join(document))?;
        let rows = rows(&text).len();
        assert!(rows >= least, "{document}: {rows} rows");
        let listed: BTreeSet<Test> = named(&text).into_iter().collect();
        let stale: Vec<_> = listed.difference(&there).collect();
        assert!(
            stale.is_empty(),
            "{document} names tests that are not there: {stale:#?}"
        );
        let Some(suite) = suite else { continue };
        let suite = tests_below(&root().join(suite), false)?;
        let missing: Vec<_> = suite.difference(&listed).collect();
        assert!(missing.is_empty(), "{document} lacks {missing:#?}");
    }
    Ok(())
}

#[test]
fn what_real_runtimes_need_is_complete() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/runtimes.md"))?;
    for number in 1..=12 {
        let row = format!("| F{number} |");
        assert!(text.contains(&row), "{row}");
    }
    for number in 1..=13 {
        let row = format!("| {number} |");
        assert!(text.contains(&row), "{row}");
    }
    Ok(())
}

/// Each of the 17 that flannel's users ran into has a row, and a test with its number.
#[test]
fn the_pitfalls_are_all_there() -> Result<()> {
    let text = fs::read_to_string(root().join("docs/overlay.md"))?;
    let (_, table) = text.split_once("## Pitfalls").context("no table")?;
    let (table, _) = table.split_once("\n## ").context("no end")?;
    let tests: Vec<_> = rows(table).into_iter().flatten().collect();
    assert_eq!(tests.len(), 17, "{tests:#?}");
    for (number, (module, test)) in (1..).zip(tests) {
        let row = format!("\n| {number} | ");
        assert!(table.contains(&row), "{row}");
        assert!(test.starts_with(&format!("pitfall_{number:02}_")), "{test}");
        assert_eq!(module, "pitfalls");
    }
    Ok(())
}

#[test]
fn names_of_tests_are_told_from_other_words() {
    let text = "| `fd00::1` is no test | `mesh::nodes_come_go_and_quarrel`, `--vni`, `not_one` |";
    let expected = ("mesh".to_owned(), "nodes_come_go_and_quarrel".to_owned());
    assert_eq!(named(text), [expected]);
    let text = "fn helper() {}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn it_holds() {}\nfn other() {}\n\
                proptest! {\n    #[test]\n    fn for_all(a in 0..3) {}\n}";
    let found = tests_of(Path::new("a/mesh/tests.rs"), text);
    let found: Vec<_> = found
        .iter()
        .map(|(module, test)| format!("{module}::{test}"))
        .collect();
    assert_eq!(found, ["mesh::for_all", "mesh::it_holds"]);
}
