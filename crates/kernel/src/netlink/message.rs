//! Netlink messages as bytes, for what the message crates do not know. Attributes are aligned to four bytes.

use netlink_packet_core::{NLA_F_NESTED, NlaBuffer, NlasIterator};

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// With a header (`struct nlmsghdr`), whose length is known at the end.
    pub(crate) fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // Our port number: the kernel knows it.
        bytes.extend([0; 4]);
        Self(bytes)
    }

    /// Only what follows a header.
    pub(crate) fn body() -> Self {
        Self(Vec::with_capacity(256))
    }

    /// What was written behind [`Message::body`].
    pub(crate) fn into_body(self) -> Vec<u8> {
        self.0
    }

    /// Writes a structure of the kernel's.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Writes an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        self.with_length(kind, |message| message.raw(value));
    }

    /// Writes an attribute that is text, with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.with_length(kind, |message| {
            message.raw(value.as_bytes());
            message.raw(&[0]);
        });
    }

    /// Writes an attribute that holds others.
    pub(crate) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        self.with_length(kind | NLA_F_NESTED, write);
    }

    fn with_length(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        write(self);
        // Nothing that is written here comes near 64 KiB: lists of elements are split before.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The bytes, with the length in the header.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The attributes up to the first that is cut off.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// What the first attribute of a kind holds.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    attributes(bytes)
        .find(|nla| nla.kind() == wanted)
        .map(|nla| nla.value().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_content_and_everything_is_aligned() {
        let mut message = Message::new(7, 5, 9);
        message.nested(1, |message| message.text(2, "ab"));
        let bytes = message.finish();
        let words: Vec<_> = bytes.chunks(4).map(<[u8]>::to_vec).collect();
        assert_eq!(words[0], 28_u32.to_ne_bytes());
        assert_eq!(
            words[4],
            [&12_u16.to_ne_bytes()[..], &(1 | NLA_F_NESTED).to_ne_bytes()].concat()
        );
        assert_eq!(
            words[5],
            [&7_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes()].concat()
        );
        assert_eq!(words[6], *b"ab\0\0");
    }
}
