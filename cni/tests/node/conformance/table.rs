//! The table in the docs and the tests agree.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the specification asks of a plugin, and what every client does beside it; the others are the runtime's.
const REQUIREMENTS: &str = "C02 C08 C09 C11 C12 E01 E02 E03 E04 E05 E06 E07 E09 E10 E11 E12 E13 E14 E15 A01 A02 A03 A04 \
     A05 A06 D01 D02 D03 D04 K02 K03 K04 K05 K06 K07 K08 K09 S01 S02 S03 S04 S05 S06 V01 V02 G02 G03 G04 G05 G07 G08 I01 I02 \
     I03 I04 I05 R01 R02 R03 R04 R05 R06 R07 R08 R09 R10 R11 R12 Q01 Q02 Q03 Q04 Q05 Q06 Q07 Q08 Q09";

fn tests_in(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let functions = text
            .split("fn ")
            .skip(1)
            .filter_map(|rest| rest.split_once('('));
        let names_of_tests = functions.map(|(name, _)| name).filter(|name| {
            let bytes = name.as_bytes();
            bytes.len() > 4 && bytes[1..3].iter().all(u8::is_ascii_digit) && bytes[3] == b'_'
        });
        names.extend(names_of_tests.map(str::to_owned));
    }
    names
}

#[test]
fn the_table_and_the_tests_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("../docs/cni.md")).unwrap();
    let listed: BTreeSet<String> = docs
        .split('`')
        .filter(|word| {
            word.len() > 4 && word.as_bytes()[3] == b'_' && word.as_bytes()[1].is_ascii_digit()
        })
        .map(str::to_owned)
        .collect();
    let present = tests_in(&root.join("tests/node/conformance"));
    let missing: Vec<_> = present.difference(&listed).collect();
    assert!(missing.is_empty(), "not in docs/cni.md: {missing:#?}");
    let stale: Vec<_> = listed.difference(&present).collect();
    assert!(stale.is_empty(), "no such test: {stale:#?}");
    for id in REQUIREMENTS.split_whitespace() {
        let id = id.to_lowercase();
        assert!(
            present
                .iter()
                .any(|name| name.split('_').any(|word| word == id)),
            "{id} has no test"
        );
        assert!(
            docs.contains(&format!("| {} |", id.to_uppercase())),
            "{id} has no row"
        );
    }
}
