//! Leaves the DWARF out of an object. The kernel reads BTF only (`.BTF`, `.BTF.ext`), which is made from DWARF: so the
//! compiler must write it, and nobody needs it afterwards, though it is four fifths of the file.

use std::ops::Range;

/// Header of an ELF64 file, and of one of its sections (elf(5)).
const FILE_HEADER: usize = 64;
const SECTION_HEADER: usize = 64;

const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;

/// The object without its `.debug_*` sections and their relocations; `None` if it is nothing that a BPF linker
/// writes. Sections keep their numbers, so that no symbol and no relocation has to change.
pub(crate) fn without_dwarf(object: &[u8]) -> Option<Vec<u8>> {
    let elf = Elf::new(object)?;
    let names = elf.section(elf.names)?;
    let mut out = object.get(..FILE_HEADER)?.to_vec();
    let mut headers = Vec::new();
    for index in 0..elf.count {
        let section = elf.section(index)?;
        let mut header = object.get(section.header.clone())?.to_vec();
        if is_dwarf(elf.string(&names, section.name)?) {
            header.fill(0);
        } else if !matches!(section.kind, SHT_NULL | SHT_NOBITS) {
            out.resize(out.len().next_multiple_of(section.align.max(1)), 0);
            elf.put(&mut header, 0x18, out.len())?;
            out.extend_from_slice(object.get(section.content)?);
        }
        headers.extend(header);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let start = out.len();
    elf.put(&mut out, 0x28, start)?;
    out.extend(headers);
    Some(out)
}

fn is_dwarf(name: &[u8]) -> bool {
    let relocated = name
        .strip_prefix(b".rela".as_slice())
        .or_else(|| name.strip_prefix(b".rel".as_slice()));
    relocated.unwrap_or(name).starts_with(b".debug_")
}

struct Elf<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    headers: usize,
    count: usize,
    /// Number of the section with the names of sections.
    names: usize,
}

struct Section {
    header: Range<usize>,
    name: usize,
    kind: u32,
    content: Range<usize>,
    align: usize,
}

impl<'a> Elf<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        // Magic, 64 bit, byte order.
        let big_endian = match bytes.get(..6)? {
            [0x7f, b'E', b'L', b'F', 2, 1] => false,
            [0x7f, b'E', b'L', b'F', 2, 2] => true,
            _ => return None,
        };
        let mut elf = Self {
            bytes,
            big_endian,
            headers: 0,
            count: 0,
            names: 0,
        };
        elf.headers = elf.number(0x28, 8)?;
        elf.count = elf.number(0x3c, 2)?;
        elf.names = elf.number(0x3e, 2)?;
        let segments = elf.number(0x38, 2)?;
        let size = elf.number(0x3a, 2)?;
        (segments == 0 && size == SECTION_HEADER && elf.count > 0).then_some(elf)
    }

    fn section(&self, index: usize) -> Option<Section> {
        let start = self.headers.checked_add(index * SECTION_HEADER)?;
        let offset = self.number(start + 0x18, 8)?;
        Some(Section {
            header: start..start + SECTION_HEADER,
            name: self.number(start, 4)?,
            kind: u32::try_from(self.number(start + 4, 4)?).ok()?,
            content: offset..offset.checked_add(self.number(start + 0x20, 8)?)?,
            align: self.number(start + 0x30, 8)?,
        })
    }

    fn string(&self, names: &Section, at: usize) -> Option<&'a [u8]> {
        let text = self.bytes.get(names.content.clone())?.get(at..)?;
        text.split(|byte| *byte == 0).next()
    }

    /// The unsigned number of so many bytes.
    fn number(&self, at: usize, length: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let number = if self.big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        };
        usize::try_from(number).ok()
    }

    /// Writes a number of eight bytes.
    fn put(&self, into: &mut [u8], at: usize, number: usize) -> Option<()> {
        let number = u64::try_from(number).ok()?;
        let bytes = if self.big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        };
        into.get_mut(at..at + bytes.len())?.copy_from_slice(&bytes);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object with sections of these names, each with its name as content.
    fn object(names: &[&str]) -> Vec<u8> {
        let mut table = vec![0];
        let mut bytes = vec![0; FILE_HEADER];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let mut headers = vec![0; SECTION_HEADER];
        let add = |headers: &mut Vec<u8>, name: usize, content: Range<usize>| {
            let mut header = vec![0; SECTION_HEADER];
            header[0] = name as u8;
            header[4] = 1;
            header[0x18..0x20].copy_from_slice(&(content.start as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(content.len() as u64).to_le_bytes());
            header[0x30] = 4;
            headers.extend(header);
        };
        for name in names {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            add(&mut headers, table.len(), start..bytes.len());
            table.extend_from_slice(name.as_bytes());
            table.push(0);
        }
        let start = bytes.len();
        bytes.extend(&table);
        add(&mut headers, 0, start..bytes.len());
        let count = names.len() as u8 + 2;
        bytes[0x3a] = SECTION_HEADER as u8;
        (bytes[0x3c], bytes[0x3e]) = (count, count - 1);
        let at = (bytes.len() as u64).to_le_bytes();
        bytes[0x28..0x30].copy_from_slice(&at);
        bytes.extend(headers);
        bytes
    }

    #[test]
    fn dwarf_goes_and_the_rest_keeps_number_and_content() {
        let before = object(&[
            "classifier",
            ".debug_info",
            ".rel.debug_info",
            ".BTF",
            ".rel.BTF.ext",
        ]);
        let after = without_dwarf(&before).expect("an object");
        assert!(after.len() < before.len());
        let elf = Elf::new(&after).expect("an object");
        let content = |index: usize| {
            let section = elf.section(index).expect("a section");
            String::from_utf8_lossy(&after[section.content]).into_owned()
        };
        assert_eq!(content(1), "classifier");
        assert_eq!(elf.section(2).map(|s| s.kind), Some(SHT_NULL));
        assert_eq!(elf.section(3).map(|s| s.kind), Some(SHT_NULL));
        assert_eq!(content(4), ".BTF");
        assert_eq!(content(5), ".rel.BTF.ext");
        assert_eq!(elf.section(4).map(|s| s.content.start % 4), Some(0));
    }

    #[test]
    fn what_is_no_such_object_is_left_alone() {
        assert_eq!(without_dwarf(b"#!/bin/sh"), None);
        let mut truncated = object(&["classifier"]);
        truncated.truncate(100);
        assert_eq!(without_dwarf(&truncated), None);
    }
}
