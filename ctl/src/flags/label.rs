//! Labels: `key=value`, or `key` for an empty value.

use swarm_types::meta::Labels;

/// Reads one `key[=value]`.
pub(crate) fn parse(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid label: `{text}` has no name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Removes first, then adds: adding wins.
pub(crate) fn change(labels: &mut Labels, add: &[(String, String)], remove: &[String]) {
    for key in remove {
        labels.remove(key);
    }
    labels.extend(add.iter().cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        assert_eq!(parse("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse("a"), Ok(("a".into(), String::new())));
        assert!(parse("=x").is_err());
        let mut labels = Labels::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        change(&mut labels, &[("a".into(), "3".into())], &["a".into(), "b".into(), "none".into()]);
        assert_eq!(labels, Labels::from([("a".into(), "3".into())]));
    }
}
