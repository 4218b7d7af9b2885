//! What is made from the arguments themselves: completions and the manual page.

use clap::CommandFactory;
use stillpoint::exit_code::ExitCode;

use super::args::Cli;
use super::{CommandError, Outcome};

/// A completion script for `shell`, on standard output.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    clap_complete::generate(shell, &mut Cli::command(), "stillpoint", &mut std::io::stdout());
    Ok(ExitCode::Ok)
}

/// The manual page: the command itself, and each of its commands.
pub fn man() -> Outcome {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
            .try_for_each(|sub| clap_mangen::Man::new(sub.clone()).render(&mut page))
    });
    rendered.map_err(|error| CommandError::new(ExitCode::Unknown, error))?;
    super::print(&String::from_utf8_lossy(&page));
    Ok(ExitCode::Ok)
}
