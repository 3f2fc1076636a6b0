//! Container log: the format of its lines and the files it is kept in.
//!
//! One line of text per line of output: `NANOSECONDS STREAM FLAG content\n`, where STREAM is `o` or
//! `e`, and FLAG is `F` for a whole line or `P` for a part of one that was too long. The current
//! file is `0`, older ones are `1`, `2`, … The files together stay within the bounds of
//! [`LogSettings`]: the oldest goes first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::LogSettings;

/// A longer line is kept in parts of this many bytes.
pub const MAX_LINE: usize = 16 << 10;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Where it came from.
    pub stream: Stream,
    /// It goes on in the next line of the same stream.
    pub partial: bool,
    /// Without the end of line.
    pub content: &'a [u8],
}

/// The `n`th log file; 0 is the current one.
pub fn file(dir: &Path, n: u32) -> PathBuf {
    dir.join(n.to_string())
}

/// Writes one line in the log's format.
pub fn encode(line: &Line<'_>, out: &mut Vec<u8>) {
    let stream = if line.stream == Stream::Stdout { 'o' } else { 'e' };
    let flag = if line.partial { 'P' } else { 'F' };
    write!(out, "{} {stream} {flag} ", line.time_ns).expect("a Vec takes every write");
    out.extend_from_slice(line.content);
    out.push(b'\n');
}

/// Reads one line (without its end of line); `None` if it is not one (a torn write).
pub fn decode(text: &[u8]) -> Option<Line<'_>> {
    let mut fields = text.splitn(4, |b| *b == b' ');
    let time_ns = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"o" => Stream::Stdout,
        b"e" => Stream::Stderr,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Line { time_ns, stream, partial, content: fields.next()? })
}

/// Cuts what one stream writes into lines.
#[derive(Debug)]
pub(crate) struct Cutter {
    stream: Stream,
    rest: Vec<u8>,
}

impl Cutter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Adds the lines that `bytes` complete to `out`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], time_ns: u64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.rest.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                self.emit(&bytes[..end], false, time_ns, out);
                bytes = &bytes[end + 1..];
            } else if bytes.len() > room {
                self.emit(window, true, time_ns, out);
                bytes = &bytes[room..];
            } else {
                self.rest.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// Adds what is left at the end of the stream.
    pub(crate) fn finish(&mut self, time_ns: u64, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.emit(&[], false, time_ns, out);
        }
    }

    fn emit(&mut self, tail: &[u8], partial: bool, time_ns: u64, out: &mut Vec<u8>) {
        let stream = self.stream;
        if self.rest.is_empty() {
            return encode(&Line { time_ns, stream, partial, content: tail }, out);
        }
        self.rest.extend_from_slice(tail);
        encode(&Line { time_ns, stream, partial, content: &self.rest }, out);
        self.rest = Vec::new(); // give the room back: most containers are silent most of the time
    }
}

/// The files of a log, written.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    settings: LogSettings,
    current: File,
    size: u64,
}

impl Writer {
    pub(crate) fn open(dir: &Path, settings: LogSettings) -> io::Result<Self> {
        let current = OpenOptions::new().create(true).append(true).open(file(dir, 0))?;
        let size = current.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), settings, current, size })
    }

    /// Appends whole lines, beginning new files where the current one is full.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            if self.size > 0 && self.size >= self.settings.max_size {
                self.rotate()?;
            }
            let part = whole_lines(rest, self.settings.max_size.saturating_sub(self.size));
            self.current.write_all(part)?;
            self.size += part.len() as u64;
            rest = &rest[part.len()..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let last = self.settings.max_files.max(1) - 1;
        for n in (0..last).rev() {
            match fs::rename(file(&self.dir, n), file(&self.dir, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        let path = file(&self.dir, 0);
        if last == 0 {
            fs::remove_file(&path)?;
        }
        self.current = OpenOptions::new().create(true).append(true).open(path)?;
        self.size = 0;
        Ok(())
    }
}

/// As many whole lines from the front as reach `room` bytes: at least one, the last one may exceed it.
fn whole_lines(lines: &[u8], room: u64) -> &[u8] {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines;
    }
    let from = room.saturating_sub(1);
    match lines[from..].iter().position(|b| *b == b'\n') {
        Some(end) => &lines[..from + end + 1],
        None => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut cutter = Cutter::new(Stream::Stderr);
        let mut out = Vec::new();
        pieces.iter().for_each(|p| cutter.push(p, 5, &mut out));
        cutter.finish(6, &mut out);
        let mut lines: Vec<&[u8]> = out.split(|b| *b == b'\n').collect();
        assert_eq!(lines.pop(), Some(&b""[..]), "ends with an end of line");
        let decoded = lines.iter().filter_map(|l| decode(l));
        decoded.map(|l| (l.partial, l.content.to_vec())).collect()
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        assert_eq!(
            cut(&[b"a\nb", b"c\n", b"\nd"]),
            [(false, b"a".to_vec()), (false, b"bc".to_vec()), (false, b"".to_vec()), (false, b"d".to_vec())]
        );
    }

    #[test]
    fn long_lines_are_kept_in_parts_and_lose_nothing() {
        let long = vec![b'x'; MAX_LINE * 2 + 3];
        let lines = cut(&[&long[..10], &long[10..], b"\n"]);
        assert_eq!(lines.iter().map(|l| l.0).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(lines.iter().map(|l| l.1.len()).sum::<usize>(), long.len());
        let exact = cut(&[&long[..MAX_LINE], b"\n"]);
        assert_eq!(exact.len(), 2, "a part may be followed by an empty rest");
    }

    #[test]
    fn decode_refuses_what_is_torn() {
        let line = Line { time_ns: 7, stream: Stream::Stdout, partial: true, content: b"a b  c" };
        let mut out = Vec::new();
        encode(&line, &mut out);
        assert_eq!(decode(&out[..out.len() - 1]), Some(line));
        for torn in [&b""[..], b"12", b"12 o", b"12 o F", b"x o F y", b"1 z F y"] {
            assert_eq!(decode(torn), None);
        }
    }

    #[test]
    fn rotation_keeps_within_bounds() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut writer = Writer::open(dir.path(), LogSettings { max_size: 100, max_files: 3 }).expect("open");
        for n in 0..200 {
            writer.append(format!("{n:09}\n").repeat(3).as_bytes()).expect("append");
        }
        let mut sizes = Vec::new();
        for entry in fs::read_dir(dir.path()).expect("read") {
            sizes.push(entry.expect("entry").metadata().expect("metadata").len());
        }
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|s| *s <= 110), "{sizes:?}");
        assert!(fs::read_to_string(file(dir.path(), 0)).expect("current").ends_with("000000199\n"));
    }

    #[test]
    fn a_single_file_is_begun_anew() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut writer = Writer::open(dir.path(), LogSettings { max_size: 10, max_files: 1 }).expect("open");
        for _ in 0..9 {
            writer.append(b"0123456789\n").expect("append");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1);
        assert_eq!(fs::read(file(dir.path(), 0)).expect("current"), b"0123456789\n");
    }
}
