//! A list of objects, printed as a table, as JSON lines, by a template, or as ids alone.

use serde_json::{Map, Value};

use super::table;
use super::template::{Template, TemplateError};

/// One field of the objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name in JSON and templates.
    pub(crate) field: &'static str,
    /// Its header; empty: not in the table unless a template asks for it.
    pub(crate) header: &'static str,
}

/// The objects: in each row a value for each column.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Row>,
}

/// One object.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) values: Vec<Value>,
    /// What the table shows instead of a value: column, text.
    pub(crate) shown: Option<(usize, String)>,
}

/// How to print lists.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Format {
    /// table, json, a Go template of fields ({{.Name}}), or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Listing {
    /// The text, with its last newline; the ids are the values of the first column.
    pub(crate) fn render(&self, format: &Format) -> Result<String, TemplateError> {
        if format.quiet {
            return Ok(self.rows.iter().map(|row| format!("{}\n", plain(&row.values[0]))).collect());
        }
        match format.format.as_deref() {
            None | Some("" | "table") => Ok(self.table()),
            Some("json") => Ok(self.rows.iter().map(|row| format!("{}\n", self.object(row))).collect()),
            Some(text) => match text.strip_prefix("table ") {
                Some(text) => self.template_table(&Template::parse(text.trim_start())?),
                None => {
                    let template = Template::parse(text)?;
                    let line = |row| template.render(&self.object(row), true).map(|line| line + "\n");
                    self.rows.iter().map(line).collect()
                }
            },
        }
    }

    fn object(&self, row: &Row) -> Value {
        let fields = self.columns.iter().map(|column| column.field.to_owned());
        Value::Object(fields.zip(row.values.iter().cloned()).collect::<Map<_, _>>())
    }

    fn table(&self) -> String {
        let shown: Vec<usize> =
            (0..self.columns.len()).filter(|i| !self.columns[*i].header.is_empty()).collect();
        let mut rows = vec![shown.iter().map(|i| self.columns[*i].header.to_owned()).collect::<Vec<_>>()];
        for row in &self.rows {
            let cell = |i: &usize| match &row.shown {
                Some((at, text)) if at == i => text.clone(),
                _ => plain(&row.values[*i]),
            };
            rows.push(shown.iter().map(cell).collect());
        }
        table::render(&rows)
    }

    fn template_table(&self, template: &Template) -> Result<String, TemplateError> {
        let header = |field: &str| match self.columns.iter().find(|c| c.field == field) {
            Some(column) if !column.header.is_empty() => column.header.to_owned(),
            _ => field.to_uppercase(),
        };
        let cells = |line: String| line.split('\t').map(String::from).collect::<Vec<_>>();
        let mut rows = vec![cells(template.header(header))];
        for row in &self.rows {
            rows.push(cells(template.render(&self.object(row), true)?));
        }
        Ok(table::render(&rows))
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column { field: "ID", header: "ID" },
        Column { field: "Name", header: "NAME" },
        Column { field: "Self", header: "" },
    ];

    fn show(format: &str) -> String {
        let row =
            Row { values: vec![json!("abc"), json!("web"), json!(true)], shown: Some((0, "abc *".into())) };
        let listing = Listing { columns: COLUMNS, rows: vec![row] };
        let format = Format { format: Some(format.into()), quiet: format == "quiet" };
        listing.render(&format).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn formats() {
        let all = ["table", "json", "{{.Name}}/{{.Self}}", "table {{.Name}}\\t{{.Self}}", "quiet", "{{.X}}"];
        let text = all.map(|format| format!("--- {format}\n{}", show(format))).concat();
        expect![[r#"
            --- table
            ID        NAME
            abc *     web
            --- json
            {"ID":"abc","Name":"web","Self":true}
            --- {{.Name}}/{{.Self}}
            web/true
            --- table {{.Name}}\t{{.Self}}
            NAME      SELF
            web       true
            --- quiet
            abc
            --- {{.X}}
            template: there is no field `X`; there are: ID Name Self"#]]
        .assert_eq(&text);
    }
}
