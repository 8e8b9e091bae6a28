//! Continue tokens of paged lists. Pure.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::status::Status;

/// Where a paged list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continuation {
    /// The revision that all pages show; none after it was compacted: the present, with gaps.
    pub(crate) revision: Option<u64>,
    /// The last key given out.
    pub(crate) after: String,
}

impl Continuation {
    pub(crate) fn encode(&self) -> String {
        let body = match self.revision {
            Some(revision) => json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": self.after }),
            None => json!({ "v": "meta.k8s.io/v1", "rv": -1, "start": self.after }),
        };
        BASE64URL_NOPAD.encode(body.to_string().as_bytes())
    }

    pub(crate) fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = BASE64URL_NOPAD
            .decode(token.as_bytes())
            .map_err(|error| invalid(&error.to_string()))?;
        let body: Value =
            serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        let after = body["start"]
            .as_str()
            .ok_or_else(|| invalid("no start key"))?
            .to_owned();
        match (&body["rv"], body["rv"].as_u64()) {
            (_, Some(revision)) if revision > 0 => Ok(Self {
                revision: Some(revision),
                after,
            }),
            (rv, _) if rv.as_i64() == Some(-1) => Ok(Self {
                revision: None,
                after,
            }),
            _ => Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for revision in [Some(7), None] {
            let token = Continuation {
                revision,
                after: "default/web-1".into(),
            };
            assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        }
        for bad in ["", "!!", "e30", "eyJydiI6MCwic3RhcnQiOiJhIn0"] {
            assert_eq!(Continuation::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
