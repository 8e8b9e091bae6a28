//! The path grammar of the API, which is data: group, version, namespace, resource, name, subresource. Pure.

/// What a path addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`
    Health,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/v1`, `/apis/{group}/{version}`
    Resources {
        group: String,
        version: String,
    },
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApi,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/{group}/{version}`
    OpenApiDocument {
        group: String,
        version: String,
    },
    Resource(ResourcePath),
    Unknown,
}

/// A path to a collection, an object or a subresource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Subresources of a namespace itself; every other third segment under `namespaces/{ns}` is a resource in it.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];

impl Route {
    pub(crate) fn parse(path: &str) -> Self {
        let Some(segments) = segments(path) else {
            return Self::Unknown;
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let gv = |group: &str, version: &str| (group.to_owned(), version.to_owned());
        match segments.as_slice() {
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", "api", version] => {
                let (group, version) = gv("", version);
                Self::OpenApiDocument { group, version }
            }
            ["openapi", "v3", "apis", group, version] => {
                let (group, version) = gv(group, version);
                Self::OpenApiDocument { group, version }
            }
            ["api", version] => {
                let (group, version) = gv("", version);
                Self::Resources { group, version }
            }
            ["apis", group, version] => {
                let (group, version) = gv(group, version);
                Self::Resources { group, version }
            }
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", group, version, rest @ ..] => resource(group, version, rest),
            _ => Self::Unknown,
        }
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let (namespace, rest) = match rest {
        ["namespaces", _, sub] if group.is_empty() && OF_NAMESPACES.contains(sub) => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            (Some((*namespace).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let path = |plural: &str, name: Option<&str>, subresource: Option<String>| {
        Route::Resource(ResourcePath {
            group: group.into(),
            version: version.into(),
            namespace: namespace.clone(),
            plural: plural.into(),
            name: name.map(str::to_owned),
            subresource,
        })
    };
    match rest {
        [plural] => path(plural, None, None),
        [plural, name] => path(plural, Some(name), None),
        [plural, name, sub @ ..] => path(plural, Some(name), Some(sub.join("/"))),
        [] => Route::Unknown,
    }
}

/// The decoded segments; none if the encoding is broken or a segment is empty (other than one trailing slash).
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| decode(segment).filter(|segment| !segment.is_empty()))
        .collect()
}

/// Percent-decoding (RFC 3986 section 2.1).
fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(
        path: &str,
    ) -> (
        String,
        Option<String>,
        String,
        Option<String>,
        Option<String>,
    ) {
        match Route::parse(path) {
            Route::Resource(path) => (
                path.group,
                path.namespace,
                path.plural,
                path.name,
                path.subresource,
            ),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn resources() {
        let some = |text: &str| Some(text.to_owned());
        let of = String::from;
        assert_eq!(
            resource("/api/v1/pods"),
            (of(""), None, of("pods"), None, None)
        );
        assert_eq!(
            resource("/api/v1/namespaces"),
            (of(""), None, of("namespaces"), None, None)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a"),
            (of(""), None, of("namespaces"), some("a"), None)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a/finalize"),
            (of(""), None, of("namespaces"), some("a"), some("finalize"))
        );
        assert_eq!(
            resource("/api/v1/namespaces/a/pods"),
            (of(""), some("a"), of("pods"), None, None)
        );
        assert_eq!(
            resource("/api/v1/namespaces/a/pods/p/log"),
            (of(""), some("a"), of("pods"), some("p"), some("log"))
        );
        assert_eq!(
            resource("/apis/apps/v1/namespaces/a/deployments/d%3A1/scale"),
            (
                of("apps"),
                some("a"),
                of("deployments"),
                some("d:1"),
                some("scale")
            )
        );
        assert_eq!(
            resource("/api/v1/nodes/n1/status"),
            (of(""), None, of("nodes"), some("n1"), some("status"))
        );
    }

    #[test]
    fn the_rest() {
        assert_eq!(Route::parse("/api"), Route::CoreVersions);
        assert_eq!(Route::parse("/apis/"), Route::Groups);
        assert_eq!(Route::parse("/readyz"), Route::Health);
        assert_eq!(Route::parse("/openapi/v2"), Route::OpenApiV2);
        let (group, version) = ("apps".to_owned(), "v1".to_owned());
        assert_eq!(
            Route::parse("/openapi/v3/apis/apps/v1"),
            Route::OpenApiDocument { group, version }
        );
        for unknown in [
            "/",
            "",
            "/metrics",
            "/api/v1//pods",
            "/apis/%zz",
            "/openapi/v1",
            "x",
        ] {
            assert_eq!(Route::parse(unknown), Route::Unknown, "{unknown}");
        }
    }
}
