use super::{Field, ListKind, Merge, TypeDef};

/// A table that does not follow its own rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema table, line {line}: {what}")]
pub(super) struct ParseError {
    pub(super) line: usize,
    pub(super) what: String,
}

/// A type whose fields' types are still text.
pub(super) struct RawType {
    pub(super) def: TypeDef,
    pub(super) field_types: Vec<&'static str>,
}

pub(super) fn parse(text: &'static str) -> Result<Vec<RawType>, ParseError> {
    let mut package = "";
    let mut types: Vec<RawType> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let error = |what: &str| ParseError {
            line: i + 1,
            what: what.to_owned(),
        };
        if line.trim().is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("@ ") {
            package = name.trim();
        } else if let Some(field) = line.strip_prefix("  ") {
            let current = types
                .last_mut()
                .ok_or_else(|| error("a field before any type"))?;
            let (field, field_type) = parse_field(field).ok_or_else(|| error("not a field"))?;
            current.def.fields.push(field);
            current.field_types.push(field_type);
        } else {
            let (name, doc) = split_doc(line);
            let def = TypeDef {
                full_name: format!("{package}.{name}"),
                name: name.to_owned(),
                doc,
                fields: Vec::new(),
            };
            types.push(RawType {
                def,
                field_types: Vec::new(),
            });
        }
    }
    Ok(types)
}

fn parse_field(line: &'static str) -> Option<(Field, &'static str)> {
    let (head, doc) = split_doc(line);
    let mut words = head.split_whitespace();
    let name = words.next()?;
    let field_type = words.next()?;
    let mut field = Field {
        name: name.strip_suffix('!').unwrap_or(name),
        // Resolved when all types are known.
        ty: super::Type::Object,
        required: name.ends_with('!'),
        merge: Merge::Replace,
        retain_keys: false,
        list: ListKind::Unset,
        doc,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "merge" => field.merge = Merge::Union,
            None if word == "retain" => field.retain_keys = true,
            Some(("merge", key)) => field.merge = Merge::Key(key),
            Some(("list", "atomic")) => field.list = ListKind::Atomic,
            Some(("list", "set")) => field.list = ListKind::Set,
            Some(("list", keys)) => {
                field.list = ListKind::Map(keys.strip_prefix("map:")?.split(',').collect());
            }
            _ => return None,
        }
    }
    Some((field, field_type))
}

fn split_doc(line: &'static str) -> (&'static str, &'static str) {
    line.split_once(" | ")
        .map_or((line.trim(), ""), |(head, doc)| (head.trim(), doc.trim()))
}
