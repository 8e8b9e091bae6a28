//! Text of a manifest file to objects. Pure.

use serde_json::Value;

use crate::convert::Object;
use crate::wire;

/// What a file holds: the objects that could be read, and the documents that could not.
#[derive(Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    /// Document number (from 1) and reason, with the line in the file and the object if it has a name.
    pub broken: Vec<(usize, String)>,
}

/// Reads a multi-document YAML or JSON text. Documents of kinds that we do not read are passed over: a
/// directory of whole applications is a legitimate input.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (i, document) in documents(text).iter().enumerate() {
        match serde_saphyr::from_str::<Value>(document) {
            Ok(Value::Null) => {}
            Ok(value) => {
                if let Err(reason) = objects(&value, &mut parsed.objects) {
                    let line = first_line(document);
                    parsed
                        .broken
                        .push((i + 1, format!("line {line}: {reason}")));
                }
            }
            Err(error) => parsed.broken.push((i + 1, one_line(&error.to_string()))),
        }
    }
    parsed
}

/// Splits at `---` lines, so that a syntax error stays in its document. Lines before a document are replaced by
/// empty ones: positions in errors are positions in the file.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        let separator = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        if let Some(rest) = separator {
            documents.push("\n".repeat(number));
            let last = documents.last_mut();
            if let Some(document) = last.filter(|_| !rest.trim_start().starts_with('#')) {
                document.push_str(rest);
            }
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
        }
        if let Some(document) = documents.last_mut() {
            document.push('\n');
        }
    }
    documents.retain(|document| has_content(document));
    documents
}

fn has_content(document: &str) -> bool {
    document.lines().any(is_content)
}

/// Where a document begins, from 1.
fn first_line(document: &str) -> usize {
    1 + document.lines().take_while(|l| !is_content(l)).count()
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && line != "..."
}

fn objects(value: &Value, out: &mut Vec<Object>) -> Result<(), String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
    if kind.is_empty() {
        return Err("Object 'Kind' is missing".to_owned());
    }
    if let Some(items) = list_items(&kind, value) {
        // A typed list may leave out the kind of its items.
        let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
        for (i, item) in items.iter().enumerate() {
            let mut item = item.clone();
            if let Value::Object(fields) = &mut item
                && !item_kind.is_empty()
            {
                fields
                    .entry("kind")
                    .or_insert_with(|| item_kind.clone().into());
                fields
                    .entry("apiVersion")
                    .or_insert_with(|| api_version.clone().into());
            }
            objects(&item, out).map_err(|reason| format!("items[{i}]: {reason}"))?;
        }
        return Ok(());
    }
    let object = match (api_version.as_str(), kind.as_str()) {
        ("v1", "Service") => Object::Service(read::<wire::Service>(value, &kind)?),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            Object::Slice(read::<wire::EndpointSlice>(value, &kind)?)
        }
        ("v1", "Node") => Object::Node(read::<wire::Node>(value, &kind)?),
        (other, "Service" | "EndpointSlice" | "Node") => {
            return Err(format!("no matches for kind {kind:?} in version {other:?}"));
        }
        _ => return Ok(()),
    };
    out.push(object);
    Ok(())
}

fn list_items<'a>(kind: &str, value: &'a Value) -> Option<&'a Vec<Value>> {
    matches!(
        kind,
        "List" | "ServiceList" | "EndpointSliceList" | "NodeList"
    )
    .then(|| value.get("items").and_then(Value::as_array))
    .flatten()
}

fn read<T: serde::de::DeserializeOwned + kube::Resource>(
    value: &Value,
    kind: &str,
) -> Result<T, String> {
    let named = |kind: &str| match value.pointer("/metadata/name").and_then(Value::as_str) {
        None => kind.to_owned(),
        Some(name) => match value.pointer("/metadata/namespace").and_then(Value::as_str) {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None if kind == "Node" => format!("{kind} {name}"),
            None => format!("{kind} default/{name}"),
        },
    };
    let object: T = T::deserialize(value).map_err(|error| format!("{}: {error}", named(kind)))?;
    match object.meta().name.as_deref() {
        None | Some("") => Err(format!("{kind}: metadata.name: Required value")),
        Some(_) => Ok(object),
    }
}

/// The first line: the rest of a YAML error is a drawing of the source.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
