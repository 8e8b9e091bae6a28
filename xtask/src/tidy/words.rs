//! Words that have no place in finished code, and names that say nothing.

use super::Source;

const REFUSED_MODULES: &[&str] = &["utils", "util", "helpers", "helper", "misc", "common"];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        // This file has to spell them.
        if source.path.starts_with("xtask/src/tidy/") {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
                if line.contains(word) {
                    found.push(format!("{}:{}: `{word}`", source.path, index + 1));
                }
            }
        }
        if let Some(module) = module_name(&source.path)
            && REFUSED_MODULES.contains(&module)
        {
            found.push(format!(
                "{}: a module called `{module}` says nothing about what is in it",
                source.path
            ));
        }
    }
    found
}

fn module_name(path: &str) -> Option<&str> {
    let mut parts = path.rsplit('/');
    let file = parts.next()?.strip_suffix(".rs")?;
    if file == "mod" {
        parts.next()
    } else {
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_its_file_or_directory() {
        assert_eq!(module_name("a/src/utils.rs"), Some("utils"));
        assert_eq!(module_name("a/src/helpers/mod.rs"), Some("helpers"));
        assert_eq!(module_name("a/src/plan.rs"), Some("plan"));
    }
}
