//! The child's side.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use super::answer::{self, Answer, Facts};
use super::confine::{Bounds, confine};
use crate::hook::component::{self, NotAHook};
use crate::hook::description::Need;
use crate::hook::engine::HookEngine;
use crate::hook::since_v0_1_0::{Ready, VERSION};
use crate::hook::store::LONGEST_COMPONENT;
use crate::hook::toolchain::toolchain;
use crate::hook::wasm::describe;
use crate::time::Deadline;

/// How long `describe` may take.
const DESCRIBE: Duration = Duration::from_secs(10);

/// Exit codes of the child, unlike any that a program gives by chance.
pub(super) const NOT_CONFINED: i32 = 83;
const NOT_TOLD: i32 = 84;

/// Gives up what it can, reads a component, compiles it, answers. Gives the exit code.
pub(crate) fn run() -> i32 {
    let confined = Bounds::from_arguments(std::env::args().skip(1)).and_then(confine);
    if let Err(error) = confined {
        complain(&error);
        return NOT_CONFINED;
    }
    let said = read_component().and_then(|component| {
        leave_with_the_parent()?;
        match compile(&component) {
            Ok((facts, image)) => tell(&Answer::Compiled(facts), &image),
            Err(refusal) => tell(&Answer::from(refusal), &[]),
        }
    });
    match said {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            NOT_TOLD
        }
    }
}

fn tell(answer: &Answer, image: &[u8]) -> io::Result<()> {
    answer::write(&mut io::stdout().lock(), answer, image)
}

fn complain(error: &io::Error) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{error}");
}

fn read_component() -> io::Result<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    let mut length = [0; 8];
    stdin.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_COMPONENT {
        return Err(io::Error::other("the component is too long"));
    }
    let mut component = Vec::new();
    stdin.take(length).read_to_end(&mut component)?;
    Ok(component)
}

/// Ends this process when the parent's end of standard input closes: nobody waits for the answer then.
#[expect(clippy::exit, reason = "the parent is gone; there is nobody to tell")]
fn leave_with_the_parent() -> io::Result<()> {
    let wait = || {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(NOT_TOLD);
    };
    thread::Builder::new().name("parent".into()).stack_size(64 << 10).spawn(wait).map(drop)
}

/// Checks, compiles, and asks. What the component is asked, it is asked on an instance without powers.
fn compile(bytes: &[u8]) -> Result<(Facts, Vec<u8>), NotAHook> {
    let engine = HookEngine::start().map_err(|error| NotAHook {
        problem: error.to_string(),
        hint: "report this with the component".into(),
    })?;
    let component = component::compile(engine.engine(), bytes)?;
    let wasi = component::wasi_imports(engine.engine(), &component);
    let ready =
        Ready::new(engine.engine(), &component, !wasi.is_empty()).map_err(|error| NotAHook {
            problem: format!("its imports or exports do not fit the contract: {error:#}"),
            hint: format!("build it against stillpoint:hook@{VERSION}, as it is in hooks-sdk/wit"),
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| NotAHook {
        problem: format!("no runtime to ask it: {error}"),
        hint: "report this with the component".into(),
    })?;
    let mut description = runtime
        .block_on(describe(&engine, &ready, Deadline::after(DESCRIBE)))
        .map_err(|(problem, hint)| NotAHook {
            problem: format!("its `describe` failed: {problem}"),
            hint: hint.unwrap_or_else(|| "report this to the hook's author".into()),
        })?;
    if !wasi.is_empty() {
        description.needs.push(Need::Wasi { imports: wasi });
    }
    let image = component.serialize().map_err(|error| NotAHook {
        problem: format!("its image cannot be made: {error:#}"),
        hint: "report this with the component".into(),
    })?;
    let imports = component::imports(engine.engine(), &component);
    let facts = Facts {
        engine: engine.hash().to_owned(),
        description,
        imports,
        toolchain: toolchain(bytes),
    };
    Ok((facts, image))
}
