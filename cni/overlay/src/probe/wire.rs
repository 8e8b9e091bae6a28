//! What probes look like: a header, then zeros up to the wanted size.
//!
//! ```text
//! 0        8     9         12         16       24
//! | magic  | kind| unused  | sequence | token  | zeros ...
//! ```

/// The version is part of it: overlays of another one are not understood, and do not answer.
const MAGIC: &[u8; 8] = b"seaway.1";

const ASK: u8 = 1;
const ANSWER: u8 = 2;

/// The length of the header, and of an answer.
pub const HEADER: usize = 24;

/// A probe or the answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub is_answer: bool,
    /// Tells the probes of one prober apart.
    pub sequence: u32,
    /// Of the prober: an answer that does not carry it is nobody's.
    pub token: u64,
}

impl Message {
    /// The answer to it.
    pub fn answer(self) -> Self {
        Self {
            is_answer: true,
            ..self
        }
    }

    /// As bytes, at least a header.
    pub fn write(&self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size.max(HEADER)];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = if self.is_answer { ANSWER } else { ASK };
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.token.to_be_bytes());
        bytes
    }

    /// Reads what came in; `None` if it is anything else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        Some(Self {
            is_answer: match header[8] {
                ASK => false,
                ANSWER => true,
                _ => return None,
            },
            sequence: u32::from_be_bytes(*header[12..].first_chunk()?),
            token: u64::from_be_bytes(*header[16..].first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(
            is_answer: bool, sequence: u32, token: u64, size in 0usize..2000,
        ) {
            let message = Message { is_answer, sequence, token };
            let bytes = message.write(size);
            proptest::prop_assert_eq!(bytes.len(), size.max(HEADER));
            proptest::prop_assert_eq!(Message::read(&bytes), Some(message));
        }

        #[test]
        fn foreign_bytes_are_nothing_or_a_message(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), ours: bool,
        ) {
            if ours && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            if let Some(message) = Message::read(&bytes) {
                proptest::prop_assert_eq!(message.write(bytes.len())[..9].to_vec(), bytes[..9].to_vec());
            }
        }
    }
}
