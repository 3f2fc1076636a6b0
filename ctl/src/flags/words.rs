//! One text into words, as a shell splits them: blanks, quotes and backslashes, nothing expanded.

/// Splits `text`; fails if a quote is left open.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| format!("`{text}` ends in a backslash"))?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("`{text}` has an open quote"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_a_shell() {
        let words = |text| split(text).unwrap();
        assert_eq!(words("  a  b\tc "), ["a", "b", "c"]);
        assert_eq!(words(r#"sh -c "echo \"hi\" \n" 'a b'\'c"#), ["sh", "-c", r#"echo "hi" \n"#, "a b'c"]);
        assert_eq!(words("'' x"), ["", "x"]);
        assert_eq!(words(""), [""; 0]);
        assert!(split("'a").is_err() && split("a\\").is_err());
    }
}
