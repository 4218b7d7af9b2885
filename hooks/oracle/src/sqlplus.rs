//! One run of `sqlplus`: what it printed between the markers, or why that cannot be trusted.

use std::time::Duration;

use stillpoint_hook::process::{self, Output};
use stillpoint_hook::run;

use crate::scripts::{ARGUMENTS, SQLPLUS, name_of};

/// The values of a script that ran to its end, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(Vec<(String, String)>);

/// Why there is no report.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It was not run, or not to its end.
    Process(process::Error),
    /// A statement failed, or the log-on did; the script ended there.
    Oracle {
        /// `ORA-01146`, or `SP2-0640` where `sqlplus` itself complained.
        code: String,
        /// The whole line.
        line: String,
    },
    /// What it printed, or how it ended, fits no script of ours.
    Unreadable(String),
}

/// What is left of a phase when `sqlplus` is given up: enough to say so, and for the host to keep this
/// instance.
const MARGIN: Duration = Duration::from_millis(250);

/// Runs one of the scripts.
///
/// # Errors
/// [`Failure`]: then it is not known whether its statements had an effect.
pub fn run_script(script: &str, timeout: Duration) -> Result<Report, Failure> {
    let timeout = timeout.min(run::remaining_but(MARGIN));
    let output = process::run(SQLPLUS, ARGUMENTS, Some(script.as_bytes()), Some(timeout))
        .map_err(Failure::Process)?;
    Report::read(name_of(script), &output)
}

impl Report {
    /// Reads what the script `name` printed.
    ///
    /// # Errors
    /// If it did not end by `EXIT 0`, or if anything is missing, doubled or cut off.
    pub fn read(name: &str, output: &Output) -> Result<Self, Failure> {
        let text = output.stdout_text();
        if !output.succeeded() {
            return Err(failed(output, &text));
        }
        if output.truncated {
            return Err(unreadable("its output was longer than `output-bytes` of its grant"));
        }
        Self::between_markers(name, &text)
    }

    fn between_markers(name: &str, text: &str) -> Result<Self, Failure> {
        let (begin, end) = (format!("<sp:begin>{name}</sp>"), format!("<sp:end>{name}</sp>"));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let only = |marker: &str| {
            let mut places = lines.iter().enumerate().filter(|(_, line)| **line == marker);
            match (places.next(), places.next()) {
                (Some((place, _)), None) => Ok(place),
                _ => Err(unreadable(&format!(
                    "its output has not exactly one {marker}: it was cut off, or is not the script's"
                ))),
            }
        };
        let inside = lines.get(only(&begin)? + 1..only(&end)?);
        let inside = inside.ok_or_else(|| unreadable("its output ends before it begins"))?;
        let values = inside.iter().filter(|line| line.starts_with("<sp:")).map(|line| value(line));
        Ok(Self(values.collect::<Result<_, _>>()?))
    }

    /// The values under a key, each split at `|` into so many fields; the last one may have a `|`.
    ///
    /// # Errors
    /// If one has fewer.
    pub fn rows<const N: usize>(&self, key: &str) -> Result<Vec<[&str; N]>, Failure> {
        let of_key = self.0.iter().filter(|(other, _)| other == key);
        of_key
            .map(|(_, value)| {
                let fields: Vec<&str> = value.splitn(N, '|').collect();
                fields
                    .try_into()
                    .map_err(|_| unreadable(&format!("`{value}` has not the {N} fields of {key}")))
            })
            .collect()
    }

    /// The one value under a key.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn row<const N: usize>(&self, key: &str) -> Result<[&str; N], Failure> {
        match self.rows::<N>(key)?.as_slice() {
            [row] => Ok(*row),
            rows => Err(unreadable(&format!("it has {} values for {key}, not one", rows.len()))),
        }
    }
}

impl Failure {
    /// The code of the server or of `sqlplus`, if it is one of theirs.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Failure::Oracle { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// A whole number; what is empty is 0, as SQL's null is.
///
/// # Errors
/// If it is none.
pub fn number<T: std::str::FromStr + Default>(text: &str) -> Result<T, Failure> {
    if text.is_empty() {
        return Ok(T::default());
    }
    text.parse().map_err(|_| unreadable(&format!("`{text}` is not a whole number")))
}

fn unreadable(why: &str) -> Failure {
    Failure::Unreadable(why.to_owned())
}

fn value(line: &str) -> Result<(String, String), Failure> {
    let inside = line.strip_prefix("<sp:").and_then(|rest| rest.strip_suffix("</sp>"));
    let (key, value) = inside
        .and_then(|inside| inside.split_once('>'))
        .ok_or_else(|| unreadable(&format!("a line of its output is cut off: {line}")))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// It exited with something else than 0, or was killed by somebody else.
fn failed(output: &Output, text: &str) -> Failure {
    let errors = String::from_utf8_lossy(&output.stderr);
    let all = || text.lines().chain(errors.lines()).map(str::trim);
    let with = |prefix: &str| {
        all().find_map(|line| Some((code_of(line, prefix)?.to_owned(), line.to_owned())))
    };
    // What the server says first is the cause; what follows it is where it happened.
    if let Some((code, line)) = with("ORA-").or_else(|| with("TNS-")).or_else(|| with("SP2-")) {
        return Failure::Oracle { code, line };
    }
    let how = match (output.exit_code, output.signal) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, signal) => format!("it was killed by signal {}", signal.unwrap_or_default()),
    };
    let said = all().rfind(|line| !line.is_empty() && !line.starts_with("<sp:"));
    match said {
        Some(said) => unreadable(&format!("{how}, and said: {said}")),
        None => unreadable(&how),
    }
}

/// `ORA-01146` of `ORA-01146: cannot start …`, at the beginning of a line, or after `ERROR:` in it.
fn code_of<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let at = line.strip_prefix("ERROR:").map_or(line, str::trim);
    let digits = at.strip_prefix(prefix)?;
    let length = digits.bytes().take_while(u8::is_ascii_digit).count();
    if length == 0 { None } else { at.get(..prefix.len() + length) }
}
