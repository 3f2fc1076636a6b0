//! How a layer or an archive is packed, seen from its first bytes, and a reader that undoes it.

use std::io::{self, BufRead, BufReader, Read};

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the magic numbers of RFC 1952 and RFC 8878; media types are not trusted.
    pub(crate) fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // a skippable frame, as seekable zstd starts with
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::Plain,
        }
    }

    /// The OCI media type of a layer packed so.
    pub(crate) fn layer_media_type(self) -> &'static str {
        match self {
            Compression::Plain => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Reads `inner` unpacked, whichever way it is packed.
pub(crate) fn decoder<'a>(
    inner: impl Read + Send + 'a,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut inner = BufReader::with_capacity(64 * 1024, inner);
    let start = fill_four(&mut inner)?;
    let compression = Compression::of(&start);
    let whole = io::Cursor::new(start).chain(inner);
    let reader: Box<dyn Read + Send + 'a> = match compression {
        Compression::Plain => Box::new(whole),
        // several members in a row are one stream, as pigz and estargz write them
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    };
    Ok((compression, reader))
}

/// The first four bytes, fewer if there are no more.
fn fill_four(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(4);
    reader.take(4).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn unpacks_all_kinds() {
        let text = b"hello".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        for (packed, kind) in [
            (text.clone(), Compression::Plain),
            (gz.finish().unwrap(), Compression::Gzip),
            (zst, Compression::Zstd),
        ] {
            let (found, mut reader) = decoder(&packed[..]).unwrap();
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            assert_eq!((found, out == text), (kind, true));
        }
        assert_eq!(decoder(&b""[..]).unwrap().0, Compression::Plain);
    }
}
