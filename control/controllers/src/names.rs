//! Names and hashes in the alphabet that Kubernetes uses for generated suffixes.

use rand::Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// No vowels and no digits that look like them, so that no words appear (k8s.io/apimachinery `rand.SafeEncodeString`).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest name of an object that must also be a DNS label.
const MAX_NAME: usize = 63;

/// `base` with a random suffix of five characters, as `generateName` makes it.
///
/// Names are chosen here and not by the server, so that a create whose answer was lost can be repeated under the
/// same name and never happens twice.
pub(crate) fn generate(base: &str, rng: &mut impl Rng) -> String {
    let keep = base.len().min(MAX_NAME - 5);
    let mut name = base.get(..keep).unwrap_or(base).to_owned();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    name
}

/// A stable hash of a value's JSON form, ten characters long.
pub(crate) fn hash(value: &impl Serialize, salt: i32) -> String {
    // A value that cannot be written as JSON does not occur among API objects; it would hash as empty.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(json)
        .chain_update(salt.to_be_bytes())
        .finalize();
    digest
        .iter()
        .take(10)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label_and_keep_their_base() {
        let mut rng = rand::rng();
        let name = generate("web-abc-", &mut rng);
        assert!(name.starts_with("web-abc-") && name.len() == 13, "{name}");
        assert_eq!(generate(&"x".repeat(80), &mut rng).len(), MAX_NAME);
    }

    #[test]
    fn hashes_are_stable_and_salted() {
        let hashed = hash(&serde_json::json!({"a": 1}), 0);
        assert_eq!(hashed, hash(&serde_json::json!({"a": 1}), 0));
        assert_ne!(hashed, hash(&serde_json::json!({"a": 1}), 1));
        assert_eq!(hashed.len(), 10);
    }
}
