//! Every target over every input that is kept: seeds with a meaning, and whatever once broke something.

use std::path::{Path, PathBuf};

use seaway_fuzz::TARGETS;

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut files = read().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.sort();
    files
}

#[test]
fn what_is_kept_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: Vec<_> = TARGETS
        .iter()
        .map(|target| corpus.join(target.name))
        .collect();
    assert_eq!(
        files(&corpus),
        folders,
        "a folder for each target, and no other"
    );
    for (target, folder) in TARGETS.iter().zip(folders) {
        for file in files(&folder) {
            // Shown when the test fails: the last one is the culprit.
            println!("{}", file.display());
            (target.check)(&std::fs::read(&file).unwrap());
        }
    }
}
