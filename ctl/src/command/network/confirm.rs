//! Questions before something is removed.

use std::io::BufRead;

use crate::error::{Failure, Outcome};
use crate::output;

/// Asks, and reads the answer from standard input, whether that is a terminal or not.
pub(super) fn confirmed(question: &str) -> Outcome<bool> {
    output::text(&format!("{question}\nAre you sure you want to continue? [y/N] "));
    let (yes, ended) = answer(&mut std::io::stdin().lock())?;
    output::text(if ended { "\n" } else { "" });
    Ok(yes)
}

/// Anything but yes is no, and so is the end of the input (Docker's rule); whether it was that.
fn answer(input: &mut impl BufRead) -> Outcome<(bool, bool)> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|e| Failure::io("read the answer", &e))?;
    Ok((matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"), line.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (text, yes) in [
            ("y\n", true),
            ("Yes\n", true),
            (" YES ", true),
            ("n\n", false),
            ("\n", false),
            ("yeah\n", false),
        ] {
            assert_eq!(answer(&mut text.as_bytes()).unwrap(), (yes, false), "{text:?}");
        }
        assert_eq!(answer(&mut "".as_bytes()).unwrap(), (false, true), "nobody answers");
    }
}
