//! Progress on the screen: redrawn in place for a person, a line for each change for a file.

use std::collections::BTreeMap;

use swarm_types::task_state::TaskState;

use super::{Line, Progress};
use crate::output::{self, human};

/// More slots than this are not shown one by one.
const MOST_BARS: usize = 20;
const BAR: usize = 50;

/// Where progress is shown.
pub(crate) struct Screen {
    quiet: bool,
    terminal: bool,
    drawn: usize,
    said: BTreeMap<String, String>,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        Screen { quiet, terminal: output::is_terminal(), drawn: 0, said: BTreeMap::new() }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        if !self.quiet {
            let (overall, lines) = progress.lines();
            output::text(&self.render(&overall, &lines));
        }
    }

    /// A last line below.
    pub(crate) fn end(&self, text: &str) {
        if !self.quiet {
            output::line(text);
        }
    }

    fn render(&mut self, overall: &str, lines: &[Line]) -> String {
        let lines = if lines.len() > MOST_BARS { &[] } else { lines };
        match self.terminal {
            true => self.redraw(overall, lines),
            false => self.news(overall, lines),
        }
    }

    fn redraw(&mut self, overall: &str, lines: &[Line]) -> String {
        let up = match self.drawn {
            0 => String::new(),
            n => format!("\x1b[{n}A"),
        };
        self.drawn = self.drawn.max(lines.len() + 1);
        let mut out = format!("{up}\x1b[2K{overall}\n");
        for line in lines {
            out.push_str(&format!("\x1b[2K{}\n", bar(line)));
        }
        for _ in lines.len() + 1..self.drawn {
            out.push_str("\x1b[2K\n");
        }
        out
    }

    fn news(&mut self, overall: &str, lines: &[Line]) -> String {
        let mut out = String::new();
        let words = lines.iter().map(|line| (line.label.clone(), words(line)));
        for (label, text) in words.chain([(String::new(), overall.to_owned())]) {
            if self.said.get(&label) != Some(&text) {
                out.push_str(&format!("{text}\n"));
                self.said.insert(label, text);
            }
        }
        out
    }
}

fn words(line: &Line) -> String {
    match line.err.as_str() {
        "" => format!("{}: {}", line.label, line.state),
        err => format!("{}: {}: {err}", line.label, line.state),
    }
}

fn bar(line: &Line) -> String {
    if !line.err.is_empty() {
        return format!("{}: {}", line.label, human::cut(&line.err, BAR + 12));
    }
    let step = TaskState::ALL.iter().filter(|s| **s <= line.state.min(TaskState::Running)).count();
    let all = TaskState::ALL.iter().filter(|s| **s <= TaskState::Running).count();
    let length = step * BAR / all;
    let arrow = format!("{}>", "=".repeat(length.saturating_sub(1)));
    format!("{}: {:<9} [{arrow:<BAR$}]", line.label, line.state)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn lines(state: TaskState) -> Vec<Line> {
        let line = |label: &str, state, err: &str| Line { label: label.into(), state, err: err.into() };
        vec![line("1/2", state, ""), line("2/2", TaskState::Pending, "no suitable node")]
    }

    #[test]
    fn a_file_gets_what_changed() {
        let mut screen = Screen { quiet: false, terminal: false, drawn: 0, said: BTreeMap::new() };
        let mut text = screen.render("overall progress: 0 out of 2 tasks", &lines(TaskState::Preparing));
        text += "--\n";
        text += &screen.render("overall progress: 1 out of 2 tasks", &lines(TaskState::Running));
        assert_eq!(screen.render("overall progress: 1 out of 2 tasks", &lines(TaskState::Running)), "");
        expect![[r#"
            1/2: preparing
            2/2: pending: no suitable node
            overall progress: 0 out of 2 tasks
            --
            1/2: running
            overall progress: 1 out of 2 tasks
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_terminal_is_redrawn() {
        let mut screen = Screen { quiet: false, terminal: true, drawn: 0, said: BTreeMap::new() };
        let text = screen.render("0 of 2", &lines(TaskState::Preparing));
        let again = screen.render("1 of 2", &lines(TaskState::Running)[..1]);
        expect![[r#"
            ^[2K0 of 2
            ^[2K1/2: preparing [==============================>                   ]
            ^[2K2/2: no suitable node
            ^[3A^[2K1 of 2
            ^[2K1/2: running   [=================================================>]
            ^[2K
        "#]]
        .assert_eq(&(text + &again).replace('\x1b', "^"));
    }
}
