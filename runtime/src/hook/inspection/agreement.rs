//! What a hook asks for beside what the operator grants. Pure: it compares two texts as the host calls
//! will, and touches nothing.

use schemars::JsonSchema;
use serde::Serialize;

use crate::capability::process::Arguments;
use crate::capability::statement::fold;
use crate::config::grants::{HookGrant, ProgramGrant, SqlGrant, Wasi};
use crate::hook::description::{Description, Need};

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The hook asks for it and the operator grants it: it gets it.
    Granted,
    /// The hook asks for it and the operator does not grant it: refused.
    NotGranted,
    /// The operator grants it and the hook does not ask for it: refused.
    NotAsked,
}

/// One power, by the name that the hook uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Of which kind.
    pub kind: PowerKind,
    /// The hook's name for it: of a connection, of a program; empty for the others.
    pub name: String,
    /// What it is in this installation: the connection of `connections.toml`, a program's path and user,
    /// bytes of durable state.
    pub target: Option<String>,
    /// Why the hook wants it, in its own words.
    pub reason: String,
    /// The hook cannot work without.
    pub required: bool,
    /// What becomes of it.
    pub standing: Standing,
    /// What may be done with it.
    pub items: Vec<Item>,
}

/// Kinds of powers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerKind {
    /// A connection to a database.
    Sql,
    /// A program.
    Program,
    /// Durable state.
    Kv,
    /// The minimal part of WASI.
    Wasi,
    /// Something that this version does not know.
    Other,
}

/// One thing that may be done with a power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Of which kind.
    pub kind: ItemKind,
    /// The statement, the arguments (as JSON), the script, the interface.
    pub text: String,
    /// What becomes of it.
    pub standing: Standing,
}

/// Kinds of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    /// A statement.
    Statement,
    /// A list of arguments.
    Arguments,
    /// A text on standard input.
    Stdin,
    /// An interface of WASI.
    Import,
}

/// What a hook asks for, then what it is granted without asking.
pub(super) fn powers(description: &Description, grant: Option<&HookGrant>) -> Vec<Power> {
    let mut powers: Vec<Power> = Vec::new();
    for need in &description.needs {
        let power = asked(need, grant);
        // What a hook asks for in two parts is one power.
        match powers.iter_mut().find(|known| known.kind == power.kind && known.name == power.name) {
            Some(known) if power.kind != PowerKind::Other => {
                known.items.extend(power.items);
                known.required |= power.required;
            }
            _ => powers.push(power),
        }
    }
    if let Some(grant) = grant {
        add_not_asked(&mut powers, grant);
    }
    powers
}

fn standing(is_granted: bool) -> Standing {
    if is_granted { Standing::Granted } else { Standing::NotGranted }
}

fn asked(need: &Need, grant: Option<&HookGrant>) -> Power {
    match need {
        Need::Sql { connection, statements, reason, required, .. } => {
            let sql = grant.and_then(|grant| grant.sql.get(connection));
            let has = |text: &str| sql.is_some_and(|sql| sql.statements.contains_key(&fold(text)));
            let item = |text: &String| Item::new(ItemKind::Statement, text, standing(has(text)));
            Power {
                kind: PowerKind::Sql,
                name: connection.clone(),
                target: sql.map(target_of_sql),
                reason: reason.clone(),
                required: *required,
                standing: standing(sql.is_some()),
                items: statements.iter().map(item).collect(),
            }
        }
        Need::Program { command, arguments, stdin_scripts, reason, required } => {
            let program = grant.and_then(|grant| grant.programs.get(command));
            let runs = |words: &Vec<String>| {
                let granted = program.is_some_and(|program| grants_words(program, words));
                Item::new(ItemKind::Arguments, &line(words), standing(granted))
            };
            let reads = |text: &String| {
                let granted = program.is_some_and(|program| program.stdin.contains(text));
                Item::new(ItemKind::Stdin, text, standing(granted))
            };
            Power {
                kind: PowerKind::Program,
                name: command.clone(),
                target: program.map(target_of_program),
                reason: reason.clone(),
                required: *required,
                standing: standing(program.is_some()),
                items: arguments.iter().map(runs).chain(stdin_scripts.iter().map(reads)).collect(),
            }
        }
        Need::Kv { bytes, reason, required } => {
            let kv = grant.and_then(|grant| grant.kv);
            let target = match kv {
                Some(kv) if kv.bytes < *bytes => {
                    format!("{} of the {bytes} bytes that it asks for", kv.bytes)
                }
                _ => format!("{bytes} bytes"),
            };
            Power {
                target: Some(target),
                required: *required,
                ..Power::plain(PowerKind::Kv, reason, standing(kv.is_some()))
            }
        }
        Need::Wasi { imports } => {
            let standing = standing(grant.is_some_and(|grant| grant.wasi == Wasi::Minimal));
            let item = |text: &String| Item::new(ItemKind::Import, text, standing);
            Power {
                required: true,
                items: imports.iter().map(item).collect(),
                ..Power::plain(PowerKind::Wasi, "it imports it", standing)
            }
        }
        Need::Other { what } => Power::plain(PowerKind::Other, what, Standing::NotGranted),
    }
}

fn add_not_asked(powers: &mut Vec<Power>, grant: &HookGrant) {
    for (name, sql) in &grant.sql {
        let power = named(powers, PowerKind::Sql, name, || target_of_sql(sql));
        let asked: Vec<_> = power.items.iter().map(|item| fold(&item.text)).collect();
        let more = sql.statements.iter().filter(|(folded, _)| !asked.contains(folded));
        power
            .items
            .extend(more.map(|(_, granted)| Item::not_asked(ItemKind::Statement, &granted.text)));
    }
    for (name, program) in &grant.programs {
        let power = named(powers, PowerKind::Program, name, || target_of_program(program));
        let asked = power.items.clone();
        let was_asked = |kind: ItemKind, text: &str| {
            asked.iter().any(|item| {
                item.kind == kind
                    && (item.text == text
                        || kind == ItemKind::Arguments && overlap(&item.text, text))
            })
        };
        let lists = program.arguments.iter().map(|list| (ItemKind::Arguments, line(&list.words())));
        let texts = program.stdin.iter().map(|text| (ItemKind::Stdin, text.clone()));
        for (kind, text) in lists.chain(texts) {
            if !was_asked(kind, &text) {
                power.items.push(Item::not_asked(kind, &text));
            }
        }
    }
    if let Some(kv) = grant.kv {
        named(powers, PowerKind::Kv, "", || format!("{} bytes", kv.bytes));
    }
    if grant.wasi == Wasi::Minimal {
        named(powers, PowerKind::Wasi, "", || "minimal".into());
    }
}

/// The power of that name, or a new one that the hook does not ask for.
fn named<'a>(
    powers: &'a mut Vec<Power>,
    kind: PowerKind,
    name: &str,
    target: impl FnOnce() -> String,
) -> &'a mut Power {
    let known = powers.iter().position(|power| power.kind == kind && power.name == name);
    let index = known.unwrap_or_else(|| {
        powers.push(Power {
            name: name.to_owned(),
            target: Some(target()),
            ..Power::plain(kind, "", Standing::NotAsked)
        });
        powers.len() - 1
    });
    &mut powers[index]
}

fn target_of_sql(sql: &SqlGrant) -> String {
    sql.target.clone()
}

fn target_of_program(program: &ProgramGrant) -> String {
    format!("{} as {}", program.path.display(), program.user.name)
}

/// An argument list on one line: as the grant file has it, in JSON.
fn line(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

/// True if what the hook asks for, or a part of it, is granted.
fn grants_words(program: &ProgramGrant, asked: &[String]) -> bool {
    program.arguments.iter().any(|granted| agree(granted, &granted.words(), asked))
}

fn overlap(one: &str, other: &str) -> bool {
    let words = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
    let (one, other) = (words(one), words(other));
    Arguments::parse(&one).is_ok_and(|list| agree(&list, &one, &other))
}

/// Two lists agree on something if they are the same, or one is a case of the other.
fn agree(one: &Arguments, one_words: &[String], other: &[String]) -> bool {
    one.matches(other)
        || Arguments::parse(other).is_ok_and(|other| other == *one || other.matches(one_words))
}

impl Power {
    fn plain(kind: PowerKind, reason: &str, standing: Standing) -> Self {
        Self {
            kind,
            name: String::new(),
            target: None,
            reason: reason.to_owned(),
            required: false,
            standing,
            items: Vec::new(),
        }
    }
}

impl Item {
    fn new(kind: ItemKind, text: &str, standing: Standing) -> Self {
        Self { kind, text: text.to_owned(), standing }
    }

    fn not_asked(kind: ItemKind, text: &str) -> Self {
        Self::new(kind, text, Standing::NotAsked)
    }
}
