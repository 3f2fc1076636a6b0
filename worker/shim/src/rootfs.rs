//! Root: the image's layers and the container's own changes, mounted as `/` of a private mount
//! namespace. Nothing of it appears in the host's mount table, so nothing has to be unmounted.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::bundle::Bundle;
use crate::exec::reason;
use crate::record::StartFailure;

/// One mount call takes a page of options, with its terminating zero.
const MAX_OPTIONS: usize = 4095;

/// Mounts the root and goes into it. Binds must have been opened before.
pub(crate) fn enter(bundle: &Bundle, layers: &[PathBuf]) -> Result<(), StartFailure> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| fail("make the mount namespace private", e.into()))?;
    let options = options(bundle, layers)?;
    let attempt = |options: &[u8]| {
        mount(Some("overlay"), &bundle.rootfs(), Some("overlay"), MsFlags::empty(), Some(options))
    };
    // A container's changes never outlive it, so nobody needs them synced; old kernels lack the option.
    let quick = [options.as_slice(), b",volatile"].concat();
    attempt(&quick)
        .or_else(|_| attempt(&options))
        .map_err(|e| fail("mount the root file system", e.into()))?;
    nix::unistd::chdir(&bundle.rootfs())
        .and_then(|()| nix::unistd::pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| nix::unistd::chdir("/"))
        .map_err(|e| fail("change into the root file system", e.into()))
}

fn fail(what: &str, e: io::Error) -> StartFailure {
    StartFailure::setup(format!("{what}: {}", reason(&e)))
}

/// The overlay's options; leaves the working directory where their relative names hold.
fn options(bundle: &Bundle, layers: &[PathBuf]) -> Result<Vec<u8>, StartFailure> {
    if layers.is_empty() {
        return Err(StartFailure::setup("mount the root file system: the image has no layers"));
    }
    for layer in layers {
        if !layer.is_dir() {
            return Err(StartFailure::setup(format!("image layer is missing: {}", layer.display())));
        }
    }
    let full = join(layers, &bundle.upper(), &bundle.work());
    if full.len() <= MAX_OPTIONS - b",volatile".len() {
        return Ok(full);
    }
    let short = shorten(bundle, layers).map_err(|e| fail("name the image layers", e))?;
    nix::unistd::chdir(bundle.dir()).map_err(|e| fail("enter the bundle", e.into()))?;
    Ok(join(&short, Path::new("upper"), Path::new("work")))
}

fn join(layers: &[PathBuf], upper: &Path, work: &Path) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    for (n, layer) in layers.iter().enumerate() {
        if n > 0 {
            options.push(b':');
        }
        escape(layer, &mut options);
    }
    options.extend_from_slice(b",upperdir=");
    escape(upper, &mut options);
    options.extend_from_slice(b",workdir=");
    escape(work, &mut options);
    options
}

/// Overlay takes `:` and `,` as separators and `\` as the way out.
fn escape(path: &Path, out: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

fn shorten(bundle: &Bundle, layers: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let dir = bundle.short_layers();
    fs::create_dir_all(&dir)?;
    let mut short = Vec::with_capacity(layers.len());
    for (n, layer) in layers.iter().enumerate() {
        let mut name = String::from("l/");
        write!(name, "{n}").expect("a String takes every write");
        match std::os::unix::fs::symlink(layer, bundle.dir().join(&name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => short.push(PathBuf::from(name)),
        }
    }
    Ok(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let options = join(&["/a:b".into(), "/c,d".into()], Path::new("/u\\"), Path::new("/w"));
        let expected = "lowerdir=/a\\:b:/c\\,d,upperdir=/u\\\\,workdir=/w";
        assert_eq!(String::from_utf8(options).expect("utf-8"), expected);
    }

    #[test]
    fn many_long_layers_get_short_names() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = Bundle::new(dir.path().join("b"));
        fs::create_dir(bundle.dir()).expect("mkdir");
        let layers: Vec<PathBuf> = (0..120).map(|n| dir.path().join(format!("{n:0>64}"))).collect();
        layers.iter().for_each(|l| fs::create_dir(l).expect("mkdir"));
        let before = std::env::current_dir().expect("cwd");
        let options = options(&bundle, &layers).expect("fits");
        std::env::set_current_dir(before).expect("back");
        assert!(options.len() < MAX_OPTIONS);
        assert!(bundle.dir().join("l/119").is_dir());
    }
}
