//! What objects look like: one table of types and fields, from which strict validation, the OpenAPI documents and
//! strategic merge are driven.
//!
//! The table is text (`tables/*.txt`), a type per paragraph, so that it can be read and compared with the API
//! reference:
//!
//! ```text
//! @ io.k8s.api.core.v1                      package of the types below
//! ServiceSpec | A doc line.                 type
//!   ports []ServicePort merge=port list=map:port,protocol | A doc line.
//!   metadata! ObjectMeta                    `!`: must be there
//! ```
//!
//! Types are `string`, `bool`, `int32`, `int64`, `time`, `microtime`, `intstr`, `quantity`, `bytes` (base64), `object`
//! (anything inside), another type, `[]T` or `{}T` (map from text). `merge=KEY` and `merge` say how strategic merge
//! patches treat a list, `retain` that they may carry `$retainKeys`; `list=` is the list type of structured merge.

mod check;
mod parse;
mod registry;

use crate::kinds::Kind;

pub use check::{DecodeError, FieldValidation, decode};
pub use registry::{Registry, registry};

/// One type of the table.
#[derive(Debug)]
pub struct TypeDef {
    /// `io.k8s.api.core.v1.ServiceSpec`
    pub full_name: String,
    /// `ServiceSpec`
    pub name: String,
    pub doc: &'static str,
    pub fields: Vec<Field>,
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub ty: Type,
    pub required: bool,
    pub merge: Merge,
    pub retain_keys: bool,
    pub list: ListKind,
    pub doc: &'static str,
}

/// What values a field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Time,
    MicroTime,
    IntOrString,
    Quantity,
    Bytes,
    /// Anything inside: kinds of volumes that no agent of ours mounts.
    Object,
    /// Index into the registry.
    Ref(usize),
    List(Box<Self>),
    Map(Box<Self>),
}

/// How a strategic merge patch changes a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The patch's list takes the place of the old one.
    Replace,
    /// Items are added to a list of scalars.
    Union,
    /// Items are objects, told apart by this key.
    Key(&'static str),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    Unset,
    Atomic,
    Set,
    Map(Vec<&'static str>),
}

impl TypeDef {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The type of a kind's objects.
pub fn of(kind: &Kind) -> Option<&'static TypeDef> {
    registry().root(&kind.api_version(), kind.kind)
}

#[cfg(test)]
mod tests;
