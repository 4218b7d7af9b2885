//! What a component says it was made with: its custom section `producers`, as tool chains write it.

use std::collections::BTreeSet;

use wasmparser::{KnownCustom, Parser, Payload, ProducersSectionReader};

use super::store::Tool;

/// The tools, over all modules of the component. What cannot be read is left out: it is for people.
pub(super) fn toolchain(component: &[u8]) -> Vec<Tool> {
    let mut tools = BTreeSet::new();
    for payload in Parser::new(0).parse_all(component) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        if let KnownCustom::Producers(producers) = section.as_known() {
            tools.extend(listed(producers));
        }
    }
    let tool = |(role, name, version)| Tool { role, name, version };
    tools.into_iter().map(tool).collect()
}

fn listed(producers: ProducersSectionReader<'_>) -> Vec<(String, String, String)> {
    let mut tools = Vec::new();
    for field in producers.into_iter().flatten() {
        for value in field.values.into_iter().flatten() {
            tools.push((field.name.to_owned(), value.name.to_owned(), value.version.to_owned()));
        }
    }
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with one core module that says: language Rust 1.95, processed by rustc and a linker.
    fn produced() -> Vec<u8> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let value = |name: &str, version: &str| [text(name), text(version)].concat();
        let fields = [
            text("language"),
            vec![1],
            value("Rust", "1.95"),
            text("processed-by"),
            vec![2],
            value("rustc", "1.95.0"),
            value("lld", ""),
        ]
        .concat();
        let section = [text("producers"), vec![2], fields].concat();
        let length = u8::try_from(section.len()).unwrap();
        let module = [b"\0asm\x01\0\0\0".to_vec(), vec![0, length], section].concat();
        let length = u8::try_from(module.len()).unwrap();
        [b"\0asm\x0d\0\x01\0".to_vec(), vec![1, length], module].concat()
    }

    #[test]
    fn what_tool_chains_wrote_is_told() {
        let told: Vec<_> = toolchain(&produced())
            .into_iter()
            .map(|tool| format!("{} {} {}", tool.role, tool.name, tool.version))
            .collect();
        assert_eq!(told, ["language Rust 1.95", "processed-by lld ", "processed-by rustc 1.95.0"]);
    }

    #[test]
    fn damaged_sections_are_left_out_and_end_nothing() {
        let whole = produced();
        for length in 0..whole.len() {
            toolchain(&whole[..length]);
        }
        assert!(toolchain(b"\0asm\x0d\0\x01\0").is_empty());
    }
}
