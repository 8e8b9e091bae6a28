use serde_json::Value;

/// A patch as Go prints it (`%+v`), which is how upstream quotes it in errors: `map[spec:map[replicas:1]]`.
pub fn go_text(value: &Value) -> String {
    let join = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", join(items.iter().map(go_text).collect())),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", join(pairs.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nests() {
        let patch = json!({"spec": {"b": [1, "x"], "a": null}, "m": {}});
        assert_eq!(go_text(&patch), "map[m:map[] spec:map[a:<nil> b:[1 x]]]");
    }
}
