//! From a decoded body to an object of its kind: types, unknown fields, nulls.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Type, TypeDef, of, registry};
use crate::kinds::Kind;
use crate::meta;
use crate::quantity;
use crate::status::Status;

/// What to do about fields that the kind does not have (query parameter `fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// The empty text is the default, `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A body that is no object of its kind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// It says that it is something else.
    #[error("{}", .0.message)]
    Identity(Box<Status>),
    /// It has fields of a wrong type, or fields that the kind does not have.
    #[error("{0}")]
    Content(String),
}

impl DecodeError {
    /// The answer to a create or replace with such a body.
    pub fn into_status(self, kind: &Kind) -> Status {
        match self {
            Self::Identity(status) => *status,
            Self::Content(error) => Status::cannot_be_handled(kind, &error),
        }
    }
}

/// Makes `body` an object of `kind`: `apiVersion` and `kind` are set, nulls, unknown fields and empty optional lists and
/// maps gone (Go's `omitempty`: a label map without labels is no label map), and every value has the type that its field
/// asks for, times and amounts in the form in which typed clients read them. Returns the texts of warnings.
pub fn decode(
    kind: &Kind,
    body: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, DecodeError> {
    identify(kind, body)?;
    let Some(def) = of(kind) else {
        return Ok(Vec::new());
    };
    let mut walk = Walk {
        unknown: Vec::new(),
    };
    if let Value::Object(map) = body {
        walk.root(def, map).map_err(DecodeError::Content)?;
    }
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !walk.unknown.is_empty() => {
            let error = format!("strict decoding error: {}", walk.unknown.join(", "));
            Err(DecodeError::Content(error))
        }
        FieldValidation::Warn | FieldValidation::Strict => Ok(walk.unknown),
    }
}

/// The body says it is of this kind, or says nothing.
fn identify(kind: &Kind, body: &mut Value) -> Result<(), DecodeError> {
    let other = |message: String| {
        Err(DecodeError::Identity(Box::new(Status::bad_request(
            message,
        ))))
    };
    let api_version = kind.api_version();
    let Value::Object(map) = body else {
        let error = format!(
            "json: cannot unmarshal {} into Go value of type {}",
            shape(body),
            go_name(kind.kind)
        );
        return Err(DecodeError::Content(error));
    };
    let own = |key: &str| {
        map.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, name) = (own("apiVersion"), own("kind"));
    if !version.is_empty() && version != api_version {
        return other(format!(
            "the API version in the data ({version}) does not match the expected API version ({api_version})"
        ));
    }
    if !name.is_empty() && name != kind.kind {
        return other(format!(
            "{name} in version \"{}\" cannot be handled as a {}: unknown conversion",
            kind.version, kind.kind
        ));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.kind.into());
    Ok(())
}

struct Walk {
    /// `unknown field "spec.foo"`
    unknown: Vec<String>,
}

impl Walk {
    fn root(&mut self, def: &TypeDef, map: &mut Map<String, Value>) -> Result<(), String> {
        let (version, kind) = (map.remove("apiVersion"), map.remove("kind"));
        self.fields(def, map, "", "")?;
        map.extend(version.map(|v| ("apiVersion".to_owned(), v)));
        map.extend(kind.map(|v| ("kind".to_owned(), v)));
        Ok(())
    }

    /// `path` counts list items and names map keys, as unknown fields are reported; `go` does not, as Go reports wrong
    /// types.
    fn fields(
        &mut self,
        def: &TypeDef,
        map: &mut Map<String, Value>,
        path: &str,
        go: &str,
    ) -> Result<(), String> {
        let mut failure = None;
        map.retain(|key, value| {
            let path = join(path, key);
            let Some(field) = def.field(key) else {
                self.unknown.push(format!("unknown field \"{path}\""));
                return false;
            };
            if value.is_null() {
                return false;
            }
            let place = Place {
                path,
                go: join(go, key),
                owner: &def.name,
            };
            if let Err(error) = self.value(&field.ty, value, &place) {
                failure.get_or_insert(error);
            }
            field.required || !is_empty(&field.ty, value)
        });
        failure.map_or(Ok(()), Err)
    }

    fn value(&mut self, ty: &Type, value: &mut Value, place: &Place<'_>) -> Result<(), String> {
        match (ty, &mut *value) {
            (Type::Ref(index), Value::Object(map)) => {
                self.fields(registry().get(*index), map, &place.path, &place.go)
            }
            (Type::List(item), Value::Array(items)) => {
                for (i, one) in items.iter_mut().enumerate() {
                    let path = format!("{}[{i}]", place.path);
                    self.value(item, one, &place.inside(path))?;
                }
                Ok(())
            }
            (Type::Map(item), Value::Object(map)) => {
                map.retain(|_, value| !value.is_null());
                for (key, one) in map {
                    let path = join(&place.path, key);
                    self.value(item, one, &place.inside(path))?;
                }
                Ok(())
            }
            (Type::Object, Value::Object(_))
            | (Type::String, Value::String(_))
            | (Type::Bool, Value::Bool(_)) => Ok(()),
            (Type::Quantity, Value::String(text)) => amount(text),
            (Type::Quantity, Value::Number(number)) => {
                let text = number.to_string();
                amount(&text)?;
                *value = text.into();
                Ok(())
            }
            (Type::Int32, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Type::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
            (Type::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::Time, Value::String(text)) => time(text, meta::format_time),
            (Type::MicroTime, Value::String(text)) => time(text, meta::format_micro_time),
            (Type::Bytes, Value::String(text)) => match BASE64.decode(text.as_bytes()) {
                Ok(_) => Ok(()),
                Err(error) => Err(bad_base64(&error, text)),
            },
            (_, value) => Err(place.mismatch(ty, value)),
        }
    }
}

/// Where the walk is.
struct Place<'a> {
    path: String,
    go: String,
    owner: &'a str,
}

impl<'a> Place<'a> {
    /// That of an item of a list or map.
    fn inside(&self, path: String) -> Place<'a> {
        Place {
            path,
            go: self.go.clone(),
            owner: self.owner,
        }
    }

    fn mismatch(&self, ty: &Type, value: &Value) -> String {
        format!(
            "json: cannot unmarshal {} into Go struct field {}.{} of type {}",
            match (ty, value) {
                // Only a number that does not fit is shown.
                (Type::Int32 | Type::Int64, Value::Number(number)) => format!("number {number}"),
                _ => shape(value).to_owned(),
            },
            self.owner,
            self.go,
            go_type(ty)
        )
    }
}

/// Go says where.
fn bad_base64(error: &base64::DecodeError, text: &str) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            *at
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
    };
    format!("illegal base64 data at input byte {at}")
}

/// Rewrites a time as Go writes it: in UTC, with as many digits as Go's readers insist on.
fn time(text: &mut String, format: fn(Timestamp) -> String) -> Result<(), String> {
    let time = text.parse::<Timestamp>().map_err(|_| {
        format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\"")
    })?;
    *text = format(time);
    Ok(())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A list or map with nothing in it. Objects are not: `emptyDir: {}` says something.
fn is_empty(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn amount(text: &str) -> Result<(), String> {
    quantity::parse(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::String | Type::Quantity => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Object => "map[string]interface {}".to_owned(),
        Type::Ref(index) => go_name(&registry().get(*index).name),
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Map(item) => format!("map[string]{}", go_type(item)),
    }
}

fn go_name(name: &str) -> String {
    format!("v1.{name}")
}
