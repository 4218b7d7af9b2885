//! A grant file to start from, written from what a component asks for.

use super::process::{ProgramAsk, find_program, grant_section};
use super::statement::placeholders;
use crate::hook::description::{Description, Need};
use crate::hook::digest::Digest;
use crate::hook::text::is_hidden;

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
    text.push_str("\n[settings]\n");
    for need in &description.needs {
        text.push('\n');
        text.push_str(&section(need, targets));
    }
    text
}

fn section(need: &Need, targets: &[(String, String)]) -> String {
    match need {
        Need::Sql { connection, engines, statements, reason, required } => {
            let servers = if engines.is_empty() { "any server".into() } else { engines.join(", ") };
            let mut text = format!(
                "# {reason} ({servers}; {})\n[[sql]]\nconnection = {}\n",
                if *required { "required" } else { "optional" },
                quoted(connection)
            );
            match targets.iter().find(|(asked, _)| asked == connection) {
                Some((_, target)) => text.push_str(&format!("target = {}\n", quoted(target))),
                None => text.push_str(
                    "# target = \"…\"              # if connections.toml has another name for it\n",
                ),
            }
            text.push_str("statements = [\n");
            for statement in statements {
                text.push_str(&format!("    {}\n", statement_line(statement)));
            }
            text.push_str("]\n");
            text
        }
        Need::Program { command, arguments, stdin_scripts, reason, required } => {
            let (stdin, required) = (stdin_scripts.as_slice(), *required);
            let ask = ProgramAsk { command, arguments, stdin, reason, required };
            grant_section(&ask, find_program(command).as_deref())
        }
        Need::Kv { bytes, reason, .. } => {
            comment(&format!("asks for {bytes} bytes of durable state, not served yet: {reason}"))
        }
        Need::Other { what } => {
            comment(&format!("asks for {what}, which this version does not know"))
        }
    }
}

/// One line of `statements`. The description does not say what types parameters have; `uint`
/// (time-outs, session ids) is what they mostly are, and a wrong type is denied, not sent.
pub(super) fn statement_line(statement: &str) -> String {
    match placeholders(statement) {
        0 => format!("{},", quoted(statement)),
        count => format!(
            "{{ text = {}, params = [{}] }},",
            quoted(statement),
            vec!["\"uint\""; count].join(", ")
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
    use crate::config::grants::HookGrant;
    use crate::paths::Paths;

    #[test]
    fn the_template_is_a_grant_file_that_grants_what_is_asked() {
        let odd = "SELECT \"a\\\" FROM `t`\n\u{1}\u{200b}\u{e0041}";
        let description = Description {
            name: "db".into(),
            version: "1.0".into(),
            summary: "locks".into(),
            settings_schema: String::new(),
            needs: vec![
                Need::Sql {
                    connection: "main".into(),
                    engines: vec!["mysql".into(), "mariadb".into()],
                    statements: vec![odd.into(), "KILL ?".into()],
                    reason: "to hold still".into(),
                    required: true,
                },
                Need::Kv { bytes: 10, reason: "to remember".into(), required: false },
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
    }
}
