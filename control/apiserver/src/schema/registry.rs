use std::collections::HashMap;
use std::sync::LazyLock;

use super::parse::{ParseError, RawType, parse};
use super::{Type, TypeDef};

const TABLES: &[&str] = &[
    include_str!("tables/meta.txt"),
    include_str!("tables/core.txt"),
    include_str!("tables/node.txt"),
    include_str!("tables/service.txt"),
    include_str!("tables/pod.txt"),
    include_str!("tables/container.txt"),
    include_str!("tables/volume.txt"),
    include_str!("tables/apps.txt"),
    include_str!("tables/discovery.txt"),
    include_str!("tables/coordination.txt"),
    include_str!("tables/events.txt"),
    include_str!("tables/autoscaling.txt"),
];

/// All types, with references between them resolved.
#[derive(Debug)]
pub struct Registry {
    types: Vec<TypeDef>,
    by_full_name: HashMap<String, usize>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| match Registry::load() {
    Ok(registry) => registry,
    Err(error) => unreachable!("the tables are part of this program, and tested: {error}"),
});

/// The one registry, parsed at first use.
pub fn registry() -> &'static Registry {
    &REGISTRY
}

impl Registry {
    fn load() -> Result<Self, ParseError> {
        let mut raw: Vec<RawType> = Vec::new();
        for table in TABLES {
            raw.extend(parse(table)?);
        }
        let by_full_name: HashMap<String, usize> = raw
            .iter()
            .enumerate()
            .map(|(i, t)| (t.def.full_name.clone(), i))
            .collect();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (i, one) in raw.iter().enumerate() {
            by_name.entry(&one.def.name).or_insert(i);
        }
        let mut resolved = Vec::new();
        for one in &raw {
            let package = one
                .def
                .full_name
                .rsplit_once('.')
                .map_or("", |(package, _)| package);
            let find = |name: &str| {
                by_full_name
                    .get(&format!("{package}.{name}"))
                    .or_else(|| by_name.get(name))
                    .copied()
            };
            let types: Option<Vec<Type>> = one
                .field_types
                .iter()
                .map(|text| resolve(text, &find))
                .collect();
            let what = || format!("{} names an unknown type", one.def.full_name);
            resolved.push(types.ok_or_else(|| ParseError {
                line: 0,
                what: what(),
            })?);
        }
        let mut types: Vec<TypeDef> = raw.into_iter().map(|one| one.def).collect();
        for (def, field_types) in types.iter_mut().zip(resolved) {
            for (field, ty) in def.fields.iter_mut().zip(field_types) {
                field.ty = ty;
            }
        }
        Ok(Self {
            types,
            by_full_name,
        })
    }

    pub fn get(&self, index: usize) -> &TypeDef {
        &self.types[index]
    }

    pub fn all(&self) -> &[TypeDef] {
        &self.types
    }

    /// The type of a kind, by the `apiVersion` and `kind` of its objects.
    pub fn root(&self, api_version: &str, kind: &str) -> Option<&TypeDef> {
        let package = match api_version.split_once('/') {
            None => format!("io.k8s.api.core.{api_version}"),
            Some((group, version)) => {
                let short = group.split('.').next().unwrap_or(group);
                format!("io.k8s.api.{short}.{version}")
            }
        };
        self.by_full_name
            .get(&format!("{package}.{kind}"))
            .map(|index| self.get(*index))
    }
}

fn resolve(text: &str, find: &impl Fn(&str) -> Option<usize>) -> Option<Type> {
    if let Some(item) = text.strip_prefix("[]") {
        return Some(Type::List(Box::new(resolve(item, find)?)));
    }
    if let Some(item) = text.strip_prefix("{}") {
        return Some(Type::Map(Box::new(resolve(item, find)?)));
    }
    Some(match text {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "intstr" => Type::IntOrString,
        "quantity" => Type::Quantity,
        "bytes" => Type::Bytes,
        "object" => Type::Object,
        name => Type::Ref(find(name)?),
    })
}
