//! The way of a vetted hook as an operator walks it: the example's own script against a real registry
//! and a real MariaDB; and then again with one byte changed at each step, with wrong, revoked and
//! expired keys, and with a tag that was moved back. Each is refused at its step, in the words that
//! tell the operator what happened, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint_tests::command::output_of;
use stillpoint_tests::publisher::{Published, Publisher};
use stillpoint_tests::registry::{Options, Registry};
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::{Run, Stillpoint, component, workspace};

const TERMS: &str = "hooks = [\"mysql\"]\nexpires = 2035-01-01\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_example_goes_from_the_component_to_a_snapshot_that_is_restored_and_proved()
-> Result<()> {
    let rig = Rig::without_hook(Duration::from_secs(600))?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    rig.fresh_tables().await?;
    let mut script = rig.lab.command(workspace().join("examples/deploy/deploy.sh"));
    script
        .arg(rig.lab.root())
        .env("STILLPOINT", rig.stillpoint.binary())
        .env("MODULE", component("mysql")?)
        .env("SNAPSHOT", "deployed");
    let said = tokio::task::block_in_place(|| output_of(&mut script))?;
    println!("{said}");
    ensure!(said.contains("level: application"), "{said}");
    let manifest = rig.stillpoint.listed_manifest("deployed")?;
    rig.stillpoint.delete(manifest.group()?)?;
    let proof = rig.prove("again").await?;
    ensure!(proof.manifest.level()? == "application", "{}", proof.run.description());
    proof.verdict.into_result()?;
    rig.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_changed_byte_anywhere_on_the_way_is_refused_at_its_step() -> Result<()> {
    let way = Way::walked().await?;
    tokio::task::block_in_place(|| {
        way.bytes_of_the_registry()?;
        way.somebody_elses_pushes()?;
        way.the_authors_own_mistake()?;
        way.keys()?;
        way.a_tag_moved_back()?;
        way.bytes_of_the_installation()?;
        way.revoked_after_the_installation()
    })?;
    // Everything is as it was: the same command takes a snapshot again.
    way.takes_a_snapshot()?;
    way.rig.finish()
}

/// A hook that was published, installed and granted, and everybody who took part.
struct Way {
    rig: Rig,
    registry: Registry,
    publisher: Publisher,
    stranger: Publisher,
    module: Vec<u8>,
    version: String,
    published: Published,
}

impl Way {
    async fn walked() -> Result<Self> {
        let rig = Rig::without_hook(Duration::from_secs(900))?;
        rig.stillpoint.connect_to(rig.server.socket())?;
        rig.fresh_tables().await?;
        let registry = Registry::start(&rig.lab, "registry", &Options::default())?;
        let own = |name: &str| -> Result<Publisher> {
            Publisher::new(&rig.lab, rig.stillpoint.on_another_root(name)?, name)
        };
        let (publisher, stranger) = (own("acme")?, own("stranger")?);
        let file = component("mysql")?;
        let module = fs::read(&file)?;
        let version = version_of(&rig.stillpoint, &file)?;
        let published = publisher.publish("mysql.wasm", &module, &registry.reference("mysql:1"))?;
        publisher.trusted_by(&rig.stillpoint, TERMS)?;
        rig.stillpoint.run(["hook", "install", &published.reference])?.succeeded()?;
        rig.stillpoint.run(["hook", "grant", "mysql", "--accept"])?.succeeded()?;
        let way = Self { rig, registry, publisher, stranger, module, version, published };
        way.takes_a_snapshot()?;
        Ok(way)
    }

    fn takes_a_snapshot(&self) -> Result<()> {
        let run = self.rig.stillpoint.snapshot("walked", &["--require", "application"])?;
        let manifest = run.succeeded()?.manifest()?;
        self.rig.stillpoint.delete(manifest.group()?)
    }

    /// An operator who trusts the publisher and has nothing installed yet.
    fn operator(&self, name: &str) -> Result<Stillpoint> {
        let operator = self.rig.stillpoint.on_another_root(name)?;
        self.publisher.trusted_by(&operator, TERMS)?;
        Ok(operator)
    }

    /// What is in the registry's storage, or was sent by it, is compared with what was asked for.
    fn bytes_of_the_registry(&self) -> Result<()> {
        let Published { reference, digest, .. } = &self.published;
        let tag = self.published.tag();
        let signature = self.signature_digest()?;
        for (name, stored, words) in [
            ("module", digest.as_str(), "the hook's module is not what it is said to be"),
            ("signature", &signature, "the hook's signature is not what it is said to be"),
            (
                "manifest",
                self.published.manifest(),
                "the hook's manifest is not what it is said to be",
            ),
        ] {
            let file = self.registry.stored(stored)?;
            with_a_changed_byte(&file, || {
                for asked in [reference.as_str(), tag] {
                    let operator = self.operator(&format!("stored-{name}"))?;
                    refused(&operator, asked, &[words, stored, "somebody changed it"])?;
                }
                Ok(())
            })
            .with_context(|| format!("one byte of the stored {name}"))?;
        }
        let longer = [fs::read(self.registry.stored(digest)?)?, vec![0]].concat();
        with_content(&self.registry.stored(digest)?, &longer, || {
            let words = ["the hook's module does not have the", "bytes that its manifest says"];
            refused(&self.operator("stored-longer")?, reference, &words)
        })
    }

    /// Whoever may push cannot make up a signature.
    fn somebody_elses_pushes(&self) -> Result<()> {
        let changed = flipped(&self.module, self.module.len() - 1);
        let good = self.good_signature()?;

        let module = self.stranger.file("changed.wasm", &changed)?;
        self.stranger.file("changed.wasm.minisig", good.as_bytes())?;
        self.refused_push(&module, "module", &["is not a signature of it"])?;

        let module = self.stranger.file("forged.wasm", &self.module)?;
        self.stranger.file("forged.wasm.minisig", forged(&good)?.as_bytes())?;
        self.refused_push(&module, "forged", &["is not a signature of it"])?;

        let module = self.stranger.file("garbage.wasm", &self.module)?;
        self.stranger.file("garbage.wasm.minisig", b"trust me\n")?;
        self.refused_push(&module, "garbage", &["is not a signature of it"])?;

        let module = self.stranger.signed("theirs.wasm", &self.module)?;
        // Of the same module, so it is the same manifest, and hangs beside the good one there.
        let pushed = self.stranger.push(&module, &self.registry.reference("elsewhere/mysql:1"))?;
        let id = self.stranger.key_id()?;
        let words = ["no trusted key vouches for it", &id, "is not trusted"];
        refused(&self.operator("stranger")?, &pushed.reference, &words)?;

        let module = self.stranger.file("bare.wasm", &self.module)?;
        let pushed = self.stranger.push(&module, &self.registry.reference("bare/mysql:1"))?;
        let operator = self.operator("bare")?;
        refused(
            &operator,
            &pushed.reference,
            &["no trusted key vouches for it", "--allow-unsigned"],
        )?;
        // Another signature beside the good one takes nothing away from it.
        self.stranger.push(
            &self.stranger.signed("beside.wasm", &self.module)?,
            &self.registry.reference("mysql:1"),
        )?;
        let operator = self.operator("beside")?;
        operator.run(["hook", "install", &self.published.reference])?.succeeded().map(drop)
    }

    /// A signature that its own author replaces is gone: what was pushed last counts, also after a
    /// mistake.
    fn the_authors_own_mistake(&self) -> Result<()> {
        let file = self.publisher.signed("again.wasm", &self.module)?;
        let place = self.registry.reference("again/mysql:1");
        let pushed = self.publisher.push(&file, &place)?;
        let signature = file.with_file_name("again.wasm.minisig");
        let good = fs::read_to_string(&signature)?;
        fs::write(&signature, forged(&good)?)?;
        self.publisher.push(&file, &place)?;
        let words = ["is not a signature of it"];
        refused(&self.operator("mistaken")?, &pushed.reference, &words)?;
        fs::write(&signature, good)?;
        self.publisher.push(&file, &place)?;
        let operator = self.operator("mended")?;
        operator.run(["hook", "install", &pushed.reference])?.succeeded().map(drop)
    }

    fn refused_push(&self, module: &Path, name: &str, words: &[&str]) -> Result<()> {
        let reference = self.registry.reference(&format!("{name}/mysql:1"));
        let pushed = self.stranger.push(module, &reference)?;
        refused(&self.operator(name)?, &pushed.reference, words)
            .with_context(|| format!("somebody else's push: {name}"))
    }

    /// A key counts for what the operator trusts it with.
    fn keys(&self) -> Result<()> {
        let Published { reference, digest, .. } = &self.published;
        let id = self.publisher.key_id()?;
        for (name, terms, words) in [
            ("scope", "hooks = [\"postgres\", \"acme-*\"]\n", "acme"),
            ("expired", "hooks = [\"mysql\"]\nexpires = 2020-01-01\n", "expired"),
        ] {
            let operator = self.operator(name)?;
            self.publisher.trusted_by(&operator, terms)?;
            refused(&operator, reference, &["no trusted key vouches for it", words])?;
        }
        for (name, what) in [("keys", &id), ("digests", digest)] {
            let operator = self.operator(&format!("revoked-{name}"))?;
            operator.write_config("revoked.toml", &format!("{name} = [\"{what}\"]\n"))?;
            refused(&operator, reference, &["is revoked", "revoked.toml:1:"])?;
        }
        Ok(())
    }

    /// A tag can be moved to what was good once; what was installed since is remembered.
    fn a_tag_moved_back(&self) -> Result<()> {
        let newer = of_version(&self.module, &self.version, "9.1.0")?;
        let stable = self.registry.reference("mysql:stable");
        self.publisher.publish("newer.wasm", &newer, &stable)?;
        let operator = self.operator("moved-back")?;
        operator.run(["hook", "install", &stable])?.succeeded()?;
        self.publisher.publish("older.wasm", &self.module, &stable)?;
        let run = operator.run_json(["hook", "install", &stable])?;
        let back = format!("mysql {} is a way back: 9.1.0 was installed already", self.version);
        said(&run, &[&back, "--downgrade"])?;
        let there = operator.run_json(["hook", "list"])?.json()?.to_string();
        ensure!(!there.contains(&self.published.digest), "the older one was kept: {there}");
        operator.run(["hook", "install", "--downgrade", &stable])?.succeeded().map(drop)
    }

    /// Module, image and grant on the machine itself: refused when they are loaded, before anything
    /// is locked or frozen.
    fn bytes_of_the_installation(&self) -> Result<()> {
        let root = self.rig.stillpoint.root();
        let hex = self.published.digest.trim_start_matches("sha256:");
        let changed = "was changed after it was installed";
        let module = root.join("var/lib/stillpoint/hooks").join(format!("{hex}.wasm"));
        let image = only_file(&root.join("var/cache/stillpoint"), hex)?;
        for (file, words) in [(&module, changed), (&image, changed)] {
            with_a_changed_byte(file, || self.no_snapshot(&[words, &file.display().to_string()]))
                .with_context(|| format!("one byte of {}", file.display()))?;
        }
        let grant = self.rig.stillpoint.config_file("hooks.d/mysql.toml");
        let text = fs::read_to_string(&grant)?;
        let last = hex.chars().last().context("no digest")?;
        let other = format!("{}{}", &hex[..63], if last == '0' { '1' } else { '0' });
        with_content(&grant, text.replace(hex, &other).as_bytes(), || {
            self.no_snapshot(&[&format!("no hook `sha256:{other}` is installed")])
        })
    }

    fn revoked_after_the_installation(&self) -> Result<()> {
        let revoked = self.rig.stillpoint.config_file("revoked.toml");
        for line in [
            format!("keys = [\"{}\"]\n", self.publisher.key_id()?),
            format!("digests = [\"{}\"]\n", self.published.digest),
        ] {
            self.rig.stillpoint.write_config("revoked.toml", &line)?;
            self.no_snapshot(&["is revoked", "revoked.toml:1:"])?;
        }
        fs::remove_file(revoked).context("cannot remove revoked.toml")
    }

    /// A snapshot is refused with these words, there is none, and the file systems run.
    fn no_snapshot(&self, words: &[&str]) -> Result<()> {
        let run = self.rig.stillpoint.snapshot("refused", &[])?;
        ensure!(run.code != Some(0), "{}", run.description());
        said(&run, words)?;
        let list = self.rig.stillpoint.run_json(["list"])?.json()?;
        ensure!(list.as_array().is_some_and(Vec::is_empty), "a group was made: {list}");
        for fs in self.rig.lab.file_systems() {
            let mut touch = self.rig.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
        }
        let write =
            "CREATE DATABASE IF NOT EXISTS still; CREATE OR REPLACE TABLE still.runs (x INT)";
        self.rig.server.execute(write).map(drop)
    }

    /// The signature as minisign wrote it.
    fn good_signature(&self) -> Result<String> {
        let file = self.publisher.signed("good.wasm", &self.module)?;
        fs::read_to_string(file.with_file_name("good.wasm.minisig")).context("no signature")
    }

    /// The digest of the signature's blob, found as any client would find it.
    fn signature_digest(&self) -> Result<String> {
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let tag = self.published.manifest().replace(':', "-");
        let list = self.document(&format!("/v2/mysql/manifests/{tag}"), index)?;
        let attached = text_at(&list, "/manifests/0/digest")?;
        let own = self.document(&format!("/v2/mysql/manifests/{attached}"), manifest)?;
        text_at(&own, "/layers/0/digest")
    }

    fn document(&self, path: &str, accept: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.registry.get(path, accept)?)?)
    }
}

/// An installation is refused with these words, and nothing is kept.
fn refused(operator: &Stillpoint, reference: &str, words: &[&str]) -> Result<()> {
    let run = operator.run_json(["hook", "install", reference])?;
    said(run.exited_with(1)?, words)?;
    let list = operator.run_json(["hook", "list"])?.json()?;
    ensure!(list.as_array().is_some_and(Vec::is_empty), "something was kept: {list}");
    Ok(())
}

fn said(run: &Run, words: &[&str]) -> Result<()> {
    let text = run.error_text()?;
    for word in words {
        ensure!(text.contains(word), "not said: {word}\n{}", run.description());
    }
    Ok(())
}

fn text_at(document: &serde_json::Value, pointer: &str) -> Result<String> {
    let text = document.pointer(pointer).and_then(serde_json::Value::as_str);
    Ok(text.with_context(|| format!("no {pointer} in {document}"))?.to_owned())
}

fn version_of(stillpoint: &Stillpoint, file: &Path) -> Result<String> {
    let run = stillpoint.run_json([Path::new("hook"), Path::new("inspect"), file])?;
    text_at(&run.succeeded()?.json()?, "/version")
}

/// The same component with another version of the same length: its own, not that of an interface.
fn of_version(module: &[u8], version: &str, other: &str) -> Result<Vec<u8>> {
    ensure!(version.len() == other.len(), "{version} is not as long as {other}");
    let places: Vec<usize> = module
        .windows(version.len())
        .enumerate()
        .filter(|(at, window)| *window == version.as_bytes() && module.get(at - 1) != Some(&b'@'))
        .map(|(at, _)| at)
        .collect();
    ensure!(places.len() == 1, "the version is in {} places", places.len());
    let mut changed = module.to_vec();
    changed[places[0]..places[0] + other.len()].copy_from_slice(other.as_bytes());
    Ok(changed)
}

/// One bit of the byte at `at` changed.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    changed
}

/// A signature with one character of its second line, which is the signature proper, changed.
fn forged(signature: &str) -> Result<String> {
    let mut lines: Vec<String> = signature.lines().map(str::to_owned).collect();
    let line = lines.get_mut(1).context("no second line")?;
    let other = if line.as_bytes()[40] == b'A' { "B" } else { "A" };
    line.replace_range(40..41, other);
    Ok(lines.join("\n") + "\n")
}

/// In the middle: of a module its code, of a manifest or signature its text.
fn with_a_changed_byte(file: &Path, then: impl FnOnce() -> Result<()>) -> Result<()> {
    let bytes = fs::read(file)?;
    with_content(file, &flipped(&bytes, bytes.len() / 2), then)
}

/// The file is put back as it was, owner and mode with it, whatever `then` says.
fn with_content(file: &Path, other: &[u8], then: impl FnOnce() -> Result<()>) -> Result<()> {
    let good = fs::read(file)?;
    fs::write(file, other)?;
    let result = then();
    fs::write(file, good)?;
    result
}

/// The file of this directory whose name begins so.
fn only_file(directory: &Path, begin: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(begin)))
        .collect();
    ensure!(found.len() == 1, "{found:?}");
    found.pop().context("none")
}
