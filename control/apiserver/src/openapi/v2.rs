//! OpenAPI v2, without a single definition.
//!
//! kubectl asks for it when no v3 document knows the kind of a manifest, in protobuf form, and gives up if there is none:
//! a misspelt kind then reads "failed to download openapi". With a document that does not know the kind either, kubectl
//! says so itself.

use serde_json::{Value, json};

const TITLE: &str = "Seaway";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// As JSON.
pub fn json() -> Value {
    json!({
        "swagger": "2.0",
        "info": { "title": TITLE, "version": VERSION },
        "paths": {},
    })
}

/// As `openapi.v2.Document` of gnostic's `OpenAPIv2.proto`: 1 swagger, 2 info (1 title, 2 version), 8 paths.
pub fn protobuf() -> Vec<u8> {
    let mut info = Vec::new();
    field(&mut info, 1, TITLE.as_bytes());
    field(&mut info, 2, VERSION.as_bytes());
    let mut document = Vec::new();
    field(&mut document, 1, b"2.0");
    field(&mut document, 2, &info);
    field(&mut document, 8, b"");
    document
}

/// A length-delimited field. Everything here is shorter than 128 bytes, so that key and length are a byte each.
fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    out.push(number << 3 | LENGTH_DELIMITED);
    out.extend(u8::try_from(content.len()).ok());
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protobuf_form_says_what_the_json_form_says() {
        let bytes = protobuf();
        assert_eq!(bytes[..5], *b"\x0a\x032.0");
        let info = 4 + TITLE.len() + VERSION.len();
        assert_eq!(bytes[5..7], [0x12, u8::try_from(info).unwrap()]);
        assert_eq!(bytes[7..15], *b"\x0a\x06Seaway");
        assert_eq!(bytes[7 + info..], [0x42, 0]);
        assert_eq!(json()["swagger"], "2.0");
        assert_eq!(json()["info"]["title"], "Seaway");
    }
}
