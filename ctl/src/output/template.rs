//! Go templates of plain fields: `{{.Name}}\t{{.ID}}`, `{{json .}}`, `{{json .Spec}}`, `{{upper .Name}}`.

use serde_json::Value;

/// A template cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template: `{{{{` without `}}}}`")]
    Open,
    #[error(
        "template: cannot use `{{{{{0}}}}}`: fields such as {{{{.Name}}}}, json, upper and lower are supported"
    )]
    Unsupported(String),
    #[error("template: there is no field `{0}`; there are: {1}")]
    Field(String, String),
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { function: Option<Function>, path: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Json,
    Upper,
    Lower,
}

/// A template, parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        // As in Docker, `\t` and `\n` stand for what they stand for in Go.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(field(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template(parts))
    }

    /// The text for one object. With `strict`, a field that it does not have is an error; without, it
    /// is `<no value>` as in Go.
    pub(crate) fn render(&self, object: &Value, strict: bool) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { function, path } => match find(object, path) {
                    Some(value) => out.push_str(&show(value, *function)),
                    None if strict => return Err(unknown(object, path)),
                    None => out.push_str("<no value>"),
                },
            }
        }
        Ok(out)
    }

    /// The text of a table's head: fields become their headers.
    pub(crate) fn header(&self, header: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field { path, .. } => path.first().map(|field| header(field)).unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

fn field(action: &str) -> Result<Part, TemplateError> {
    let bad = || TemplateError::Unsupported(action.trim().to_owned());
    let action = action.trim().trim_start_matches("- ").trim_end_matches(" -").trim();
    let function = |name: &str| match name {
        "json" => Ok(Some(Function::Json)),
        "upper" => Ok(Some(Function::Upper)),
        "lower" => Ok(Some(Function::Lower)),
        "print" | "println" => Ok(None),
        _ => Err(bad()),
    };
    let words: Vec<&str> = match action.split_once('|') {
        Some((path, name)) => vec![name.trim(), path.trim()],
        None => action.split_whitespace().collect(),
    };
    let (function, path) = match words.as_slice() {
        [path] => (None, *path),
        [name, path] => (function(name)?, *path),
        _ => return Err(bad()),
    };
    let names = path.strip_prefix('.').ok_or_else(bad)?;
    let good = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let path: Vec<String> =
        if names.is_empty() { vec![] } else { names.split('.').map(String::from).collect() };
    if !path.iter().all(|name| good(name)) {
        return Err(bad());
    }
    Ok(Part::Field { function, path })
}

fn find<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn unknown(object: &Value, path: &[String]) -> TemplateError {
    let known: Vec<_> = object.as_object().into_iter().flat_map(|o| o.keys().map(String::as_str)).collect();
    TemplateError::Field(path.join("."), known.join(" "))
}

fn show(value: &Value, function: Option<Function>) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match function {
        None => text,
        Some(Function::Json) => value.to_string(),
        Some(Function::Upper) => text.to_uppercase(),
        Some(Function::Lower) => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(template: &str) -> Result<String, TemplateError> {
        Template::parse(template)?.render(&json!({"Name": "web", "N": 3, "Spec": {"A": [1]}}), true)
    }

    #[test]
    fn fields_and_functions() {
        for (template, text) in [
            ("{{.Name}}\\t{{ .N }}!", "web\t3!"),
            ("{{json .}}", r#"{"Name":"web","N":3,"Spec":{"A":[1]}}"#),
            ("{{json .Name}} {{.Spec.A}} {{upper .Name}} {{.Name | json}}", r#""web" [1] WEB "web""#),
            ("plain", "plain"),
        ] {
            assert_eq!(show(template).unwrap(), text);
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(show("{{.Name").unwrap_err(), TemplateError::Open);
        assert_eq!(
            show("{{.Nope}}").unwrap_err().to_string(),
            "template: there is no field `Nope`; there are: Name N Spec"
        );
        for text in ["{{range .X}}", "{{if .A}}b{{end}}", "{{}}", "{{Name}}", "{{.a b c}}"] {
            assert!(matches!(show(text), Err(TemplateError::Unsupported(_))), "{text}");
        }
        assert_eq!(Template::parse("{{.No}}").unwrap().render(&json!({}), false).unwrap(), "<no value>");
    }
}
