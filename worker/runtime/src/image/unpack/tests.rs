use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::compression::Compression;
use super::super::testing::{Tar, pack};
use super::place::pax_time;
use super::*;

fn unpack(layer: &[u8]) -> Result<TempDir, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    let size = unpack_layer(layer, dir.path(), &Digest::of(layer), &Limits::default())?;
    assert_eq!(size, layer.len() as u64);
    Ok(dir)
}

fn refusal(tar: Tar) -> String {
    unpack(&tar.end()).expect_err("refused").to_string()
}

#[test]
fn everything_a_layer_may_hold_arrives() {
    let layer = Tar::default()
        .entry(EntryType::Directory, "./", "", 0o711, b"")
        .dir("etc/")
        .entry(EntryType::Regular, "/etc/su", "", 0o4755, b"x")
        .hard("etc/su2", "./etc/su")
        .symlink("abs", "/etc/passwd")
        .entry(EntryType::Fifo, "pipe", "", 0o600, b"")
        .entry(EntryType::Char, "dev/zero", "", 0o666, b"")
        .pax("SCHILY.xattr.user.color", "red")
        .pax_then_file("mtime", "1234567890.5", "with-time", "hello")
        .end();
    let dir = unpack(&layer).unwrap();
    let at = |p: &str| fs::symlink_metadata(dir.path().join(p)).unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, 0o711);
    assert_eq!((at("etc/su").mode() & 0o7777, at("etc/su").ino()), (0o4755, at("etc/su2").ino()));
    assert_eq!(
        (at("etc").mtime(), at("etc/su").mtime(), at("abs").mtime()),
        (1_000_000_000, 1_000_000_000, 1_000_000_000)
    );
    assert_eq!(fs::read_link(dir.path().join("abs")).unwrap(), Path::new("/etc/passwd"));
    assert!(at("pipe").file_type().is_fifo() && at("dev/zero").file_type().is_char_device());
    assert_eq!((at("with-time").mtime(), at("with-time").mtime_nsec()), (1_234_567_890, 500_000_000));
}

impl Tar {
    fn pax_then_file(self, key: &str, value: &str, name: &str, content: &str) -> Tar {
        // a second record right after the first would be an error; the first belongs to this spacer
        self.file("spacer", "").pax(key, value).file(name, content)
    }
}

#[test]
fn extended_attributes_arrive_except_those_of_overlayfs() {
    let layer = Tar::default()
        .pax("SCHILY.xattr.trusted.color", "red")
        .file("a", "")
        .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
        .dir("b")
        .end();
    let dir = unpack(&layer).unwrap();
    assert_eq!(xattr::get(dir.path().join("a"), "trusted.color").unwrap().unwrap(), b"red");
    assert_eq!(xattr::get(dir.path().join("b"), "trusted.overlay.redirect").unwrap(), None);
}

#[test]
fn packed_layers_have_the_same_diff_id() {
    let plain = Tar::default().file("a", "hello").end();
    for how in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        unpack_layer(&pack(&plain, how)[..], dir.path(), &Digest::of(&plain), &Limits::default()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "hello");
    }
}

#[test]
fn nothing_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap().to_string();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    let link = || Tar::default().symlink("l", &out);
    for (tar, names) in [
        (Tar::default().file("../evil", "x"), "../evil"),
        (Tar::default().file("a/../../evil", "x"), "a/../../evil"),
        (link().file("l/victim", "x"), "l/victim"),
        (link().dir("l/new"), "l/new"),
        (link().symlink("l/new", "x"), "l/new"),
        (link().file("l/.wh.victim", ""), "l/.wh.victim"),
        (link().file("l/.wh..wh..opq", ""), "l/.wh..wh..opq"),
        (link().entry(EntryType::Fifo, "l/p", "", 0o644, b""), "l/p"),
        (link().hard("h", "l/victim"), "h"),
        (Tar::default().hard("h", &format!("{out}/victim")), "h"),
        (Tar::default().hard("h", "../../etc/passwd"), "h"),
        (Tar::default().dir("d").hard("h", "d"), "h"),
        (Tar::default().file("h", "").hard("h", "h"), "h"),
        (Tar::default().file("f", "x").file("f/below", "y"), "f/below"),
        (Tar::default().file(".wh...", ""), ".wh..."),
        (Tar::default().file("x/.wh.", ""), "x/.wh."),
        (Tar::default().entry(EntryType::new(b'Z'), "z", "", 0o644, b""), "z"),
    ] {
        let words = refusal(tar);
        assert!(words.contains(&format!("`{names}`")), "{words}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
    assert_eq!(fs::metadata(outside.path().join("victim")).unwrap().nlink(), 1);
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let to = victim.to_str().unwrap();
    let layer = Tar::default()
        .symlink("a", to)
        .file("a", "mine")
        .symlink("d", "/etc")
        .dir("d")
        .file("d/in", "x")
        .symlink("s", to)
        .hard("hs", "s")
        .end();
    let dir = unpack(&layer).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "mine");
    assert!(fs::symlink_metadata(dir.path().join("d")).unwrap().is_dir());
    assert!(
        fs::symlink_metadata(dir.path().join("hs")).unwrap().is_symlink(),
        "a hard link to a link is a link"
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
}

#[test]
fn a_directory_that_was_walked_to_is_not_remembered_after_it_went() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let layer = Tar::default().dir("d").file("d/a", "x").symlink("d", out).file("d/evil", "x");
    assert!(refusal(layer).contains("`d/evil`"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn damage_is_refused() {
    let layer = Tar::default().file("a", &"x".repeat(5000)).end();
    let other = Digest::of(b"other");
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    assert!(matches!(unpack_layer(&layer[..], dir.path(), &other, &limits), Err(UnpackError::DiffId { .. })));
    for cut in [100, 600, 3000, layer.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack_layer(&layer[..cut], dir.path(), &Digest::of(&layer), &limits).is_err(), "{cut}");
    }
    let packed = pack(&layer, Compression::Gzip);
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack_layer(&packed[..packed.len() / 2], dir.path(), &Digest::of(&layer), &limits).is_err());
}

#[test]
fn bombs_are_refused() {
    let layer = Tar::default().file("a", &"x".repeat(100_000)).file("b", "").file("c", "").end();
    let try_with = |limits: Limits| {
        let dir = tempfile::tempdir().unwrap();
        unpack_layer(&layer[..], dir.path(), &Digest::of(&layer), &limits).unwrap_err().to_string()
    };
    assert_eq!(
        try_with(Limits { layer_bytes: 50_000, ..Limits::default() }),
        "refuse layer: more than 50000 bytes"
    );
    assert_eq!(try_with(Limits { entries: 2, ..Limits::default() }), "refuse layer: more than 2 entries");
    let name = "x".repeat(usize::try_from(HEADER_BYTES_MAX).unwrap() + 1);
    let long = Tar::default()
        .entry(EntryType::GNULongName, "././@LongLink", "", 0o644, name.as_bytes())
        .file("a", "")
        .end();
    assert!(matches!(unpack(&long), Err(UnpackError::Read { .. })), "a name of megabytes");
}

#[test]
fn whiteouts_hide_through_a_real_overlay() {
    let lower = unpack(
        &Tar::default().file("gone", "x").file("d/old", "x").file("r/old", "x").file("kept", "x").end(),
    )
    .unwrap();
    let upper = Tar::default()
        .file(".wh.gone", "")
        .file("d/new", "y")
        .file("d/.wh..wh..opq", "")
        .file(".wh.r", "")
        .dir("r")
        .file("r/new", "y");
    let upper = unpack(&upper.end()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let option = format!("lowerdir={}:{}", upper.path().display(), lower.path().display());
    let mount = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    mount(&["mount", "-t", "overlay", "overlay", "-o", &option, target.path().to_str().unwrap()]);
    let list = |p: &str| {
        let mut names: Vec<_> =
            fs::read_dir(target.path().join(p)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let seen = (list(""), list("d"), list("r"));
    mount(&["umount", target.path().to_str().unwrap()]);
    assert_eq!(seen, (vec!["d".into(), "kept".into(), "r".into()], vec!["new".into()], vec!["new".into()]));
}

#[test]
fn pax_times_are_read() {
    assert_eq!(pax_time(b"12.5"), Some(TimeSpec::new(12, 500_000_000)));
    assert_eq!(pax_time(b"-1.25"), Some(TimeSpec::new(-2, 750_000_000)));
    assert_eq!(pax_time(b"7"), Some(TimeSpec::new(7, 0)));
    assert_eq!(pax_time(b"x"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn noise_in_a_layer_never_panics(at in 0usize..3000, noise in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut layer = Tar::default().dir("a").file("a/b", "hello").symlink("c", "a").hard("d", "a/b").end();
        for (n, byte) in noise.iter().enumerate() {
            if let Some(place) = layer.get_mut(at + n) { *place = *byte; }
        }
        let dir = tempfile::tempdir().unwrap();
        drop(unpack_layer(&layer[..], dir.path(), &Digest::of(&layer), &Limits::default()));
    }
}
