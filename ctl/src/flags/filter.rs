//! `--filter key=value`: of one key's values one must fit, of labels all; of several keys all.

use std::collections::BTreeMap;

use swarm_types::meta::Labels;

use crate::error::{Failure, Outcome};

/// The filters of one command.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `key=value` texts; only keys in `known` are allowed.
    pub(crate) fn parse(texts: &[String], known: &[&str]) -> Outcome<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Failure::Usage(format!("invalid filter `{text}`: expected key=value")));
            };
            let key = key.trim().to_ascii_lowercase();
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return Err(Failure::Usage(format!("invalid filter `{key}`: there are {known}")));
            }
            filters.0.entry(key).or_default().push(value.trim().to_owned());
        }
        Ok(filters)
    }
    /// True if there is no such filter, or one of its values passes `test`.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|v| test(v)))
    }
    /// The object's id starts with a value.
    pub(crate) fn id(&self, key: &str, id: &str) -> bool {
        self.any(key, |v| id.starts_with(v))
    }
    /// One of the values is this word, whatever its case.
    pub(crate) fn word(&self, key: &str, word: &str) -> bool {
        self.any(key, |v| v.eq_ignore_ascii_case(word))
    }
    /// Every `label[=value]` is among the labels.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        let fits = |text: &String| match text.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(text),
        };
        self.0.get(key).is_none_or(|values| values.iter().all(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_key_all_of_labels() {
        let texts = ["name=a", "name=b", "label=x=1", "label=y"].map(String::from);
        let filters = Filters::parse(&texts, &["name", "label"]).unwrap();
        assert!(filters.word("name", "B") && !filters.word("name", "c") && filters.word("other", "c"));
        let both = Labels::from([("x".into(), "1".into()), ("y".into(), "2".into())]);
        let one = Labels::from([("x".into(), "1".into())]);
        assert!(filters.labels("label", &both) && !filters.labels("label", &one));
        assert!(Filters::parse(&["colour=red".into()], &["name"]).is_err());
        assert!(Filters::parse(&["name".into()], &["name"]).is_err());
    }
}
