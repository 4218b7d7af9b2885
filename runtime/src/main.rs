//! The `stillpoint` command: parse, call the library, turn the outcome into an exit code.

mod cli;

fn main() -> std::process::ExitCode {
    stillpoint::guard::enter();
    cli::main().into()
}
