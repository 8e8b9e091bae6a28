//! Resource amounts: `250m`, `64Mi`, `1e3` (`k8s.io/apimachinery/pkg/api/resource`).

/// What is wrong with a text that is no amount, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Syntax,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Binary and decimal suffixes, each with its power of two or ten.
const BINARY: &[(&str, i32)] = &[
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// The amount, good enough to compare two of them; the text itself is what is stored.
pub(crate) fn parse(text: &str) -> Result<f64, QuantityError> {
    let digits = text.trim_start_matches(['+', '-']);
    let digits = digits
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(digits.len())
        + (text.len() - digits.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| QuantityError::Syntax)?;
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok(number * 2f64.powi(*power));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok(number * 10f64.powi(*power));
    }
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Syntax);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>);
    match exponent {
        Some(Ok(exponent)) => Ok(number * 10f64.powi(exponent)),
        _ => Err(QuantityError::Suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let cases = [
            ("250m", Ok(0.25)),
            ("1Ki", Ok(1024.0)),
            ("1e3", Ok(1000.0)),
            ("1E-3", Ok(0.001)),
            ("2E", Ok(2e18)),
            ("-2", Ok(-2.0)),
            ("1.5", Ok(1.5)),
            ("lots", Err(QuantityError::Syntax)),
            ("", Err(QuantityError::Syntax)),
            ("--1", Err(QuantityError::Syntax)),
            ("1x", Err(QuantityError::Syntax)),
            ("1-2", Err(QuantityError::Suffix)),
            ("1mi", Err(QuantityError::Suffix)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
