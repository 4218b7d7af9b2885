//! `stillpoint hook new`.

use std::path::PathBuf;

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::scaffold::{self, LANGUAGES, ScaffoldError};

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json};
use super::args::New;

/// Writes the project, and says what to type next.
pub fn run(global: &Global, args: &New) -> Outcome {
    if args.lang == "help" {
        let names: Vec<&str> = LANGUAGES.iter().map(|language| language.name).collect();
        print(&format!("{}\n", names.join("\n")));
        return Ok(ExitCode::Ok);
    }
    let language = scaffold::language(&args.lang).map_err(refused)?;
    let directory = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = scaffold::create(language, &args.name, &directory).map_err(refused)?;
    if global.json {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        print_json(&serde_json::json!({
            "schema_version": stillpoint::output::json::SCHEMA_VERSION,
            "name": args.name,
            "language": language.name,
            "directory": directory.display().to_string(),
            "files": files,
        }));
        return Ok(ExitCode::Ok);
    }
    let of_sdk = |file: &&PathBuf| language.sdk.iter().any(|(_, to)| file.starts_with(top(to)));
    let own = files.iter().filter(|file| !of_sdk(file));
    let mut text = format!("{}\n", directory.display());
    own.for_each(|file| text.push_str(&format!("  {}\n", file.display())));
    if let Some(note) = language.note {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!("next: cd {} && {}\n", directory.display(), language.test));
    text.push_str("then: stillpoint hook build\n");
    print(&text);
    Ok(ExitCode::Ok)
}

/// The first directory of a path: `sdk` of `sdk/src`.
fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn refused(error: ScaffoldError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}
