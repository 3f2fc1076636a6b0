//! `--mount type=bind,source=/data,target=/data,readonly` and `type=tmpfs,target=/tmp,tmpfs-size=64m`.

use swarm_types::container::{Mount, MountKind, Propagation};

use super::size;

#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: String,
    target: String,
    read_only: bool,
    propagation: Option<Propagation>,
    non_recursive: bool,
    size: Option<u64>,
    mode: Option<u32>,
}

/// Reads one mount.
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let mut fields = Fields::default();
    for part in text.split(',') {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value)),
            None => (part.trim(), None),
        };
        fields.set(&key.to_ascii_lowercase(), value).map_err(|e| format!("invalid mount `{text}`: {e}"))?;
    }
    fields.finish().map_err(|e| format!("invalid mount `{text}`: {e}"))
}

impl Fields {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let text = || value.ok_or_else(|| format!("`{key}` needs a value"));
        match key {
            "type" => self.kind = Some(text()?.to_ascii_lowercase()),
            "source" | "src" => self.source = text()?.to_owned(),
            "target" | "dst" | "destination" => self.target = text()?.to_owned(),
            "readonly" | "ro" => self.read_only = boolean(key, value)?,
            "bind-propagation" => {
                let word = text()?;
                let known = Propagation::parse(word);
                self.propagation = Some(known.ok_or_else(|| {
                    format!("bind-propagation `{word}` is none of rprivate, private, rshared, shared, rslave, slave")
                })?);
            }
            "bind-nonrecursive" => self.non_recursive = boolean(key, value)?,
            "bind-recursive" => match text()? {
                "enabled" => self.non_recursive = false,
                "disabled" => self.non_recursive = true,
                other => return Err(format!("bind-recursive `{other}` is neither enabled nor disabled")),
            },
            "tmpfs-size" => self.size = Some(size::parse(text()?)?),
            "tmpfs-mode" => {
                let mode = text()?;
                let bits = u32::from_str_radix(mode, 8);
                self.mode = Some(bits.map_err(|_| format!("tmpfs-mode `{mode}` is not an octal number"))?);
            }
            "consistency" => {}
            _ => return Err(format!("unexpected key `{key}`")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, String> {
        if self.target.is_empty() {
            return Err("target is required".into());
        }
        // As in Docker, a mount without a type is a volume.
        let kind = match self.kind.as_deref().unwrap_or("volume") {
            "bind" => self.bind()?,
            "tmpfs" => self.tmpfs()?,
            "volume" => {
                return Err(
                    "volumes are not supported yet: use type=bind (a path of the node) or type=tmpfs".into(),
                );
            }
            other => return Err(format!("type `{other}` is neither bind nor tmpfs")),
        };
        Ok(Mount { kind, source: self.source, target: self.target, read_only: self.read_only })
    }

    fn bind(&self) -> Result<MountKind, String> {
        if self.source.is_empty() {
            return Err("source is required for a bind".into());
        }
        if self.size.is_some() || self.mode.is_some() {
            return Err("tmpfs-size and tmpfs-mode are for type=tmpfs".into());
        }
        let propagation = self.propagation.unwrap_or_default();
        Ok(MountKind::Bind { propagation, recursive: !self.non_recursive })
    }

    fn tmpfs(&self) -> Result<MountKind, String> {
        if !self.source.is_empty() {
            return Err("a tmpfs has no source".into());
        }
        if self.propagation.is_some() || self.non_recursive {
            return Err("bind-propagation and bind-nonrecursive are for type=bind".into());
        }
        Ok(MountKind::Tmpfs { size_bytes: self.size.unwrap_or(0), mode: self.mode.unwrap_or(0) })
    }
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("`{key}={other}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_and_tmpfs() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((mount.source.as_str(), mount.target.as_str(), mount.read_only), ("/a", "/b", true));
        assert_eq!(mount.kind, MountKind::Bind { propagation: Propagation::RSlave, recursive: true });
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").unwrap();
        assert_eq!(mount.kind, MountKind::Tmpfs { size_bytes: 64 << 20, mode: 0o1770 });
    }

    #[test]
    fn refusals_say_what_would_do() {
        for (text, part) in [
            ("type=volume,src=v,dst=/v", "volumes are not supported yet"),
            ("src=v,dst=/v", "volumes are not supported yet"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a", "source is required"),
            ("type=tmpfs,dst=/a,src=/b", "no source"),
            ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "are for type=tmpfs"),
            ("type=bind,src=/a,dst=/b,colour=red", "unexpected key"),
            ("type=tmpfs,dst=/a,tmpfs-mode=9", "octal"),
            ("type=bind,src=/a,dst=/b,readonly=maybe", "neither true nor false"),
            ("", "unexpected key"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
