//! The parent's side: start the child, give it the component, take its answer, and end it in time.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::time::timeout;

use super::worker::NOT_CONFINED;
use super::{CompileError, CompileLimits, Compiled, answer};
use crate::hook::text::clean;

/// The longest answer, in bytes: an image is two to three times its component.
pub(super) const LONGEST_ANSWER: u64 = 1 << 30;

/// The longest that the child may say on standard error and be heard, in bytes.
const LONGEST_COMPLAINT: u64 = 64 << 10;

/// Has a child compile `component`. Whatever the child does, this returns by the time limit, and the
/// child is gone then.
pub(super) async fn with_child(
    mut command: Command,
    component: &[u8],
    limits: CompileLimits,
) -> Result<Compiled, CompileError> {
    let program = command.get_program().into();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CompileError::Start { program, source })?;
    let talked = timeout(limits.time, talk(&mut child, component)).await;
    if talked.is_err() {
        let _ = child.kill().await;
    }
    let (status, said, complaint) =
        talked.map_err(|_| CompileError::TooSlow { limit: limits.time })??;
    if status.success() {
        let (facts, image) = answer::read(said).map_err(|error| too_big_or(error, limits))?;
        return Ok(Compiled { facts, image });
    }
    Err(death(status, &complaint, limits))
}

/// Gives and takes at the same time, so that neither side waits for the other for ever.
async fn talk(
    child: &mut Child,
    component: &[u8],
) -> Result<(ExitStatus, Vec<u8>, String), CompileError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (stdin, said, complaint) = tokio::join!(
        give(stdin, component),
        take(stdout, LONGEST_ANSWER),
        take(stderr, LONGEST_COMPLAINT),
    );
    let status = child.wait().await.map_err(|error| CompileError::Answer(error.to_string()))?;
    // Until here: its end tells the child that nobody waits for it any more.
    drop(stdin);
    Ok((status, said, String::from_utf8_lossy(&complaint).into_owned()))
}

/// A child that died reads nothing more; how it ended says why.
async fn give(stdin: Option<ChildStdin>, component: &[u8]) -> Option<ChildStdin> {
    let mut stdin = stdin?;
    let length = (component.len() as u64).to_le_bytes();
    let _ = stdin.write_all(&length).await;
    let _ = stdin.write_all(component).await;
    Some(stdin)
}

/// At most `longest` bytes; then the stream is closed, and whoever still writes is told so.
async fn take(stream: Option<impl AsyncRead + Unpin>, longest: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(longest).read_to_end(&mut bytes).await;
    }
    bytes
}

fn death(status: ExitStatus, complaint: &str, limits: CompileLimits) -> CompileError {
    let last = complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let last = clean(last, 300);
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU), _) => CompileError::TooSlow { limit: limits.processor_time },
        _ if is_about_memory(complaint) => {
            CompileError::TooBig { limit_bytes: limits.memory_bytes }
        }
        (_, Some(NOT_CONFINED)) => CompileError::NotConfined(last),
        (Some(signal), _) => CompileError::Died { how: format!("signal {signal}"), said: last },
        (None, code) => {
            CompileError::Died { how: format!("exit code {}", code.unwrap_or(-1)), said: last }
        }
    }
}

/// A refusal whose cause is that memory was not to be had is about the limit.
fn too_big_or(error: CompileError, limits: CompileLimits) -> CompileError {
    match &error {
        CompileError::Refused { problem, .. } if is_about_memory(problem) => {
            CompileError::TooBig { limit_bytes: limits.memory_bytes }
        }
        _ => error,
    }
}

/// The words of Rust's allocator, and of the kernel.
fn is_about_memory(text: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "out of memory", "os error 12"]
        .iter()
        .any(|words| text.contains(words))
}
