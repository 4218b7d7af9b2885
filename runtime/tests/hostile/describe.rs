//! What a component says about itself: kept clean and bounded, the same each time, or refused.

use super::common::{Installation, request};
use super::{Refused, Table, guest, guest_that_describes, play, run, whole_life};
use stillpoint::capability::grant_template;

const FAMILY: &str = "what `describe` says and does";

/// What the guest does there, and what is in the words that refuse it.
const REFUSED: &[(&str, &str)] = &[
    ("panic", "`describe` failed"),
    ("loop", "instance was stopped"),
    ("eat", "memory"),
    ("recurse", "trapped"),
    ("sleep", "called the host in `describe`"),
    ("log", "called the host in `describe`"),
    ("clock", "called the host in `describe`"),
    ("open", "called the host in `describe`"),
    ("escape-name", "it calls itself"),
    ("path-name", "it calls itself"),
    ("long-name", "are the most"),
    ("escape-version", "its version is"),
    ("long-summary", "are the most"),
    ("escape-statement", "hidden characters"),
    ("hidden-statement", "hidden characters"),
    ("bidi-statement", "hidden characters"),
    ("nul-statement", "hidden characters"),
    ("many-statements", "are the most"),
    ("long-statement", "are the most"),
    ("many-needs", "`describe`"),
    ("escape-connection", "a name has"),
    ("path-connection", "a name has"),
    ("escape-program", "a name has"),
    ("escape-argument", ""),
    ("no-schema", "settings schema"),
    ("deep-schema", "settings schema"),
    ("long-schema", "are the most"),
];

/// What is kept, but cleaned: nothing of it may reach a terminal or break out of a comment.
const CLEANED: &[&str] = &["escape-summary", "escape-reason", "escape-other"];

pub async fn attack(table: &mut Table) {
    for (mode, expected) in REFUSED {
        let bytes = guest_that_describes(mode);
        table.attack(FAMILY, mode, expected, whole_life(&bytes)).await;
    }
    for mode in CLEANED {
        table.count(FAMILY, mode, cleaned(mode).await);
    }
    table.count(FAMILY, "asks for more than the record says", differs_later().await);
    table.attack(FAMILY, "another answer at the second call", "", second_call()).await;
}

/// The record, and the grant template made from it, have nothing hidden, and the template's comments
/// stay comments.
async fn cleaned(mode: &str) -> Result<(), String> {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", &guest_that_describes(mode));
    let installed =
        installation.store.install(request(&file)).await.map_err(|error| error.to_string())?;
    let template = grant_template(&installed.description, &installed.digest, &[]);
    let record = serde_json::to_string(&installed).map_err(|error| error.to_string())?;
    for text in [template.replace('\n', ""), record] {
        if let Some(odd) = text.chars().find(|&c| super::table::is_hidden(c)) {
            return Err(format!("{odd:?} is kept"));
        }
    }
    match template.lines().find(|line| line.starts_with("state:")) {
        Some(_) => Err("a comment has a line of its own".into()),
        None => Ok(()),
    }
}

/// A record that says less than the component asks for now, as after an attack on the record of
/// another version: what runs is what was recorded, or nothing.
async fn differs_later() -> Result<(), String> {
    let installation = Installation::new();
    let digest = installation.install(guest()).await;
    let record = installation.paths.hooks().join(format!("{}.json", digest.hex()));
    let text = std::fs::read_to_string(&record).map_err(|error| error.to_string())?;
    let less = text.replace("DROP TABLE test.t", "SELECT 2");
    assert_ne!(less, text);
    std::fs::write(&record, less).map_err(|error| error.to_string())?;
    installation.grant("attacker", &digest, &[], "");
    match installation.load("attacker", &run()).await {
        Err(error) if error.to_string().contains("describe") => Ok(()),
        Err(error) => Err(format!("refused, but not for that: {error}")),
        Ok(_) => Err("it was loaded".into()),
    }
}

/// Behaves at its first call, and is another hook at its second.
async fn second_call() -> Result<(), Refused> {
    // Every call has an instance of its own, so a second call is never seen: the hook stays what it
    // said first, whatever it would like to be.
    let installation = Installation::new();
    let file = installation.file("hook.wasm", &guest_that_describes("second-call"));
    let installed = installation.store.install(request(&file)).await?;
    installation.grant("attacker", &installed.digest, &[], "");
    let run = run();
    let mut hook = installation.load("attacker", &run).await?;
    play(&mut *hook, &run).await?;
    assert_eq!(installed.description.name, "hostile");
    Err(Refused { words: "each call has an instance of its own; its state is never seen".into() })
}
