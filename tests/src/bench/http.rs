//! As much of HTTP/1.1 as Docker's API takes, over its local socket; blocking.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that is used for one call after another.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Connection> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        self.call("GET", path, "application/json", &[])
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.call("POST", path, "application/json", text.as_bytes())
    }

    pub(crate) fn delete(&mut self, path: &str) -> Result<()> {
        self.call("DELETE", path, "application/json", &[]).map(drop)
    }

    /// The answer's body; null if it is none or no JSON (a stream of progress).
    pub(crate) fn call(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value> {
        let doing = || format!("{method} {path}");
        let head = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).with_context(doing)?;
        let (status, answer) = self.answer().with_context(doing)?;
        if status >= 300 {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer).trim());
        }
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("it hung up");
        }
        Ok(line.trim_end().to_owned())
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let first = self.line()?;
        let status: u16 = first.split(' ').nth(1).and_then(|word| word.parse().ok()).context("not HTTP")?;
        let (mut length, mut chunked) = (0_usize, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("a length")?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        if chunked {
            return Ok((status, self.chunks()?));
        }
        let mut body = vec![0; if status == 204 || status == 304 { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16);
            let size = size.context("the size of a chunk")?;
            let at = body.len();
            body.resize(at + size, 0);
            self.stream.read_exact(&mut body[at..])?;
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of an answer that says this.
    fn answer(text: &'static str) -> Result<(u16, Vec<u8>)> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        drop(theirs);
        Connection { stream: BufReader::new(ours) }.answer()
    }

    #[test]
    fn answers_are_read_in_both_forms() {
        let plain = answer("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!(plain, (201, b"{}".to_vec()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(answer(chunked).unwrap(), (200, b"abcd".to_vec()));
        assert_eq!(answer("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), (204, Vec::new()));
        assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_err());
        assert!(answer("").is_err());
    }
}
