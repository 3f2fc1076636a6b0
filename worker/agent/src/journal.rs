//! Journal: the tasks of this node and their last statuses, on disk.
//!
//! One file to which records are appended: length, checksum, what it is, content; the last record of a
//! task counts. It need not survive a power cut: whatever is missing is learned again from the managers
//! and from the containers themselves. So nothing is synced; a torn tail is dropped, a damaged record
//! skipped. The file is written anew when it is opened and when most of it is out of date.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use swarm_proto::v1;
use swarm_types::id::TaskId;
use swarm_types::task::Task;
use tracing::warn;

const MAGIC: &[u8; 8] = b"SWTASKS1";
const HEAD_BYTES: usize = 9;
const KEEP: u8 = 1;
const FORGET: u8 = 2;
/// Longest record: a task with all that a user can put into it is far smaller.
const MAX_RECORD_BYTES: usize = 16 << 20;
/// The file is not written anew before it has grown by so much.
const MIN_GARBAGE_BYTES: u64 = 1 << 20;

/// The journal of a node.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// End of the last whole record.
    end: u64,
    /// Length of the file when it was written anew last.
    fresh: u64,
    live: BTreeMap<TaskId, Arc<Task>>,
}

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("read task journal `{path}`")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("write task journal `{path}`")]
    Write {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Journal {
    /// Opens the journal at `path`, or makes it; the tasks in it.
    pub fn open(path: &Path) -> Result<(Self, Vec<Arc<Task>>), JournalError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(JournalError::Read { path: path.into(), source }),
        };
        let live = read(&bytes, path);
        let tasks = live.values().cloned().collect();
        let written = rewrite(path, &live);
        let (file, end) = written.map_err(|source| JournalError::Write { path: path.into(), source })?;
        Ok((Self { path: path.into(), file, end, fresh: end, live }, tasks))
    }

    /// This is the task now.
    pub fn keep(&mut self, task: &Arc<Task>) -> Result<(), JournalError> {
        self.live.insert(task.id, Arc::clone(task));
        let record = record(KEEP, &v1::Task::from(task.as_ref()).encode_to_vec());
        self.append(&record)
    }

    /// The task is gone.
    pub fn forget(&mut self, task: TaskId) -> Result<(), JournalError> {
        if self.live.remove(&task).is_none() {
            return Ok(());
        }
        self.append(&record(FORGET, task.as_str().as_bytes()))
    }

    fn append(&mut self, record: &[u8]) -> Result<(), JournalError> {
        self.try_append(record).map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    fn try_append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.end - self.fresh > MIN_GARBAGE_BYTES.max(self.fresh) {
            (self.file, self.end) = rewrite(&self.path, &self.live)?;
            self.fresh = self.end;
            return Ok(());
        }
        if let Err(e) = self.file.write_all(record) {
            // Half a record would make all later ones unreadable.
            self.file.set_len(self.end)?;
            return Err(e);
        }
        self.end += record.len() as u64;
        Ok(())
    }
}

fn record(what: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + content.len());
    let length = u32::try_from(content.len()).expect("a task is smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(what, content).to_le_bytes());
    out.push(what);
    out.extend_from_slice(content);
    out
}

fn checksum(what: u8, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[what]);
    crc.update(content);
    crc.finalize()
}

/// A new file with the tasks that count, in the place of the old one.
fn rewrite(path: &Path, live: &BTreeMap<TaskId, Arc<Task>>) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let mut bytes = MAGIC.to_vec();
    for task in live.values() {
        bytes.extend_from_slice(&record(KEEP, &v1::Task::from(task.as_ref()).encode_to_vec()));
    }
    // Environments of tasks may hold what not everyone on the machine should read.
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    fs::rename(&new, path)?;
    let file = OpenOptions::new().append(true).open(path)?;
    Ok((file, bytes.len() as u64))
}

/// The tasks in `bytes`: whatever can be read of them.
fn read(bytes: &[u8], path: &Path) -> BTreeMap<TaskId, Arc<Task>> {
    let mut live = BTreeMap::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
        // Shorter than the magic: the daemon died while it made the file.
        if bytes.len() >= MAGIC.len() {
            warn!(file = %path.display(), "not a task journal, tasks will be learned from the managers");
        }
        return live;
    };
    while !rest.is_empty() {
        let Some((what, sum, content, after)) = split(rest) else {
            // A torn tail is what a kill leaves behind; more than a record's head cannot be told from it.
            warn!(file = %path.display(), dropped.bytes = rest.len(), "end of the task journal is torn, dropped");
            return live;
        };
        rest = after;
        if checksum(what, content) != sum || !take(&mut live, what, content) {
            warn!(
                file = %path.display(),
                "damaged record in the task journal, its task will be learned from the managers"
            );
        }
    }
    live
}

/// What a record is, its checksum, its content, and what follows it.
fn split(bytes: &[u8]) -> Option<(u8, u32, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let length = usize::try_from(word(0)?).ok().filter(|n| *n <= MAX_RECORD_BYTES)?;
    let (content, after) = rest.split_at_checked(length)?;
    Some((head[8], word(4)?, content, after))
}

fn take(live: &mut BTreeMap<TaskId, Arc<Task>>, what: u8, content: &[u8]) -> bool {
    match what {
        KEEP => {
            let task = v1::Task::decode(content).ok().and_then(|t| Task::try_from(t).ok());
            task.is_some_and(|task| {
                live.insert(task.id, Arc::new(task));
                true
            })
        }
        FORGET => std::str::from_utf8(content).ok().and_then(|id| id.parse().ok()).is_some_and(|id| {
            live.remove(&id);
            true
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::task_state::TaskState;

    fn task(id: &str, state: TaskState) -> Arc<Task> {
        let mut task = Task { id: id.into(), desired_state: TaskState::Running, ..Task::default() };
        task.status.state = state;
        Arc::new(task)
    }

    fn open(path: &Path) -> (Journal, Vec<(String, TaskState)>) {
        let (journal, tasks) = Journal::open(path).unwrap();
        (journal, tasks.iter().map(|t| (t.id.to_string(), t.status.state)).collect())
    }

    #[test]
    fn keeps_the_newest_of_each_task() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks");
        let (mut journal, tasks) = open(&path);
        assert!(tasks.is_empty());
        journal.keep(&task("a", TaskState::Accepted)).unwrap();
        journal.keep(&task("b", TaskState::Accepted)).unwrap();
        journal.keep(&task("a", TaskState::Running)).unwrap();
        journal.keep(&task("c", TaskState::Running)).unwrap();
        journal.forget("b".into()).unwrap();
        journal.forget("never".into()).unwrap();
        for _ in 0..2 {
            let (_, tasks) = open(&path);
            assert_eq!(tasks, [("a".into(), TaskState::Running), ("c".into(), TaskState::Running)]);
        }
    }

    #[test]
    fn cut_anywhere_it_still_reads_what_was_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks");
        let (mut journal, _) = open(&path);
        let mut ends = vec![(journal.end, 0)];
        for n in 1..=3 {
            journal.keep(&task(&format!("t{n}"), TaskState::Running)).unwrap();
            ends.push((journal.end, n));
        }
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let want = ends.iter().filter(|(end, _)| *end <= cut as u64).map(|(_, n)| *n).max();
            let (mut journal, tasks) = open(&path);
            assert_eq!(tasks.len(), want.unwrap_or(0), "cut at {cut}");
            journal.keep(&task("new", TaskState::Accepted)).unwrap();
            assert_eq!(open(&path).1.len(), want.unwrap_or(0) + 1, "cut at {cut}, then written");
        }
    }

    #[test]
    fn damage_costs_one_task_at_most_or_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks");
        let (mut journal, _) = open(&path);
        for n in 1..=3 {
            journal.keep(&task(&format!("t{n}"), TaskState::Running)).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            let (_, tasks) = open(&path);
            assert!(tasks.len() < 3, "damage at {at} was not seen");
            assert!(tasks.iter().all(|(id, state)| id.starts_with('t') && *state == TaskState::Running));
        }
        // Inside of the content of the first record: the two others are still there.
        let mut bad = whole.clone();
        bad[MAGIC.len() + HEAD_BYTES + 2] ^= 0x01;
        fs::write(&path, &bad).unwrap();
        assert_eq!(open(&path).1.len(), 2);
    }

    #[test]
    fn does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks");
        let (mut journal, _) = open(&path);
        for _ in 0..60_000 {
            journal.keep(&task("a", TaskState::Running)).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() < 2 * MIN_GARBAGE_BYTES);
        assert_eq!(open(&path).1.len(), 1);
    }
}
