//! Aligned columns as Docker prints them: three blanks between, columns at least ten wide.

const GAP: usize = 3;
const LEAST: usize = 10;

/// The rows as text; each cell but the last of a row is padded. No blanks at the ends of lines.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell: &String| cell.chars().count() + GAP).max().unwrap_or(0).max(LEAST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    #[test]
    fn columns_line_up() {
        let rows = [["ID", "NAME", "X"], ["abcdefghijkl", "wäb", "1"], ["", "b", ""]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect();
        expect![[r#"
            ID             NAME      X
            abcdefghijkl   wäb       1
                           b
        "#]]
        .assert_eq(&super::render(&rows));
    }
}
