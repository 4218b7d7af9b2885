//! Arguments of `stillpoint hook …`, exactly as they are typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Check a component, compile it here, and keep it
    Install(Install),
    /// Print a ready grant file with all that a hook asks for, and why
    Grant(Grant),
    /// List installed hooks
    List,
    /// Show what a hook is, asks for, and is granted
    Inspect {
        /// Name or digest of an installed hook, or a .wasm file
        hook: String,
    },
    /// Remove an installed hook
    Remove {
        /// Name or digest
        hook: String,
    },
}

#[derive(Debug, Args)]
pub struct Install {
    /// The component, a .wasm file
    pub file: PathBuf,
    /// Its signature; without this, FILE.minisig is looked for
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Install it although no trusted key has signed it for its name: recorded, and told in every manifest
    #[arg(long)]
    pub allow_unsigned: bool,
    /// Install a lower version than was ever installed under that name, or another component of the same version
    #[arg(long)]
    pub downgrade: bool,
}

#[derive(Debug, Args)]
pub struct Grant {
    /// Name or digest of an installed hook
    pub hook: String,
    /// Write it to hooks.d instead of printing it: grants everything that the hook asks for
    #[arg(long)]
    pub accept: bool,
    /// Where the hook's connection goes: NAME=CONNECTION of connections.toml (repeat for more)
    #[arg(long = "connection", value_name = "NAME=CONNECTION")]
    pub connections: Vec<String>,
}
