//! Reading a container's log, from its beginning or its tail, and following it.
//!
//! Files are held open while they are read, so rotation under the reader loses nothing. Following
//! waits for changes of the directories and ends when the container has ended and all is read.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use swarm_types::time::Timestamp;
use swarm_worker_shim::log as format;
use tokio::io::unix::AsyncFd;

use super::{Containers, LogError, LogStream, State};
use crate::sys;

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last so many of those that are there at the beginning.
    pub tail: Option<usize>,
    /// Only those not older than this.
    pub since: Option<Timestamp>,
    /// Go on with those that come, until the container has ended.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Default for LogOptions {
    /// Everything that is there.
    fn default() -> Self {
        Self { tail: None, since: None, follow: false, stdout: true, stderr: true }
    }
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Where it came from.
    pub stream: LogStream,
    /// The line goes on in the next one of the same stream.
    pub partial: bool,
    /// Without the end of line.
    pub content: Bytes,
}

/// Even if an event were missed, a follower looks again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Containers {
    /// The container's output. A follower's stream ends when the container has ended and all is
    /// read, or when it is removed.
    ///
    /// # Errors
    /// If there is no such container or its log cannot be opened.
    pub async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<impl Stream<Item = io::Result<LogLine>> + Send + use<>, LogError> {
        let failed = |source| LogError::Read { id: id.to_owned(), source };
        if self.state(id).map_err(failed)?.is_none() {
            return Err(LogError::NotFound(id.to_owned()));
        }
        let bundle = self.bundle(id);
        let changes = options.follow.then(|| watch(&[bundle.dir(), &bundle.log()])).transpose();
        let changes = changes.map_err(failed)?;
        let dir = bundle.log();
        let opened = tokio::task::spawn_blocking(move || Reader::open(dir, options));
        let reader = opened.await.expect("opening does not panic and is not aborted").map_err(failed)?;
        let follower = Follower { containers: self.clone(), id: id.to_owned(), reader, changes, done: false };
        Ok(futures::stream::unfold(follower, |mut follower| async move {
            let item = follower.next().await?;
            Some((item, follower))
        }))
    }
}

fn watch(dirs: &[&Path]) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = sys::inotify()?;
    for dir in dirs {
        sys::inotify_watch(inotify.as_fd(), dir)?;
    }
    sys::watch_readable(inotify)
}

struct Follower {
    containers: Containers,
    id: String,
    reader: Reader,
    changes: Option<AsyncFd<OwnedFd>>,
    done: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<io::Result<LogLine>> {
        loop {
            match self.reader.next() {
                Ok(Some(line)) => return Some(Ok(line)),
                Ok(None) if self.done => return None,
                Ok(None) => {}
                Err(e) if self.done => return (e.kind() != io::ErrorKind::NotFound).then_some(Err(e)),
                Err(e) => {
                    self.done = true;
                    return Some(Err(e));
                }
            }
            // Asked before the last look, which then sees all that was written before the end. What
            // comes after the last look has an event, so it is not slept through.
            self.done = self.changes.is_none() || !self.may_write_more();
            if let (false, Some(changes)) = (self.done, &self.changes) {
                wait_for_change(changes).await;
            }
        }
    }

    fn may_write_more(&self) -> bool {
        let state = self.containers.state(&self.id);
        matches!(state, Ok(Some(State::Created | State::Starting | State::Running(_))))
    }
}

async fn wait_for_change(changes: &AsyncFd<OwnedFd>) {
    let Ok(ready) = tokio::time::timeout(LOOK_AGAIN, changes.readable()).await else { return };
    let Ok(mut ready) = ready else { return };
    let mut events = [0u8; 4096];
    // What changed does not matter: the reader looks at all of it.
    while nix::unistd::read(changes, &mut events).is_ok_and(|n| n > 0) {}
    ready.clear_ready();
}

/// Reads the files in order, oldest first.
struct Reader {
    dir: PathBuf,
    options: LogOptions,
    /// Lines chosen by `tail`, to be given first.
    chosen: VecDeque<LogLine>,
    /// Files to be read; the last one may still grow.
    files: VecDeque<Part>,
    /// What is read and not yet given, from `from` on.
    buffer: Vec<u8>,
    from: usize,
}

struct Part {
    file: File,
    inode: u64,
}

impl Reader {
    fn open(dir: PathBuf, options: LogOptions) -> io::Result<Self> {
        let files = parts(&dir)?;
        let mut reader = Self { dir, options, chosen: VecDeque::new(), files, buffer: Vec::new(), from: 0 };
        if let Some(tail) = options.tail {
            reader.choose(tail)?;
        }
        Ok(reader)
    }

    /// Reads all that is there and keeps the last `tail` lines.
    fn choose(&mut self, tail: usize) -> io::Result<()> {
        let mut chosen = VecDeque::new();
        while let Some(line) = self.next()? {
            if chosen.len() == tail {
                chosen.pop_front();
            }
            if tail > 0 {
                chosen.push_back(line);
            }
        }
        self.chosen = chosen;
        Ok(())
    }

    /// The next line that is wanted; `None` if there is none yet.
    fn next(&mut self) -> io::Result<Option<LogLine>> {
        if let Some(line) = self.chosen.pop_front() {
            return Ok(Some(line));
        }
        loop {
            while let Some(end) = self.buffer[self.from..].iter().position(|b| *b == b'\n') {
                let text = &self.buffer[self.from..self.from + end];
                self.from += end + 1;
                if let Some(line) = format::decode(text).filter(|line| self.options.wants(line)) {
                    return Ok(Some(LogLine {
                        time_ns: line.time_ns,
                        stream: line.stream,
                        partial: line.partial,
                        content: Bytes::copy_from_slice(line.content),
                    }));
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false if there is nothing more for now.
    fn fill(&mut self) -> io::Result<bool> {
        const PIECE: u64 = 64 << 10;
        self.buffer.drain(..self.from);
        self.from = 0;
        loop {
            let Some(part) = self.files.front_mut() else {
                self.files = parts(&self.dir)?;
                if self.files.is_empty() {
                    return Ok(false);
                }
                continue;
            };
            if Read::by_ref(&mut part.file).take(PIECE).read_to_end(&mut self.buffer)? > 0 {
                return Ok(true);
            }
            if self.files.len() == 1 && !self.find_newer()? {
                return Ok(false);
            }
            // One more look: it may have grown between the last look and its rotation.
            let part = self.files.front_mut().expect("looked at above");
            if Read::by_ref(&mut part.file).take(PIECE).read_to_end(&mut self.buffer)? > 0 {
                return Ok(true);
            }
            self.files.pop_front();
            self.buffer.clear(); // a torn line at the end of a file that grows no more
        }
    }

    /// Adds the files begun after the one being read; false if there is none.
    fn find_newer(&mut self) -> io::Result<bool> {
        let current = self.files.back().expect("called with a file in hand").inode;
        if fs::metadata(format::file(&self.dir, 0)).is_ok_and(|newest| newest.ino() == current) {
            return Ok(false);
        }
        let all = match parts(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false), // removed
            other => other?,
        };
        let newer = match all.iter().position(|p| p.inode == current) {
            Some(at) => all.into_iter().skip(at + 1).collect(),
            None => all, // rotated away while we were slow
        };
        let found = !newer.is_empty();
        self.files.extend(newer);
        Ok(found)
    }
}

impl LogOptions {
    fn wants(&self, line: &format::Line<'_>) -> bool {
        let stream = match line.stream {
            LogStream::Stdout => self.stdout,
            LogStream::Stderr => self.stderr,
        };
        stream && self.since.is_none_or(|since| line.time_ns / 1_000_000 >= since.as_millis())
    }
}

/// The log's files, oldest first: all of them, also while they are being rotated.
///
/// A rotation renames the oldest first, so that while it lasts one number is missing, and then makes
/// a new `0`. A look goes the same way as the files do, from `0` upwards, and steps over one missing
/// number: it may see a file twice, and misses none unless a whole rotation passed meanwhile, which
/// shows as another `0`.
fn parts(dir: &Path) -> io::Result<VecDeque<Part>> {
    loop {
        let before = inode(&format::file(dir, 0))?;
        let parts = look(dir)?;
        if parts.is_empty() {
            fs::metadata(dir)?; // no log yet is not the same as no container
        }
        if inode(&format::file(dir, 0))? != before {
            continue;
        }
        // No `0` before and none after may be two rotations, or one that was cut off for good.
        if before.is_some() || look(dir)?.iter().map(|p| p.inode).eq(parts.iter().map(|p| p.inode)) {
            return Ok(parts);
        }
    }
}

fn look(dir: &Path) -> io::Result<VecDeque<Part>> {
    let mut parts: VecDeque<Part> = VecDeque::new();
    let mut missing = 0;
    for n in 0.. {
        match File::open(format::file(dir, n)) {
            Ok(file) => {
                missing = 0;
                let inode = file.metadata()?.ino();
                if parts.iter().all(|p| p.inode != inode) {
                    parts.push_front(Part { file, inode });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing += 1,
            Err(e) => return Err(e),
        }
        if missing == 2 {
            break;
        }
    }
    Ok(parts)
}

/// Which file a path leads to now; `None` if to none.
fn inode(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renames as the supervisor's writer does, as fast as it can.
    fn rotate(dir: &Path, files: u32, content: u32) {
        for n in (0..files).rev() {
            let _missing = fs::rename(format::file(dir, n), format::file(dir, n + 1));
        }
        fs::write(format::file(dir, 0), content.to_string()).expect("write");
    }

    fn seen(dir: &Path) -> Vec<u32> {
        let read = |mut part: Part| {
            let mut text = String::new();
            part.file.read_to_string(&mut text).expect("read");
            text.parse().ok() // a file that has just been made is empty
        };
        parts(dir).expect("parts").into_iter().filter_map(read).collect()
    }

    #[test]
    fn a_look_during_rotations_misses_no_file() {
        let dir = tempfile::tempdir().expect("dir");
        (0..12).for_each(|content| rotate(dir.path(), 12, content));
        let path = dir.path().to_owned();
        let writer = std::thread::spawn(move || (12..3_000).for_each(|content| rotate(&path, 12, content)));
        while !writer.is_finished() {
            let seen = seen(dir.path());
            assert!(seen.len() >= 10, "{seen:?}");
            assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
        }
        writer.join().expect("the writer does not panic");
    }
}
