//! Arguments of `stillpoint hook …`, exactly as they are typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Begin a hook: a project that works, in a language of yours
    New(New),
    /// Build a project, with its language's own tools, into a component that is checked as at installation
    Build(Build),
    /// Check a component, compile it here, and keep it
    Install(Install),
    /// Put a component and its signature into a registry
    Push(Push),
    /// Put a component, its signature, its grant template and a README into one file
    Bundle(Bundle),
    /// Print a ready grant file with all that a hook asks for, and why
    Grant(Grant),
    /// Test a component: against a script, a recording or real servers, or against all that can go wrong
    Test(Test),
    /// List installed hooks
    List,
    /// Show what a hook is, asks for, and is granted
    Inspect {
        /// Name or digest of an installed hook, or a .wasm file
        hook: String,
    },
    /// Make a key pair to sign components with, in minisign's format (as `minisign -G`)
    Keygen(Keygen),
    /// Sign a component: writes FILE.minisig, as `minisign -S` does
    Sign(Sign),
    /// Say which trusted key has signed a component (as `minisign -V` for one key)
    Verify(Verify),
    /// Remove an installed hook
    Remove {
        /// Name or digest
        hook: String,
    },
}

impl HookCommand {
    /// Touches no installation.
    pub fn is_for_anybody(&self) -> bool {
        matches!(
            self,
            HookCommand::Keygen(_)
                | HookCommand::New(_)
                | HookCommand::Build(_)
                | HookCommand::Sign(_)
                | HookCommand::Verify(_)
                | HookCommand::Push(_)
                | HookCommand::Bundle(_)
        )
    }
}

#[derive(Debug, Args)]
pub struct New {
    /// Its name: lower-case letters, digits and `-`
    pub name: String,
    /// Its language; `--lang help` lists them
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: String,
    /// Where the project goes; default ./NAME
    #[arg(long, value_name = "DIRECTORY")]
    pub path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The project's directory, or a module or component that was built already
    #[arg(value_name = "DIRECTORY|FILE", default_value = ".")]
    pub project: PathBuf,
    /// Where the component goes; default NAME.wasm in the project, by the name that it calls itself
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Answer calls of WASI inside the component: nothing is printed, no time passes, nothing is random
    #[arg(long)]
    pub stub_wasi: bool,
}

#[derive(Debug, Args)]
pub struct Install {
    /// The component: a .wasm file, a .bundle, or oci://REGISTRY/REPOSITORY:TAG[@sha256:…]
    #[arg(value_name = "FILE|REFERENCE")]
    pub source: PathBuf,
    /// Its signature, for a .wasm file; without this, FILE.minisig is looked for
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Install it although no trusted key has signed it for its name: recorded, and told in every manifest
    #[arg(long)]
    pub allow_unsigned: bool,
    /// Install a lower version than was ever installed under that name, or another component of the same version
    #[arg(long)]
    pub downgrade: bool,
    #[command(flatten)]
    pub registry: Registry,
}

#[derive(Debug, Args)]
pub struct Push {
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    pub module: PathBuf,
    /// Where to: oci://REGISTRY/REPOSITORY:TAG
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// Its signature; without this, FILE.minisig is looked for
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    #[command(flatten)]
    pub registry: Registry,
}

/// Registries want names and passwords: those of `docker login` are used.
#[derive(Debug, Args)]
pub struct Registry {
    /// Trust this authority as well: the certificate, in PEM, that signed the registry's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Talk to a registry on another machine without TLS; never with a password
    #[arg(long)]
    pub plain_http: bool,
}

#[derive(Debug, Args)]
pub struct Bundle {
    /// The component: a .wasm file, or name or digest of an installed hook
    #[arg(value_name = "FILE|HOOK")]
    pub hook: PathBuf,
    /// Where the bundle goes; default NAME-VERSION.bundle
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Its signature, for a .wasm file; without this, FILE.minisig is looked for
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// A text of its author's for the README
    #[arg(long, value_name = "FILE")]
    pub readme: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Keygen {
    /// Where the secret half goes; a new file, mode 0600
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// Where the public half goes
    #[arg(long, value_name = "FILE")]
    pub public: PathBuf,
    /// The password that encrypts the secret half, on the first line of a file; else it is asked for
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    pub password_file: Option<PathBuf>,
    /// Do not encrypt the secret half
    #[arg(long)]
    pub no_password: bool,
}

#[derive(Debug, Args)]
pub struct Sign {
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    pub module: PathBuf,
    /// The secret key, made with `hook keygen` or `minisign -G`; if it is encrypted, its password is asked for
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Its password, on the first line of a file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where the signature goes; default FILE.minisig
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    pub module: PathBuf,
    /// Its signature; default FILE.minisig
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// A public key; default those of keys.d, without the expired and the revoked ones
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Test {
    /// The component, a .wasm file
    #[arg(value_name = "FILE")]
    pub component: PathBuf,
    /// Run it against this script: settings, expected calls, and what is answered (docs/hook-test.md)
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Run it against this recording: each call must be as it was
    #[arg(long, value_name = "FILE", conflicts_with = "script")]
    pub replay: Option<PathBuf>,
    /// Run it once against the real servers of connections.toml, and write every call and answer
    #[arg(long, value_name = "FILE", conflicts_with_all = ["script", "replay", "conformance"])]
    pub record: Option<PathBuf>,
    /// Make everything go wrong, one at a time, at every call; against the script or recording, else against the real servers
    #[arg(long)]
    pub conformance: bool,
    /// The grant file to test with, and its settings; without one, all that the hook asks for is granted, but programs, whose paths only an operator knows
    #[arg(long, value_name = "FILE")]
    pub grant: Option<PathBuf>,
    /// Without a grant file: the hook's settings, as in [settings], in a TOML file
    #[arg(long, value_name = "FILE", conflicts_with = "grant")]
    pub settings: Option<PathBuf>,
    /// Without a grant file: where the hook's connection goes, NAME=CONNECTION of connections.toml (repeat for more)
    #[arg(long = "connection", value_name = "NAME=CONNECTION", conflicts_with_all = ["script", "replay", "grant"])]
    pub connections: Vec<String>,
    /// How long each phase may take; default 5s, or as the script says
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
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
