//! One JSON document per command. The schemas are checked in: `docs/<command>.schema.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consistency::Level;
use crate::exit_code::ExitCode;
use crate::manifest::{Manifest, StepRecord};
use crate::plan::Plan;
use crate::sequence::{Failure, Report};

/// The version of these documents' form. Grows when a reader must change.
pub const SCHEMA_VERSION: u32 = 1;

/// A document as text, in ASCII where a terminal would act on more: hidden characters, which can only be
/// inside strings, are written as `\u001b`.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn text(document: &impl Serialize) -> serde_json::Result<String> {
    use std::fmt::Write as _;
    let plain = serde_json::to_string_pretty(document)?;
    let mut text = String::with_capacity(plain.len());
    for character in plain.chars() {
        if character == '\n' || !crate::hook::text::is_hidden(character) {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    Ok(text)
}

/// What `stillpoint snapshot --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The exit status of the process.
    pub exit_code: u8,
    /// The level reached; absent if no snapshot was made.
    pub level: Option<Level>,
    /// The state the machine is in now, in words.
    pub state: String,
    /// What went wrong, if anything.
    pub error: Option<ErrorDocument>,
    /// What went wrong beside that: a release that reported trouble, a manifest that was not kept.
    pub problems: Vec<String>,
    /// Every step with its times, if no manifest was written.
    pub steps: Vec<StepRecord>,
    /// What was done; absent if no snapshot was made.
    pub manifest: Option<Manifest>,
}

/// What `stillpoint hook push --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Where it is, with the digest of its manifest: what `hook install` takes.
    pub reference: String,
    /// The digest of the module.
    pub digest: String,
    /// How its signature is attached: `referrer`, or `tag` where the registry keeps no referrers;
    /// absent if it is not signed.
    pub signature: Option<&'static str>,
}

/// What `stillpoint hook bundle --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The bundle.
    pub file: String,
    /// The digest of the module in it.
    pub digest: String,
    /// Whether a signature is in it.
    pub signed: bool,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorDocument {
    /// In which step, if in one.
    pub during: Option<String>,
    /// What failed.
    pub message: String,
    /// The chain of causes.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

/// What any command prints with `--json` if it fails before it did anything.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The exit status of the process.
    pub exit_code: u8,
    /// The state the machine is in now, in words.
    pub state: String,
    /// What went wrong.
    pub error: ErrorDocument,
}

/// What `stillpoint plan --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The level that the run can reach.
    pub level: Level,
    /// What would be frozen, what is left alone, what limits the level.
    pub plan: Plan,
    /// What would be quiesced, in order.
    pub hooks: Vec<String>,
}

/// What `stillpoint hook verify --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The component's digest.
    pub digest: String,
    /// The keys that signed it.
    pub signers: Vec<VerifiedSigner>,
}

/// A key that signed it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifiedSigner {
    /// The operator's name for it; absent if it was given with `--key`.
    pub name: Option<String>,
    /// Its id.
    pub id: String,
    /// The hooks that it may sign; absent if it was given with `--key`.
    pub hooks: Option<Vec<String>>,
    /// The day from which on nothing is installed with it, if there is one.
    pub expires: Option<String>,
}

impl From<&Report> for RunDocument {
    fn from(report: &Report) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            exit_code: report.exit_code as u8,
            level: Some(report.manifest.level),
            state: report.state.to_string(),
            error: None,
            problems: report.problems.clone(),
            steps: Vec::new(),
            manifest: Some(report.manifest.clone()),
        }
    }
}

impl From<&Failure> for RunDocument {
    fn from(failure: &Failure) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            exit_code: failure.exit_code() as u8,
            level: None,
            state: failure.state.to_string(),
            error: Some(ErrorDocument::of_failure(failure)),
            problems: failure.state.not_released.clone(),
            steps: failure.steps.clone(),
            manifest: None,
        }
    }
}

impl FailureDocument {
    /// For an error outside a run.
    #[must_use]
    pub fn new(exit_code: ExitCode, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            exit_code: exit_code as u8,
            state: "file systems running, nothing was touched".into(),
            error: ErrorDocument::new(error, hint),
        }
    }
}

impl ErrorDocument {
    /// Of a run that failed.
    #[must_use]
    pub fn of_failure(failure: &Failure) -> Self {
        Self {
            during: Some(failure.during.to_string()),
            ..Self::new(&failure.cause, failure.hint())
        }
    }

    /// Of an error outside a run.
    #[must_use]
    pub fn new(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { during: None, message: error.to_string(), causes: chain(error.source()), hint }
    }
}

fn chain(mut cause: Option<&(dyn std::error::Error + 'static)>) -> Vec<String> {
    let mut chain = Vec::new();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_written_out_and_means_the_same() {
        let odd = "a\u{9b}2J\u{202e}b\u{e0041}\u{1b}\u{200b}ä";
        let text = text(&serde_json::json!({ odd: [odd] })).unwrap();
        assert!(
            text.contains("ä")
                && !text.chars().any(|c| c != '\n' && crate::hook::text::is_hidden(c)),
            "{text}"
        );
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, serde_json::json!({ odd: [odd] }));
    }
}
