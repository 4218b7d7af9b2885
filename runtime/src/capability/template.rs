//! A grant file to start from, written from what a component asks for.

use serde_json::Value;

use super::process::{ProgramAsk, find_program, grant_section};
use super::statement::{Placeholder, placeholders};
use crate::config::grants::{Limits, MOST_KV_BYTES};
use crate::hook::description::{Description, Need};
use crate::hook::digest::Digest;
use crate::hook::text::{clean, is_hidden};

/// So many parameters of a statement are written out: `$60000` is a short text.
const MOST_PARAMS: usize = 100;

/// A ready grant file for a component: everything that it asks for, each with its reason, for the
/// operator to read and to shorten. `targets` says for names that the component asks for which
/// connection of `connections.toml` is meant, where that has another name. Programs are looked for in
/// the usual directories.
#[must_use]
pub fn grant_template(
    description: &Description,
    digest: &Digest,
    targets: &[(String, String)],
) -> String {
    let Description { name, version, summary, .. } = description;
    let mut text = format!("# {name} {version}: {summary}\n");
    text.push_str("# What is not in this file is denied. Remove what you do not want to grant.\n");
    text.push_str(&format!("module = {}\n", quoted(&digest.to_string())));
    text.push_str("on-failure = \"abort\"          # abort | lower | skip\n");
    text.push_str("after = []                    # hooks that must be quiesced first\n");
    text.extend(description.needs.iter().filter_map(wasi));
    text.push_str("\n[settings]\n");
    text.push_str(&settings(&description.settings_schema));
    let (kv, others): (Vec<_>, Vec<_>) =
        description.needs.iter().partition(|need| matches!(need, Need::Kv { .. }));
    for section in others.into_iter().filter_map(|need| section(need, targets)) {
        text.push('\n');
        text.push_str(&section);
    }
    text.push_str(&kv_section(&kv));
    text.push_str(&limits());
    text
}

/// Not in a section: it belongs to the top of the file.
fn wasi(need: &Need) -> Option<String> {
    let Need::Wasi { imports } = need else { return None };
    Some(format!(
        "# it imports {} (required): this grants clocks, random numbers, output into\n# the log, exit; no files, no sockets\nwasi = \"minimal\"\n",
        imports.join(", ")
    ))
}

/// What there is to set, with its defaults, each as a comment.
fn settings(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let lines = properties.into_iter().flatten().map(|(key, property)| {
        let default = property.get("default").and_then(|value| toml::Value::try_from(value).ok());
        let default = default.map_or_else(|| "…".into(), |value| value.to_string());
        let what = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let line = format!("{} = {}", bare_or_quoted(key), clean(&default, 200));
        let what = clean(what, 200);
        if what.is_empty() { format!("# {line}\n") } else { format!("# {line:<38} # {what}\n") }
    });
    lines.collect()
}

fn kv_section(needs: &[&Need]) -> String {
    let most = needs.iter().map(|need| match need {
        Need::Kv { bytes, .. } => *bytes,
        _ => 0,
    });
    let Some(bytes) = most.max() else { return String::new() };
    let mut text = String::from("\n");
    for need in needs {
        if let Need::Kv { reason, required, .. } = need {
            text.push_str(&comment(&format!("{reason} ({})", must(*required))));
        }
    }
    let bytes = bytes.clamp(1, MOST_KV_BYTES);
    text.push_str(&format!(
        "[kv]\nbytes = {bytes:<21} # durable state: keys and values together\n"
    ));
    text
}

/// Every limit, with its default.
fn limits() -> String {
    let Limits {
        memory_bytes,
        cpu_time,
        calls,
        rows,
        answer_bytes,
        connections,
        statements,
        log_bytes,
    } = Limits::default();
    let lines = [
        (format!("memory-bytes = {memory_bytes}"), "of its instance"),
        (format!("cpu-time = \"{}s\"", cpu_time.as_secs()), "processor time in one phase"),
        (format!("calls = {calls}"), "calls of the host in one phase"),
        (format!("rows = {rows}"), "of one answer"),
        (format!("answer-bytes = {answer_bytes}"), "of one answer"),
        (format!("connections = {connections}"), "open at the same time"),
        (format!("statements = {statements}"), "in one run"),
        (format!("log-bytes = {log_bytes}"), "kept in memory"),
    ];
    let lines = lines.map(|(line, what)| format!("# {line:<27} # {what}\n"));
    format!("\n# [limits]                    # these are the defaults\n{}", lines.concat())
}

fn must(required: bool) -> &'static str {
    if required { "required" } else { "optional" }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

fn section(need: &Need, targets: &[(String, String)]) -> Option<String> {
    Some(match need {
        Need::Sql { connection, engines, statements, reason, required } => {
            let servers = if engines.is_empty() { "any server".into() } else { engines.join(", ") };
            let mut text = format!(
                "# {reason} ({servers}; {})\n[[sql]]\nconnection = {}\n",
                must(*required),
                quoted(connection)
            );
            match targets.iter().find(|(asked, _)| asked == connection) {
                Some((_, target)) => text.push_str(&format!("target = {}\n", quoted(target))),
                None => text.push_str(
                    "# target = \"…\"              # if connections.toml has another name for it\n",
                ),
            }
            text.push_str("statements = [\n");
            let style = placeholder_of(engines);
            for statement in statements {
                text.push_str(&format!("    {}\n", statement_line(statement, style)));
            }
            text.push_str("]\n");
            text
        }
        Need::Program { command, arguments, stdin_scripts, reason, required } => {
            let (stdin, required) = (stdin_scripts.as_slice(), *required);
            let ask = ProgramAsk { command, arguments, stdin, reason, required };
            grant_section(&ask, find_program(command).as_ref())
        }
        Need::Other { what } => {
            comment(&format!("asks for {what}, which this version does not know"))
        }
        // Elsewhere in the file.
        Need::Kv { .. } | Need::Wasi { .. } => return None,
    })
}

/// A hook's texts are in the words of the servers that it knows.
fn placeholder_of(engines: &[String]) -> Placeholder {
    match engines {
        [only] if only == "postgresql" => Placeholder::Numbered,
        _ => Placeholder::Question,
    }
}

/// One line of `statements`. The description does not say what types parameters have; `uint`
/// (time-outs, session ids) is what they mostly are, and a wrong type is denied, not sent.
pub(super) fn statement_line(statement: &str, style: Placeholder) -> String {
    match placeholders(statement, style) {
        0 => format!("{},", quoted(statement)),
        count => format!(
            "{{ text = {}, params = [{}] }},",
            quoted(statement),
            vec!["\"uint\""; count.min(MOST_PARAMS)].join(", ")
        ),
    }
}

fn comment(text: &str) -> String {
    format!("# {}\n", text.replace('\n', " "))
}

/// A TOML string on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Written out: what the operator reads is what is granted.
            hidden if is_hidden(hidden) => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(hidden)));
            }
            visible => quoted.push(visible),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::connections::Connections;
    use crate::config::grants::{HookGrant, KvGrant, Wasi};
    use crate::paths::Paths;

    #[test]
    fn the_template_is_a_grant_file_that_grants_what_is_asked() {
        let odd = "SELECT \"a\\\" FROM `t`\n\u{1}\u{200b}\u{e0041}";
        let description = Description {
            name: "db".into(),
            version: "1.0".into(),
            summary: "locks".into(),
            settings_schema:
                r#"{"properties":{"wait":{"default":5,"description":"how\nlong"},"od d":{}}}"#
                    .into(),
            needs: vec![
                Need::Wasi { imports: vec!["wasi:cli/stdout@0.2.0".into()] },
                Need::Sql {
                    connection: "main".into(),
                    engines: vec!["mysql".into(), "mariadb".into()],
                    statements: vec![odd.into(), "KILL ?".into()],
                    reason: "to hold still".into(),
                    required: true,
                },
                Need::Kv { bytes: 10, reason: "to remember".into(), required: false },
                Need::Kv { bytes: u32::MAX, reason: "to remember all".into(), required: true },
            ],
            freeze_budget_ms: 0,
        };
        let digest = Digest::of(b"module");
        let text = grant_template(&description, &digest, &[]);
        assert!(text.contains("# to hold still (mysql, mariadb; required)\n[[sql]]"), "{text}");

        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.grants()).unwrap();
        let connections = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n";
        std::fs::write(paths.config().join("connections.toml"), connections).unwrap();
        let file = paths.grants().join("db.toml");
        std::fs::write(&file, &text).unwrap();
        let grant = HookGrant::load(&file, &Connections::load(&paths).unwrap()).unwrap();
        assert_eq!(grant.module, digest);
        let granted: Vec<_> = grant.sql["main"].statements.values().collect();
        assert!(granted.iter().any(|statement| statement.text == odd));
        assert!(granted.iter().any(|statement| statement.params.len() == 1));
        assert_eq!(grant.kv, Some(KvGrant { bytes: MOST_KV_BYTES }));
        assert_eq!(grant.wasi, Wasi::Minimal);
        assert_eq!(grant.limits, Limits::default());
        for line in [
            "# to remember (optional)\n# to remember all (required)\n[kv]\n",
            "# it imports wasi:cli/stdout@0.2.0 (required)",
            "# wait = 5                               # how long\n",
            "# \"od d\" = …\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }

        // What is commented out can be put in.
        let limits = text.split_once("# [limits]").unwrap().1.replace("\n# ", "\n");
        std::fs::write(&file, format!("{text}[limits]{limits}")).unwrap();
        let grant = HookGrant::load(&file, &Connections::load(&paths).unwrap()).unwrap();
        assert_eq!(grant.limits, Limits::default());
    }
}
