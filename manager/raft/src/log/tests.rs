//! Every cut and every flip of a small log; disk full; segments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::core::EntryKind;

fn key() -> DataKey {
    DataKey::new([9; 32])
}

fn small() -> LogOptions {
    LogOptions { ahead_bytes: 8192, ..LogOptions::default() }
}

fn open(dir: &Path) -> Result<(Log, Recovered), OpenError> {
    Log::open(dir, &key(), small())
}

fn entry(index: u64, term: u64, size: usize) -> Entry {
    let data = vec![u8::try_from(index % 250).unwrap() + 1; size].into();
    Entry { index, term, kind: EntryKind::Normal, data, context: bytes::Bytes::new() }
}

fn hs(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 1, commit }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// After an acknowledged append: the file's length, and what must be read back from then on.
type Acked = (usize, HardState, Vec<Entry>);

/// The file of a log of a few appends, with some of the zeros at its end.
fn small_log() -> (Vec<u8>, Vec<Acked>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    let begin = usize::try_from(log.active.end).unwrap();
    let mut states = vec![(begin, HardState::default(), Vec::new())];
    let appends = [
        vec![entry(2, 1, 40)],
        vec![entry(3, 1, 700), entry(4, 1, 3)],
        vec![entry(4, 2, 20)],
        vec![entry(5, 2, 16), entry(6, 2, 1200)],
    ];
    let mut all: Vec<Entry> = Vec::new();
    for (n, entries) in appends.iter().enumerate() {
        let state = hs(1 + n as u64, n as u64);
        log.append(Some(state), entries, true).unwrap();
        all.retain(|e| e.index < entries[0].index);
        all.extend(entries.iter().cloned());
        states.push((usize::try_from(log.active.end).unwrap(), state, all.clone()));
    }
    let end = usize::try_from(log.active.end).unwrap();
    drop(log);
    let data = fs::read(&files(dir.path())[0]).unwrap();
    assert!(data.len() > end && data[end..].iter().all(|&b| b == 0));
    (data[..end + 2048].to_vec(), states)
}

fn with_file(data: &[u8]) -> (tempfile::TempDir, Result<(Log, Recovered), OpenError>) {
    // Thousands of these: in memory, where syncing costs nothing.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(segment::path(dir.path(), 1), data).unwrap();
    let opened = open(dir.path());
    (dir, opened)
}

/// What was acknowledged when the file was `length` long.
fn acknowledged(states: &[Acked], length: usize) -> (HardState, Vec<Entry>) {
    let newest = states.iter().rev().find(|s| s.0 <= length);
    newest.map_or_else(Default::default, |s| (s.1, s.2.clone()))
}

#[test]
fn a_cut_at_every_byte_keeps_what_was_acknowledged_before_it() {
    let (data, states) = small_log();
    for cut in 0..=states.last().unwrap().0 + 40 {
        let (dir, opened) = with_file(&data[..cut]);
        let (log, recovered) = opened.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let (state, entries) = acknowledged(&states, cut);
        assert_eq!(recovered.hard_state, state, "cut at {cut}");
        assert_eq!(recovered.entries, entries, "cut at {cut}");
        drop(log);
        let (_, again) = open(dir.path()).unwrap_or_else(|e| panic!("again, cut at {cut}: {e}"));
        assert_eq!((again.hard_state, again.entries, again.dropped), (state, entries, None));
    }
}

#[test]
fn a_power_cut_that_leaves_zeros_at_every_byte_is_a_torn_tail_too() {
    let (data, states) = small_log();
    // Sectors reach the disk whole: a torn write leaves zeros from a sector's start on.
    for cut in (0..states.last().unwrap().0).filter(|c| c % 512 == 0) {
        let mut torn = data.clone();
        torn[cut..].fill(0);
        let (_dir, opened) = with_file(&torn);
        let (_, recovered) = opened.unwrap_or_else(|e| panic!("zeros from {cut}: {e}"));
        let (state, entries) = acknowledged(&states, cut);
        assert_eq!((recovered.hard_state, recovered.entries), (state, entries), "zeros from {cut}");
    }
}

#[test]
fn a_flip_of_any_byte_is_refused_or_hits_nothing() {
    let (data, states) = small_log();
    let end = states.last().unwrap().0;
    let (state, entries) = acknowledged(&states, end);
    for at in 0..end + 600 {
        for mask in [0x01, 0xff] {
            let mut bad = data.clone();
            bad[at] ^= mask;
            let (_dir, opened) = with_file(&bad);
            match opened {
                Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("flip at {at}: {other}"),
                Ok((_, recovered)) => {
                    assert!(at >= end, "a flip at {at}, before {end}, was not noticed");
                    assert_eq!((recovered.hard_state, &recovered.entries), (state, &entries));
                }
            }
        }
    }
}

#[test]
fn zeros_in_the_middle_are_damage_and_the_message_says_where() {
    let (data, states) = small_log();
    let mut bad = data.clone();
    bad[states[1].0..states[2].0].fill(0);
    let (dir, opened) = with_file(&bad);
    let error = opened.map(|_| ()).unwrap_err().to_string();
    let file = segment::path(dir.path(), 1);
    let start = format!("the raft log is damaged: {} at offset {}", file.display(), states[1].0);
    assert!(error.starts_with(&start), "{error}");
    assert_eq!(fs::read(file).unwrap(), bad, "a refused log is not touched");
}

#[test]
fn nothing_readable_is_on_disk_and_another_key_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    let mut secret = entry(2, 1, 0);
    secret.data = bytes::Bytes::from_static(b"correct horse battery staple");
    log.append(None, &[secret], true).unwrap();
    drop(log);
    let data = fs::read(&files(dir.path())[0]).unwrap();
    assert!(!data.windows(7).any(|w| w == b"battery"));
    let other = Log::open(dir.path(), &DataKey::new([8; 32]), LogOptions::default());
    assert!(matches!(other, Err(OpenError::Damaged { .. })));
}

#[test]
fn segments_rotate_compact_and_must_all_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 4096, ..small() };
    let (mut log, _) = Log::open(dir.path(), &key(), options.clone()).unwrap();
    let all: Vec<Entry> = (2..60).map(|i| entry(i, 1, 500)).collect();
    for e in &all {
        log.append(Some(hs(1, e.index)), std::slice::from_ref(e), true).unwrap();
    }
    assert!(log.segments() > 5);
    let before = log.segments();
    log.compact(30).unwrap();
    assert!(log.segments() < before);
    drop(log);
    let (mut log, recovered) = Log::open(dir.path(), &key(), options.clone()).unwrap();
    let first = recovered.entries[0].index;
    assert!(first > 2 && first <= 31);
    assert_eq!(recovered.entries, all[usize::try_from(first).unwrap() - 2..]);
    log.append(None, &[entry(60, 2, 10)], true).unwrap();
    drop(log);
    let list = files(dir.path());
    let middle = &list[list.len() - 3];
    let good = fs::read(middle).unwrap();
    fs::remove_file(middle).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })), "a segment is missing");
    fs::write(middle, &good[..good.len() - 100]).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })), "a segment is cut");
    fs::write(middle, &good).unwrap();
    assert_eq!(open(dir.path()).unwrap().1.entries.last().unwrap().index, 60);
}

#[test]
fn a_lazy_hard_state_goes_with_the_next_record_or_the_flush() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.append(Some(hs(3, 1)), &[entry(2, 3, 1)], true).unwrap();
    log.append(Some(hs(3, 2)), &[], false).unwrap();
    drop(log);
    let (mut log, recovered) = open(dir.path()).unwrap();
    assert_eq!(recovered.hard_state, hs(3, 1));
    log.append(Some(hs(3, 2)), &[], false).unwrap();
    log.flush().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).unwrap().1.hard_state, hs(3, 2));
}

#[test]
fn a_reset_forgets_the_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    log.append(Some(hs(1, 1)), &[entry(2, 1, 1), entry(3, 1, 1)], true).unwrap();
    log.reset(hs(4, 900)).unwrap();
    log.append(None, &[entry(901, 4, 1)], true).unwrap();
    drop(log);
    let (_, recovered) = open(dir.path()).unwrap();
    assert_eq!(recovered.entries, [entry(901, 4, 1)]);
    assert_eq!(recovered.hard_state, hs(4, 900));
}

/// A file system with 3 MiB of space; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(done.success(), "these tests run as root");
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_a_restart_works_once_there_is_space() {
    let small = Small::mount();
    let dir = small.0.path().join("log");
    let (mut log, _) = open(&dir).unwrap();
    let mut kept = Vec::new();
    let mut index = 1;
    let error = loop {
        index += 1;
        let e = entry(index, 1, 100_000);
        match log.append(Some(hs(1, index)), std::slice::from_ref(&e), true) {
            Ok(()) => kept.push(e),
            Err(error) => break error,
        }
        assert!(index < 1000, "3 MiB must be full by now");
    };
    assert!(matches!(error, AppendError::Write { .. }), "{error}");
    let again = log.append(None, &[entry(index, 1, 1)], true);
    assert!(matches!(again, Err(AppendError::Failed)), "a log that failed takes nothing more");
    drop(log);
    let done = Command::new("mount").args(["-o", "remount,size=16m"]).arg(small.0.path()).status().unwrap();
    assert!(done.success());
    let (mut log, recovered) = open(&dir).unwrap();
    assert_eq!(recovered.entries, kept);
    log.append(None, &[entry(index, 1, 100_000)], true).unwrap();
}
