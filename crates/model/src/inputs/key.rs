//! What objects are called.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Stands between the two parts. In no name, and before all that names are made of: so keys sort by namespace, then by
/// name.
const BETWEEN: char = '\0';

/// `namespace/name` of a namespaced object. One pointer to one text: of each Service a proxy has a dozen of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The key of the object of this name; a node's namespace is empty.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        let (namespace, name) = (namespace.as_ref(), name.as_ref());
        Self(format!("{namespace}{BETWEEN}{name}").into())
    }

    /// The key of another object in the same namespace.
    #[must_use]
    pub fn neighbour(&self, name: &str) -> Self {
        Self::new(self.namespace(), name)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(BETWEEN).unwrap_or(("", &self.0))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            ("", name) => name.fmt(f),
            (namespace, name) => write!(f, "{namespace}/{name}"),
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({self})")
    }
}

/// As it is written for others.
#[derive(Serialize, Deserialize)]
struct Parts {
    namespace: String,
    name: String,
}

impl From<Parts> for ObjectKey {
    fn from(Parts { namespace, name }: Parts) -> Self {
        Self::new(namespace, name)
    }
}

impl From<ObjectKey> for Parts {
    fn from(key: ObjectKey) -> Self {
        let (namespace, name) = key.parts();
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_namespace_and_then_by_name() {
        let pairs = [
            ("", "node"),
            ("a", ""),
            ("a", "x"),
            ("a", "x-1"),
            ("a", "x.1"),
            ("a-b", "a"),
            ("a.b", "a"),
            ("ab", "a"),
        ];
        let keys = pairs.map(|(namespace, name)| ObjectKey::new(namespace, name));
        assert!(keys.is_sorted());
        for (key, (namespace, name)) in keys.iter().zip(pairs) {
            assert_eq!((key.namespace(), key.name()), (namespace, name));
        }
    }

    #[test]
    fn keys_read_as_people_and_programs_write_them() {
        let key = ObjectKey::new("default", "web");
        assert_eq!(key.to_string(), "default/web");
        assert_eq!(ObjectKey::new("", "node-1").to_string(), "node-1");
        assert_eq!(key.neighbour("api"), ObjectKey::new("default", "api"));
        let json = serde_json::to_string(&key).expect("JSON");
        assert_eq!(json, r#"{"namespace":"default","name":"web"}"#);
        assert_eq!(
            serde_json::from_str::<ObjectKey>(&json).expect("a key"),
            key
        );
    }
}
