//! What the child says: 8 bytes with the length of a JSON text, the text, and then the image. All of it
//! is taken for what a stranger wrote: bounded, checked, cleaned.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::CompileError;
use crate::hook::component::NotAHook;
use crate::hook::description::Description;
use crate::hook::store::Tool;
use crate::hook::text::clean;

/// The longest JSON text, in bytes.
const LONGEST_TEXT: u64 = 4 << 20;

/// Most names of imports and of tools that are kept.
const MOST_NAMES: usize = 256;

/// What a component is, as the child found out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::hook) struct Facts {
    /// The engine that the image is for.
    pub(in crate::hook) engine: String,
    /// What it says about itself.
    pub(in crate::hook) description: Description,
    /// What it imports.
    pub(in crate::hook) imports: Vec<String>,
    /// What it was made with.
    pub(in crate::hook) toolchain: Vec<Tool>,
}

/// The JSON text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The image follows.
    Compiled(Facts),
    /// Nothing follows.
    Refused { problem: String, hint: String },
}

impl From<NotAHook> for Answer {
    fn from(NotAHook { problem, hint }: NotAHook) -> Self {
        Answer::Refused { problem, hint }
    }
}

/// Writes an answer.
pub(super) fn write(out: &mut impl Write, answer: &Answer, image: &[u8]) -> io::Result<()> {
    let text = serde_json::to_vec(answer)?;
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    out.write_all(image)?;
    out.flush()
}

/// Reads an answer: what the component is, and the image, which is the rest.
pub(super) fn read(mut bytes: Vec<u8>) -> Result<(Facts, Vec<u8>), CompileError> {
    let wrong = |what: &str| CompileError::Answer(what.to_owned());
    let head = bytes.first_chunk().ok_or_else(|| wrong("it was cut short"))?;
    let length = u64::from_le_bytes(*head);
    let end = usize::try_from(length).ok().filter(|_| length <= LONGEST_TEXT).map(|n| n + 8);
    let text = end.and_then(|end| bytes.get(8..end)).ok_or_else(|| wrong("it was cut short"))?;
    let answer: Answer = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
    match answer {
        Answer::Refused { problem, hint } => {
            Err(CompileError::Refused { problem: clean(&problem, 2000), hint: clean(&hint, 2000) })
        }
        Answer::Compiled(facts) => {
            let image = bytes.split_off(8 + text.len());
            Ok((facts.checked()?, image))
        }
    }
}

impl Facts {
    fn checked(self) -> Result<Self, CompileError> {
        let name = |text: &String| clean(text, 200);
        let description = self.description.checked().map_err(CompileError::Answer)?;
        let imports = self.imports.iter().take(MOST_NAMES).map(name).collect();
        let tool = |tool: &Tool| Tool {
            role: name(&tool.role),
            name: name(&tool.name),
            version: name(&tool.version),
        };
        let toolchain = self.toolchain.iter().take(MOST_NAMES).map(tool).collect();
        Ok(Self { description, imports, toolchain, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str) -> Facts {
        Facts {
            engine: "0123".into(),
            description: Description {
                name: name.into(),
                version: "1.0.0".into(),
                summary: String::new(),
                settings_schema: String::new(),
                needs: Vec::new(),
                freeze_budget_ms: 0,
            },
            imports: vec!["a\u{1b}[31mb".into()],
            toolchain: Vec::new(),
        }
    }

    fn written(answer: &Answer, image: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, answer, image).unwrap();
        bytes
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_cleaned() {
        let (facts, image) = read(written(&Answer::Compiled(facts("db")), b"image")).unwrap();
        assert_eq!((facts.description.name.as_str(), &image[..]), ("db", &b"image"[..]));
        assert_eq!(facts.imports, ["ab"]);
    }

    #[test]
    fn what_a_compromised_compiler_may_say_is_refused() {
        let whole = written(&Answer::Compiled(facts("db")), b"");
        for length in 0..whole.len() {
            let cut = read(whole[..length].to_vec());
            assert!(matches!(cut, Err(CompileError::Answer(_))), "{length}");
        }
        let liar = written(&Answer::Compiled(facts("../db")), b"");
        assert!(matches!(read(liar), Err(CompileError::Answer(_))));
        let endless = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
        assert!(matches!(read(endless), Err(CompileError::Answer(_))));
    }
}
