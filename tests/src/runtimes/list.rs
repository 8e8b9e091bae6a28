//! Config lists as the specification tells runtimes to read them (1.1.0, sections 1 and 3). Pure but for [`List::read`].

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// What libcni 1.3 speaks.
pub const NEW: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What libcni 1.1 speaks, which runtimes of 2022 are built with.
pub const OLD: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// A list, and the version in which its plugins are called.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    pub name: String,
    /// The highest that the list and the runtime have in common.
    pub version: String,
    pub disable_check: bool,
    pub disable_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
}

impl List {
    /// Reads a file, and the plugins of the folder beside it that is named after the network.
    pub fn read(path: &Path, speaks: &[&str]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let file: Map<String, Value> =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let inlined_only = file.get("loadOnlyInlinedPlugins") == Some(&Value::Bool(true));
        ensure!(
            !inlined_only || file.contains_key("plugins"),
            "{}: loadOnlyInlinedPlugins, and no plugins",
            path.display()
        );
        let mut list = Self::of(&file, speaks)?;
        let folder = path.with_file_name(&list.name);
        if !inlined_only && folder.is_dir() {
            let mut files: Vec<_> = std::fs::read_dir(&folder)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<_>>()?;
            files.sort();
            for file in files {
                let text = std::fs::read_to_string(&file)?;
                let plugin = serde_json::from_str(&text);
                list.plugins
                    .push(plugin.with_context(|| file.display().to_string())?);
            }
        }
        ensure!(!list.plugins.is_empty(), "{}: no plugins", path.display());
        Ok(list)
    }

    /// A list that is there as text.
    pub fn parse(text: &str, speaks: &[&str]) -> Result<Self> {
        Self::of(&serde_json::from_str(text)?, speaks)
    }

    fn of(file: &Map<String, Value>, speaks: &[&str]) -> Result<Self> {
        let name = file.get("name").and_then(Value::as_str).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        ensure!(
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain),
            "{name:?} is no name of a network"
        );
        let plugins = match file.get("plugins") {
            None => Vec::new(),
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(other) => bail!("plugins is {other}"),
        };
        let flag = |key| file.get(key) == Some(&Value::Bool(true));
        Ok(Self {
            name: name.to_owned(),
            version: version(file, speaks)?,
            disable_check: flag("disableCheck"),
            disable_gc: flag("disableGC"),
            plugins: plugins
                .into_iter()
                .map(|plugin| Ok(serde_json::from_value(plugin)?))
                .collect::<Result<_>>()?,
        })
    }

    /// The name of a plugin's program.
    pub fn program(&self, index: usize) -> &str {
        let plugin = self.plugins.get(index);
        let program = plugin.and_then(|plugin| plugin.get("type"));
        program.and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether plugins are called in this version or a later one.
    pub fn at_least(&self, version: &str) -> bool {
        number(&self.version) >= number(version)
    }

    /// What a plugin reads: its own object with every key that nobody here knows, name and version of the list, the
    /// result so far, and those capabilities that it declares and that are given. `capabilities` stays in, as libcni
    /// leaves it.
    pub fn request(
        &self,
        index: usize,
        previous: Option<&Value>,
        capabilities: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut request = self.plugins.get(index).cloned().unwrap_or_default();
        request.insert("cniVersion".into(), json!(self.version));
        request.insert("name".into(), json!(self.name));
        if let Some(result) = previous {
            request.insert("prevResult".into(), result.clone());
        }
        let declares = |capability: &str| {
            let declared = self.plugins.get(index).and_then(|p| p.get("capabilities"));
            declared.and_then(|c| c.get(capability)) == Some(&Value::Bool(true))
        };
        let given: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| declares(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !given.is_empty() {
            request.insert("runtimeConfig".into(), Value::Object(given));
        }
        request
    }
}

/// The highest of `cniVersion` and `cniVersions` that the runtime speaks.
fn version(file: &Map<String, Value>, speaks: &[&str]) -> Result<String> {
    let one = file.get("cniVersion").and_then(Value::as_str);
    let several = file.get("cniVersions").and_then(Value::as_array);
    let several = several.into_iter().flatten().filter_map(Value::as_str);
    let offered: Vec<&str> = one.into_iter().chain(several).collect();
    let known = offered.iter().filter(|version| speaks.contains(version));
    let highest = known.max_by_key(|version| number(version));
    let highest =
        highest.with_context(|| format!("versions {offered:?}; this runtime speaks {speaks:?}"))?;
    Ok((*highest).to_owned())
}

fn number(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{
        "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "9.0.0"], "name": "pods", "disableGC": true,
        "plugins": [{"type": "a", "custom": [1], "capabilities": {"portMappings": true, "mac": false}}]}"#;

    #[test]
    fn the_highest_common_version_is_used() {
        let version = |speaks| List::parse(LIST, speaks).unwrap().version;
        assert_eq!(version(NEW), "1.1.0");
        assert_eq!(version(OLD), "1.0.0");
        assert!(List::parse(LIST, &["0.3.1"]).is_err());
    }

    #[test]
    fn a_request_has_what_was_declared_and_given_and_nothing_is_lost() {
        let list = List::parse(LIST, NEW).unwrap();
        assert!(list.disable_gc && !list.disable_check);
        let given = json!({"portMappings": [1], "mac": "x", "bandwidth": {}});
        let request = list.request(0, Some(&json!({"ips": []})), given.as_object().unwrap());
        let expected = json!({
            "type": "a", "custom": [1], "capabilities": {"portMappings": true, "mac": false},
            "cniVersion": "1.1.0", "name": "pods", "prevResult": {"ips": []},
            "runtimeConfig": {"portMappings": [1]},
        });
        assert_eq!(Value::Object(request), expected);
    }

    #[test]
    fn plugins_of_the_folder_beside_it_follow_unless_only_inlined_ones_are_wanted() {
        let name = format!("seaway-list-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("pods")).unwrap();
        std::fs::write(dir.join("pods/b.conf"), r#"{"type": "b"}"#).unwrap();
        let path = dir.join("10.conflist");
        let programs = |text: String| {
            std::fs::write(&path, text).unwrap();
            let list = List::read(&path, NEW)?;
            let programs = 0..list.plugins.len();
            anyhow::Ok(
                programs
                    .map(|i| list.program(i).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let inlined = LIST.replacen('{', r#"{"loadOnlyInlinedPlugins": true,"#, 1);
        let read = [programs(LIST.into()), programs(inlined)];
        let bare = programs(r#"{"cniVersion": "1.0.0", "name": "other"}"#.into());
        std::fs::remove_dir_all(&dir).unwrap();
        let [all, inlined] = read.map(Result::unwrap);
        assert_eq!(
            (all, inlined),
            (vec!["a".into(), "b".into()], vec!["a".into()])
        );
        assert!(bare.unwrap_err().to_string().contains("no plugins"));
    }
}
