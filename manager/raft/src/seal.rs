//! Encryption at rest: one data key, a key of its own for every file, a number for every record.
//!
//! AES-256-GCM. The file key is derived from the data key and 128 random bits in the file's
//! header, and a file is never appended to after it was reopened, so that no nonce (the record's
//! number) is ever used twice with a key.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes that sealing adds.
pub const TAG: usize = 16;

/// The key under which everything in the raft directory is encrypted.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// Takes over a key that was made and is kept elsewhere.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// Random bytes in a file's header.
pub(crate) type FileSalt = [u8; 16];

/// What was sealed is not what was read, or the key is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unauthentic;

/// A new salt from the operating system.
pub(crate) fn new_salt() -> std::io::Result<FileSalt> {
    let mut salt = [0; 16];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| std::io::Error::other("the operating system's random generator failed"))?;
    Ok(salt)
}

/// Seals and opens the records of one file.
pub(crate) struct Sealer(LessSafeKey);

impl Sealer {
    /// The key of the file with that salt; `purpose` keeps kinds of files apart.
    pub(crate) fn new(key: &DataKey, salt: &FileSalt, purpose: &'static [u8]) -> Self {
        let info = [purpose];
        let derived = Salt::new(HKDF_SHA256, salt).extract(&key.0);
        let okm = derived.expand(&info, &AES_256_GCM).expect("32 bytes is a legal length");
        Self(LessSafeKey::new(UnboundKey::from(okm)))
    }

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts what stands in `data` from `from` on, and appends the tag.
    pub(crate) fn seal(&self, number: u64, aad: &[u8], data: &mut Vec<u8>, from: usize) {
        let tag = self
            .0
            .seal_in_place_separate_tag(Self::nonce(number), Aad::from(aad), &mut data[from..])
            .expect("records are far smaller than the cipher's limit");
        data.extend_from_slice(tag.as_ref());
    }

    /// Checks and decrypts in place.
    pub(crate) fn open(&self, number: u64, aad: &[u8], mut data: Vec<u8>) -> Result<Vec<u8>, Unauthentic> {
        let plain = self
            .0
            .open_in_place(Self::nonce(number), Aad::from(aad), &mut data)
            .map_err(|_| Unauthentic)?
            .len();
        data.truncate(plain);
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_was_sealed_here() {
        let key = DataKey::new([7; 32]);
        let sealer = Sealer::new(&key, &[1; 16], b"test");
        let mut data = b"hello".to_vec();
        sealer.seal(3, b"place", &mut data, 0);
        assert_ne!(&data[..5], b"hello");
        assert_eq!(sealer.open(3, b"place", data.clone()).unwrap(), b"hello");
        assert_eq!(sealer.open(4, b"place", data.clone()), Err(Unauthentic));
        assert_eq!(sealer.open(3, b"other", data.clone()), Err(Unauthentic));
        let other = Sealer::new(&key, &[2; 16], b"test");
        assert_eq!(other.open(3, b"place", data), Err(Unauthentic));
        assert_eq!(format!("{key:?}"), "DataKey(…)");
    }
}
