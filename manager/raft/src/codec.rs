//! The bytes in which this room keeps its own records: big-endian integers and length-prefixed strings.
//!
//! Not a wire format for others: what leaves this room is opaque bytes.

use bytes::Bytes;

/// Bytes that do not hold what they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record: {0}")]
pub struct Malformed(pub &'static str);

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }
    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }
    /// Four bytes.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }
    /// Eight bytes.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }
    /// A length and that many bytes.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.u32(u32::try_from(v.len()).expect("records are limited to far less than 4 GiB"));
        self.0.extend_from_slice(v);
        self
    }
    /// The buffer.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values from a buffer, never past its end.
#[derive(Debug)]
pub struct Decoder(Bytes);

impl Decoder {
    /// Reads from the front of `data`.
    pub fn new(data: Bytes) -> Self {
        Self(data)
    }
    fn take(&mut self, n: usize) -> Result<Bytes, Malformed> {
        if n > self.0.len() {
            return Err(Malformed("it ends too early"));
        }
        Ok(self.0.split_to(n))
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (high, low) = (self.u32()?, self.u32()?);
        Ok((u64::from(high) << 32) | u64::from(low))
    }
    /// A length and that many bytes.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let n = self.u32()?;
        self.take(usize::try_from(n).map_err(|_| Malformed("it is too long"))?)
    }
    /// A length and that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed("a text is not UTF-8"))
    }
    /// Refuses what is left over.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("it is longer than it says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_every_cut_is_refused() {
        let mut e = Encoder::new();
        e.u8(7).u32(8).u64(u64::MAX - 1).bytes(b"abc");
        let whole = Bytes::from(e.finish());
        let read = |b: Bytes| -> Result<(u8, u32, u64, String), Malformed> {
            let mut d = Decoder::new(b);
            let out = (d.u8()?, d.u32()?, d.u64()?, d.string()?);
            d.end()?;
            Ok(out)
        };
        assert_eq!(read(whole.clone()), Ok((7, 8, u64::MAX - 1, "abc".to_owned())));
        for n in 0..whole.len() {
            assert!(read(whole.slice(..n)).is_err(), "cut at {n}");
        }
    }
}
