//! A headless Chromium, driven over pipes by its devtools protocol: a page is looked at as a reader
//! looks at it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where distributions put one.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "chromium-browser"];
/// How long the browser may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looks at the page from inside.
const LOOK: &str = include_str!("look.js");

/// A desk, and a telephone; light, dark, and paper.
const VIEWS: [View; 5] = [
    View { width: 1280, dark: false, print: false },
    View { width: 1280, dark: true, print: false },
    View { width: 390, dark: false, print: false },
    View { width: 390, dark: true, print: false },
    View { width: 794, dark: true, print: true },
];

/// A browser, ended when dropped.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

/// How a reader looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// In CSS pixels.
    pub width: u32,
    /// The reader prefers dark pages.
    pub dark: bool,
    /// It is on paper.
    pub print: bool,
}

/// What a reader would notice.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// The width that the page takes, in CSS pixels.
    pub page_width: f64,
    /// The width that there is.
    pub view_width: f64,
    /// What sticks out of the page at the side.
    pub outside: Vec<String>,
    /// Texts that lie on each other.
    pub overlaps: Vec<String>,
    /// Texts that do not stand out from what is behind them, with their contrast.
    pub faint: Vec<String>,
    /// The lanes of the charts.
    pub lanes: Vec<Lane>,
    /// All that can be read.
    pub text: String,
    /// What is read in the first screen, 800 pixels high.
    pub first_screen: String,
}

/// One lane of a chart.
#[derive(Clone, Debug, Deserialize)]
pub struct Lane {
    /// What stands beside it.
    pub name: String,
    /// How long it took.
    pub took: String,
    /// Its bars, each by its class, that can be seen.
    pub bars: Vec<String>,
    /// Bars that cannot be seen.
    pub lost: usize,
}

impl Seen {
    /// What a reader would complain of, whatever is on the page.
    fn is_readable(&self) -> Result<()> {
        ensure!(
            self.page_width <= self.view_width,
            "the page is {} wide, the view {}",
            self.page_width,
            self.view_width
        );
        ensure!(self.outside.is_empty(), "texts stick out: {:#?}", self.outside);
        ensure!(self.overlaps.is_empty(), "texts lie on each other: {:#?}", self.overlaps);
        ensure!(self.faint.is_empty(), "texts are faint: {:#?}", self.faint);
        for lane in &self.lanes {
            ensure!(lane.lost == 0, "bars of a lane are not seen: {lane:?}");
        }
        Ok(())
    }
}

impl Browser {
    /// Starts one. `None` if none is installed, and `STILLPOINT_OFFLINE=1` says that none can be.
    ///
    /// # Errors
    /// If none is installed otherwise (`scripts/setup test` does that), or it does not start.
    pub fn start() -> Result<Option<Self>> {
        let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok();
        let Some(program) = PROGRAMS.into_iter().find(runs) else {
            ensure!(
                std::env::var_os("STILLPOINT_OFFLINE").is_some_and(|value| value == "1"),
                "no Chromium is installed: scripts/setup test (STILLPOINT_OFFLINE=1 leaves it out)"
            );
            eprintln!("LEFT OUT, because of STILLPOINT_OFFLINE=1: pages in a browser");
            return Ok(None);
        };
        let profile = TempDir::new()?;
        // The protocol is spoken on descriptors 3 and 4.
        let script = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let mut process = Command::new("sh")
            .args(["-c", script, "sh", program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--remote-debugging-pipe", "--disable-background-networking"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let to = process.stdin.take().context("no pipe to the browser")?;
        let out = process.stdout.take().context("no pipe from the browser")?;
        let (tell, from) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if tell.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        Ok(Some(Self { process, to, from, calls: 0, events: Vec::new(), _profile: profile }))
    }

    /// A page on a disk, looked at in every view; what a reader would complain of, whatever is on it, is
    /// an error. `STILLPOINT_PICTURES=DIR` keeps pictures.
    ///
    /// # Errors
    /// As [`Browser::look`], or if it cannot be read well.
    pub fn look_at_all(&mut self, name: &str, html: &str) -> Result<Vec<Seen>> {
        let directory = TempDir::new()?;
        let file = directory.path().join("page.html");
        std::fs::write(&file, html)?;
        let pictures = std::env::var_os("STILLPOINT_PICTURES").map(PathBuf::from);
        let mut all = Vec::new();
        for view in VIEWS {
            let colours =
                if view.print { "print" } else { ["light", "dark"][usize::from(view.dark)] };
            let what = format!("{name}-{}-{colours}", view.width);
            let picture = pictures.as_ref().map(|directory| directory.join(format!("{what}.png")));
            let seen = self.look(&file, view, picture.as_deref()).context(what.clone())?;
            seen.is_readable().context(what)?;
            all.push(seen);
        }
        Ok(all)
    }

    /// Opens a file, and tells what a reader sees. The picture, if one is wanted, is a PNG of the whole
    /// page.
    ///
    /// # Errors
    /// If the browser fails, or the page asks for anything from anywhere, or something in it goes wrong.
    pub fn look(&mut self, page: &Path, view: View, picture: Option<&Path>) -> Result<Seen> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }))?;
        let id = target["targetId"].clone();
        let attach = json!({ "targetId": id, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach)?["sessionId"].clone();
        let session = session.as_str().map(str::to_owned).context("no session")?;
        let on = Some(session.as_str());
        for domain in ["Page", "Network", "Log", "Runtime"] {
            self.call(on, &format!("{domain}.enable"), json!({}))?;
        }
        let scheme = if view.dark { "dark" } else { "light" };
        let media = if view.print { "print" } else { "screen" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let metrics = json!({ "width": view.width, "height": 800, "deviceScaleFactor": 1, "mobile": view.width < 600 });
        self.call(on, "Emulation.setDeviceMetricsOverride", metrics)?;
        let emulated = json!({ "media": media, "features": features });
        self.call(on, "Emulation.setEmulatedMedia", emulated)?;
        self.events.clear();
        let url = format!("file://{}", page.display());
        self.call(on, "Page.navigate", json!({ "url": url }))?;
        self.wait_for("Page.loadEventFired")?;
        let evaluate = json!({ "expression": LOOK, "returnByValue": true });
        let answer = self.call(on, "Runtime.evaluate", evaluate)?;
        let seen = serde_json::from_value(answer["result"]["value"].clone())
            .with_context(|| format!("the page cannot be looked at: {answer}"))?;
        if let Some(file) = picture {
            let shot = json!({ "format": "png", "captureBeyondViewport": true });
            let shot = self.call(on, "Page.captureScreenshot", shot)?;
            let data = shot["data"].as_str().context("no picture")?;
            std::fs::write(file, decode(data)?)?;
        }
        self.nothing_was_asked_for(&url)?;
        self.call(None, "Target.closeTarget", json!({ "targetId": id }))?;
        Ok(seen)
    }

    fn nothing_was_asked_for(&self, own: &str) -> Result<()> {
        for event in &self.events {
            let method = event["method"].as_str().unwrap_or_default();
            let asked = event["params"]["request"]["url"].as_str().unwrap_or_default();
            match method {
                "Network.requestWillBeSent" => ensure!(asked == own, "the page asks for {asked}"),
                "Log.entryAdded" | "Runtime.exceptionThrown" => {
                    bail!("the browser complains: {}", event["params"])
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).and_then(|()| self.to.flush())?;
        loop {
            let answer = self.receive().with_context(|| method.to_owned())?;
            if answer["id"] != id {
                self.events.push(answer);
                continue;
            }
            ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].clone());
        }
    }

    fn wait_for(&mut self, event: &str) -> Result<()> {
        while !self.events.iter().any(|seen| seen["method"] == event) {
            let seen = self.receive().with_context(|| event.to_owned())?;
            self.events.push(seen);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Value> {
        self.from.recv_timeout(PATIENCE).context("the browser does not answer")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Base 64, as the protocol sends pictures.
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.bytes().filter(|byte| *byte != b'=') {
        let six = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("not base 64"),
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(((bits >> count) & 0xff) as u8);
        }
    }
    Ok(bytes)
}
