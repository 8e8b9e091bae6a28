//! Small files: the budget of the whole, and the limit of each.

use super::Source;

const MEDIAN: usize = 150;
const LIMIT: usize = 600;

/// Files above the limit, each with the reason why it is better whole.
const EXCEPTIONS: &[(&str, &str)] = &[];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        let excused = EXCEPTIONS.iter().any(|(path, _)| *path == source.path);
        if lines > LIMIT && !excused {
            found.push(format!(
                "{}: {lines} lines; the limit is {LIMIT}: split it, or list it in xtask/src/tidy/size.rs with the reason",
                source.path
            ));
        }
        if lines <= LIMIT && excused {
            found.push(format!(
                "{}: {lines} lines; it needs no exception any more",
                source.path
            ));
        }
    }
    let mut sizes: Vec<usize> = sources.iter().map(|s| s.text.lines().count()).collect();
    sizes.sort_unstable();
    if let Some(median) = sizes.get(sizes.len() / 2)
        && *median > MEDIAN
    {
        found.push(format!(
            "the median file has {median} lines; the budget is {MEDIAN}"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_named() {
        let long = Source {
            path: "a.rs".into(),
            text: "x\n".repeat(LIMIT + 1),
        };
        let found = check(&[long]);
        assert!(found[0].starts_with("a.rs: 601 lines"), "{found:?}");
    }
}
