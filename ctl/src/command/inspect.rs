//! What all `inspect` commands share: several references, one array, missing ones told at the end.

use serde_json::Value;

use crate::error::{Failure, Outcome};
use crate::output;
use crate::output::template::Template;

#[derive(Debug, clap::Args)]
pub(crate) struct InspectFlags {
    /// json, or a Go template of fields, e.g. {{.Spec.Name}}
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// What was found so far.
pub(crate) struct Found {
    noun: &'static str,
    objects: Vec<Value>,
    sheets: Vec<String>,
    missing: Vec<String>,
}

impl Found {
    pub(crate) fn new(noun: &'static str) -> Self {
        Found { noun, objects: Vec::new(), sheets: Vec::new(), missing: Vec::new() }
    }
    /// Takes a missing object as a line for the end; other failures end the command.
    pub(crate) fn note<T>(&mut self, reference: &str, result: Outcome<T>) -> Outcome<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Failure::NotFound(_)) => {
                self.missing.push(format!("no such {}: {reference}", self.noun));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
    pub(crate) fn object(&mut self, object: Value) {
        self.objects.push(object);
    }
    pub(crate) fn sheet(&mut self, sheet: String) {
        self.sheets.push(sheet);
    }
    pub(crate) fn print(self, flags: &InspectFlags, pretty: bool) -> Outcome {
        output::text(&text(&self.objects, &self.sheets, flags, pretty)?);
        for missing in &self.missing {
            output::error(missing);
        }
        if self.missing.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
    }
}

fn text(objects: &[Value], sheets: &[String], flags: &InspectFlags, pretty: bool) -> Outcome<String> {
    match flags.format.as_deref() {
        _ if pretty => Ok(sheets.join("\n")),
        None | Some("") => Ok(output::json::pretty(&Value::Array(objects.to_vec())) + "\n"),
        Some("json") => Ok(objects.iter().map(|object| format!("{object}\n")).collect()),
        Some(template) => {
            let template = Template::parse(template)?;
            let lines = objects.iter().map(|object| Ok(template.render(object, false)? + "\n"));
            lines.collect::<Outcome<String>>()
        }
    }
}
