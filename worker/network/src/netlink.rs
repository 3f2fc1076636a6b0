//! Netlink messages as bytes: writing them in one buffer, and reading what came without trusting it.

/// Requests of the kernel's that all families know (`linux/netlink.h`).
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
/// Flag of an answer: what is dumped has changed meanwhile.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// Flag of an error: attributes follow.
pub(crate) const ACK_TLVS: u16 = 0x200;

pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;
pub(crate) const OVERRUN: u16 = 4;

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Messages that are sent together.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Where each message starts.
    starts: Vec<usize>,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds a message; `fill` writes what follows its header. Its number is given when it is sent.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes[start + 4..start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[start + 6..start + 8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        fill(&mut Writer(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).expect("a message of less than 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// Messages from `first` on that fit into `limit` bytes (at least one), and the number of the next.
    pub(crate) fn chunk(&self, first: usize, limit: usize) -> (std::ops::Range<usize>, usize) {
        let start = self.starts[first];
        let end_of = |index: usize| self.starts.get(index + 1).copied().unwrap_or(self.bytes.len());
        let mut last = first;
        while last + 1 < self.starts.len() && end_of(last + 1) - start <= limit {
            last += 1;
        }
        (start..end_of(last), last + 1)
    }

    /// Numbers messages `first..next` from `base` on, and asks for a confirmation of `acked`.
    pub(crate) fn number(&mut self, first: usize, next: usize, base: u32, acked: usize) {
        for (offset, index) in (first..next).enumerate() {
            let start = self.starts[index];
            let number = base.wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX));
            self.bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
            if index == acked {
                let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | ACK;
                self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
    }

    pub(crate) fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

/// Writes attributes at the end of a buffer.
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// For attributes that are kept for later.
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The fixed part of a message.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(aligned(self.0.len()), 0);
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("an attribute of less than 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.fixed(value);
    }

    /// Attributes that were written before.
    pub(crate) fn raw(&mut self, attributes: &[u8]) {
        self.0.extend_from_slice(attributes);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// With a zero at its end.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Writer(self.0));
        let length = u16::try_from(self.0.len() - start).expect("attributes of less than 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One message that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) number: u32,
    /// Whose request it is about; 0 for the kernel's own news.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages in what was read from a socket. Stops at what is no message.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            number: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            body: &bytes[HEADER..length],
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes that came, without their flags. Stops at what is none.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)? & TYPE_MASK);
        if length < 4 || length > bytes.len() {
            return None;
        }
        let value = &bytes[4..length];
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes behind the fixed part of a message.
pub(crate) fn attributes_after(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(body.get(aligned(fixed)..).unwrap_or_default())
}

/// One attribute.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the byte order of this machine.
pub(crate) fn ne32(value: &[u8]) -> u32 {
    value.try_into().map(u32::from_ne_bytes).unwrap_or_default()
}

/// A number in network byte order.
pub(crate) fn be32(value: &[u8]) -> u32 {
    value.try_into().map(u32::from_be_bytes).unwrap_or_default()
}

/// Text up to its zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(bytes: &[u8], depth: usize) -> usize {
        attributes(bytes).map(|(_, value)| 1 + if depth > 0 { walk(value, depth - 1) } else { 0 }).sum()
    }

    proptest! {
        /// Whatever comes, reading it ends, stays inside, and does not panic.
        #[test]
        fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut seen = 0;
            for message in messages(&bytes) {
                seen += 16 + message.body.len();
                let _ = walk(message.body, 4) + attributes_after(message.body, 12).count();
            }
            prop_assert!(seen <= bytes.len());
        }

        /// What is written is what is read.
        #[test]
        fn what_is_written_is_read(
            values in proptest::collection::vec((0u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            cut in 0usize..600,
        ) {
            let mut buffer = Buffer::default();
            buffer.message(77, CREATE, |w| {
                w.fixed(&[1, 2, 3]);
                w.nest(5, |w| values.iter().for_each(|(kind, value)| w.bytes(*kind, value)));
            });
            buffer.number(0, 1, 9, 0);
            let bytes = buffer.bytes(0..buffer.chunk(0, 1).0.end).to_vec();
            let message = messages(&bytes).next().expect("one message");
            prop_assert_eq!((message.kind, message.flags, message.number), (77, CREATE | REQUEST | ACK, 9));
            let (kind, nested) = attributes_after(message.body, 3).next().expect("one attribute");
            let read: Vec<(u16, Vec<u8>)> = attributes(nested).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!((kind, read), (5, values));
            // cut anywhere, there is nothing to read or less
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(messages(&bytes[..cut]).count(), 0);
        }
    }
}
