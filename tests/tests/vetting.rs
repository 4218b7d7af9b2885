//! Whose hooks are installed and run: signatures, trusted keys, revocations, ways back. Each through the
//! command, each refusal beside the twin that is accepted.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::command::{output_of, run};
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::puppet;
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint, binary, component};

/// Exit codes, as the README has them.
const NOT_MET: i32 = 1;
const PARAMETERS: i32 = 2;

/// An installation that freezes nothing, and a key that it trusts for `puppet`.
struct Operator {
    directory: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn well(self) -> Result<String> {
        ensure!(self.code == Some(0), "{self:?}");
        Ok(self.out)
    }

    /// A refusal: this exit code, all these words, and a next step.
    fn refused(self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not exit code {code}: {self:?}");
        for word in words {
            ensure!(self.err.contains(word), "not `{word}`: {self:?}");
        }
        ensure!(self.err.contains("hint: "), "no hint: {self:?}");
        Ok(())
    }
}

impl Operator {
    /// Trusts the key `acme` for `puppet`.
    fn new() -> Result<Self> {
        let own = Self { directory: tempfile::tempdir()? };
        fs::create_dir_all(own.config("keys.d"))?;
        own.keygen("acme")?;
        fs::copy(own.path("acme.pub"), own.config("keys.d/acme.pub"))?;
        own.limit("acme", "hooks = [\"puppet\"]\n")?;
        Ok(own)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.path("root/etc/stillpoint").join(name)
    }

    fn limit(&self, key: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.config(&format!("keys.d/{key}.toml")), text)?)
    }

    fn revoke(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.config("revoked.toml"), text)?)
    }

    fn keygen(&self, name: &str) -> Result<()> {
        let (secret, public) =
            (self.path(&format!("{name}.key")), self.path(&format!("{name}.pub")));
        let arguments = ["hook", "keygen", "--no-password", "--secret"].map(Path::new);
        self.stillpoint(arguments.iter().chain(&[&*secret, Path::new("--public"), &*public]))?
            .well()?;
        Ok(())
    }

    fn stillpoint<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Ended> {
        let output = Command::new(binary()?)
            .arg("--root")
            .arg(self.path("root"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        })
    }

    /// The puppet, of this version.
    fn puppet(&self, version: &str) -> Result<PathBuf> {
        let mut bytes = fs::read(component("puppet")?)?;
        let marker = b"PUPPET-DESCRIBE=";
        let at = bytes.windows(marker.len()).position(|window| window == marker);
        let at = at.context("no marker in the puppet")? + marker.len();
        bytes[at..at + 8].copy_from_slice(format!("{version:<8}").as_bytes());
        let file = self.path(&format!("puppet-{version}.wasm"));
        fs::write(&file, bytes)?;
        Ok(file)
    }

    fn sign(&self, key: &str, module: &Path) -> Result<()> {
        let key = self.path(&format!("{key}.key"));
        self.stillpoint([Path::new("hook"), Path::new("sign"), Path::new("--key"), &key, module])?
            .well()?;
        Ok(())
    }

    /// The puppet of this version, signed with `acme`.
    fn signed(&self, version: &str) -> Result<PathBuf> {
        let module = self.puppet(version)?;
        self.sign("acme", &module)?;
        Ok(module)
    }

    fn install(&self, module: &Path, more: &[&str]) -> Result<Ended> {
        let arguments = ["hook", "install"].iter().chain(more).map(OsStr::new);
        self.stillpoint(arguments.chain([module.as_os_str()]))
    }

    fn installed(&self) -> Result<Vec<Value>> {
        let list = self.stillpoint(["--json", "hook", "list"])?.well()?;
        Ok(serde_json::from_str::<Value>(&list)?.as_array().context("not a list")?.clone())
    }

    fn kept_nothing(&self) -> Result<()> {
        ensure!(self.installed()?.is_empty(), "something is installed");
        ensure!(!self.path("root/var/lib/stillpoint/hooks").exists(), "files were left");
        Ok(())
    }
}

fn signature(module: &Path) -> PathBuf {
    PathBuf::from(format!("{}.minisig", module.display()))
}

/// Changes one byte in the middle of line `line` of a file.
fn change(file: &Path, line: usize) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let middle = lines[line].len() / 2;
    let other = if lines[line].as_bytes()[middle] == b'A' { "B" } else { "A" };
    lines[line].replace_range(middle..=middle, other);
    Ok(fs::write(file, lines.join("\n") + "\n")?)
}

#[test]
fn a_signed_hook_is_installed_and_says_who_signed_it() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    let said = operator.install(&module, &[])?.well()?;
    ensure!(said.contains("signed by acme (key "), "{said}");
    let hook = &operator.installed()?[0];
    ensure!(hook["signed_by"]["name"] == "acme" && hook["allowed_unsigned"].is_null(), "{hook:#}");
    ensure!(hook["source"]["file"] == module.display().to_string(), "{hook:#}");
    let listed = operator.stillpoint(["hook", "list"])?.well()?;
    ensure!(listed.contains("signed by acme"), "{listed}");
    Ok(())
}

#[test]
fn an_unsigned_hook_is_refused_and_what_is_allowed_is_recorded() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.puppet("1.0.0")?;
    operator
        .install(&module, &[])?
        .refused(NOT_MET, &["is not accepted", "nobody signed it", "--allow-unsigned"])?;
    operator.kept_nothing()?;

    operator.install(&module, &["--allow-unsigned"])?.well()?;
    let hook = &operator.installed()?[0];
    ensure!(
        hook["allowed_unsigned"] == "nobody signed it" && hook["signed_by"].is_null(),
        "{hook:#}"
    );
    let listed = operator.stillpoint(["hook", "list"])?.well()?;
    ensure!(
        listed.contains("NOT vouched for by a trusted key, and allowed so: nobody signed it"),
        "{listed}"
    );
    let inspected = operator.stillpoint(["hook", "inspect", "puppet"])?.well()?;
    ensure!(inspected.contains("nobody signed it"), "{inspected}");
    Ok(())
}

#[test]
fn a_hook_signed_by_a_stranger_is_as_if_unsigned() -> Result<()> {
    let operator = Operator::new()?;
    operator.keygen("stranger")?;
    let module = operator.puppet("1.0.0")?;
    operator.sign("stranger", &module)?;
    operator.install(&module, &[])?.refused(NOT_MET, &["is signed with key", "not trusted"])?;
    operator.kept_nothing()?;
    operator.install(&module, &["--allow-unsigned"])?.well()?;
    let why = operator.installed()?[0]["allowed_unsigned"].clone();
    ensure!(why.as_str().is_some_and(|why| why.contains("not trusted")), "{why}");
    Ok(())
}

#[test]
fn a_byte_changed_in_module_or_signature_is_refused_whatever_is_allowed() -> Result<()> {
    let operator = Operator::new()?;
    for more in [&[][..], &["--allow-unsigned"], &["--allow-unsigned", "--downgrade"]] {
        // In its text, where it still is a component.
        let module = operator.signed("1.0.0")?;
        let changed = operator.puppet("1.0.1")?;
        fs::rename(&changed, &module)?;
        operator.install(&module, more)?.refused(NOT_MET, &["is not a signature of it"])?;

        for line in [1, 2, 3] {
            let module = operator.signed("1.0.0")?;
            change(&signature(&module), line)?;
            let ended = operator.install(&module, more)?;
            // The signature's line names the key, too: a changed name is another key's.
            ended.refused(NOT_MET, &["is not accepted"])?;
        }
        let module = operator.signed("1.0.0")?;
        fs::write(signature(&module), "")?;
        operator.install(&module, more)?.refused(NOT_MET, &["it is not a minisign signature"])?;
    }
    operator.kept_nothing()?;
    let module = operator.signed("1.0.0")?;
    operator.install(&module, &[])?.well()?;
    Ok(())
}

#[test]
fn a_key_signs_what_it_may_and_as_long_as_it_may() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    for (limits, words) in [
        ("hooks = [\"mysql\", \"pup\"]", "may sign mysql, pup, and this is `puppet`"),
        ("hooks = [\"puppet-*\"]", "may sign puppet-*, and this is `puppet`"),
        ("hooks = [\"puppet\"]\nexpires = 2020-01-31", "expired on 2020-01-31"),
    ] {
        operator.limit("acme", limits)?;
        operator.install(&module, &[])?.refused(NOT_MET, &[words])?;
        operator.kept_nothing()?;
    }
    operator.limit("acme", "hooks = [\"pup*\"]\nexpires = 2999-01-31")?;
    operator.install(&module, &[])?.well()?;
    ensure!(operator.installed()?[0]["signed_by"]["expires"] == "2999-01-31");

    // What was installed in time stays: an expired key signs nothing new.
    operator.limit("acme", "hooks = [\"pup*\"]\nexpires = 2020-01-31")?;
    operator.grant()?;
    operator.loads()?;
    Ok(())
}

#[test]
fn a_wrong_key_file_is_an_error_with_its_place() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    operator.limit("acme", "hooks = [\"puppet\"]\nexpire = 2027-01-01\n")?;
    let ended = operator.install(&module, &[])?;
    ensure!(ended.code == Some(PARAMETERS) && ended.err.contains("acme.toml:2:1: "), "{ended:?}");

    operator.limit("acme", "hooks = [\"puppet\"]\n")?;
    let public = operator.config("keys.d/acme.pub");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o666))?;
    operator.install(&module, &[])?.refused(PARAMETERS, &["acme.pub is not trusted", "0666"])?;
    fs::set_permissions(&public, fs::Permissions::from_mode(0o644))?;
    operator.install(&module, &[])?.well()?;
    Ok(())
}

impl Operator {
    /// Grants everything to the installed puppet.
    fn grant(&self) -> Result<()> {
        let connection =
            "[connections.main]\nengine = \"mysql\"\nsocket = \"/nowhere\"\nuser = \"u\"\n";
        fs::write(self.config("connections.toml"), connection.to_owned() + puppet::UNUSED)?;
        self.stillpoint(["hook", "grant", "puppet", "--accept"])?.well()?;
        Ok(())
    }

    /// What a plan says of the hook: it has loaded, whatever else there is to say in an installation
    /// without disks.
    fn loads(&self) -> Result<()> {
        let plan = self.stillpoint(["plan"])?;
        ensure!(!plan.err.contains("hook puppet"), "{plan:?}");
        Ok(())
    }
}

#[test]
fn what_is_revoked_after_it_was_installed_does_not_run() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    operator.install(&module, &[])?.well()?;
    operator.grant()?;
    operator.loads()?;
    let digest = operator.installed()?[0]["digest"].as_str().context("no digest")?.to_owned();
    let id = operator.installed()?[0]["signed_by"]["id"].as_str().context("no id")?.to_owned();
    for (revoked, words) in [
        (format!("digests = [\"{digest}\"]"), "its digest sha256:"),
        ("keys = [\"acme\"]".to_owned(), "the key `acme`"),
        (format!("keys = [\"{id}\"]"), "the key `acme`"),
    ] {
        operator.revoke(&revoked)?;
        for command in ["plan", "snapshot"] {
            let ended = operator.stillpoint([command])?;
            ended.refused(
                NOT_MET,
                &["hook puppet", "is not accepted", words, "is revoked", "revoked.toml:1:"],
            )?;
        }
        operator
            .install(&module, &["--allow-unsigned"])?
            .refused(NOT_MET, &[words, "is revoked"])?;
    }
    operator.revoke("digests = [\"sha256:12\"]")?;
    let ended = operator.stillpoint(["plan"])?;
    ensure!(
        ended.code == Some(PARAMETERS) && ended.err.contains("revoked.toml:1:12: "),
        "{ended:?}"
    );
    operator.revoke("")?;
    operator.loads()
}

#[test]
fn the_way_back_to_a_lower_version_is_closed_even_after_a_removal() -> Result<()> {
    let operator = Operator::new()?;
    let (old, new) = (operator.signed("1.9.0")?, operator.signed("1.10.0")?);
    operator.install(&old, &[])?.well()?;
    operator.install(&new, &[])?.well()?;
    ensure!(operator.installed()?.len() == 2, "not side by side");
    // It is installed already: compiling it again is no way back.
    operator.install(&old, &[])?.well()?;
    for hook in operator.installed()? {
        let digest = hook["digest"].as_str().context("no digest")?.to_owned();
        operator.stillpoint(["hook", "remove", &digest])?.well()?;
    }
    operator
        .install(&old, &[])?
        .refused(NOT_MET, &["puppet 1.9.0 is a way back: 1.10.0", "--downgrade"])?;
    operator.install(&old, &["--allow-unsigned"])?.refused(NOT_MET, &["is a way back"])?;
    operator.install(&old, &["--downgrade"])?.well()?;
    operator.install(&new, &[])?.well()?;
    Ok(())
}

#[test]
fn another_component_of_the_same_version_is_refused() -> Result<()> {
    let operator = Operator::new()?;
    operator.install(&operator.signed("1.0.0")?, &[])?.well()?;
    let module = operator.path("other.wasm");
    let mut bytes = fs::read(operator.puppet("1.0.0")?)?;
    bytes.extend([0, 2, 1, b'x']); // one more custom section, which means nothing
    fs::write(&module, bytes)?;
    operator.sign("acme", &module)?;
    operator
        .install(&module, &[])?
        .refused(NOT_MET, &["1.0.0 was installed already, and was another component"])?;
    operator.install(&module, &["--downgrade"])?.well()?;
    Ok(())
}

#[test]
fn minisign_accepts_our_signatures_and_we_accept_its() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    let public = operator.path("acme.pub");
    let text = |path: &Path| path.display().to_string();
    let checked = run("minisign", ["-V", "-m", &text(&module), "-p", &text(&public)])?;
    ensure!(checked.contains("Signature and comment signature verified"), "{checked}");

    let (secret, theirs) = (operator.path("theirs.key"), operator.config("keys.d/theirs.pub"));
    run("minisign", ["-G", "-W", "-s", &text(&secret), "-p", &text(&theirs)])?;
    operator.limit("theirs", "hooks = [\"puppet\"]")?;
    let module = operator.puppet("1.1.0")?;
    run("minisign", ["-S", "-s", &text(&secret), "-m", &text(&module)])?;
    let verified =
        operator.stillpoint([Path::new("hook"), Path::new("verify"), &module])?.well()?;
    ensure!(verified.contains("by theirs (key "), "{verified}");
    operator.install(&module, &[])?.well()?;
    ensure!(operator.installed()?[0]["signed_by"]["name"] == "theirs");
    // And their key signs with us.
    let module = operator.puppet("1.2.0")?;
    operator.sign("theirs", &module)?;
    run("minisign", ["-V", "-m", &text(&module), "-p", &text(&theirs)])?;
    Ok(())
}

#[test]
fn verify_says_who_signed_and_refuses_what_does_not_verify() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    let verify = |more: &[&str]| {
        let arguments = ["hook", "verify"].iter().chain(more).map(OsStr::new);
        operator.stillpoint(arguments.chain([module.as_os_str()]))
    };
    let said = verify(&[])?.well()?;
    ensure!(said.contains("by acme (key ") && said.contains("trusted for puppet"), "{said}");
    let public = operator.path("acme.pub").display().to_string();
    verify(&["--key", &public])?.well()?;
    let document: Value = serde_json::from_str(&verify(&["--json"])?.well()?)?;
    ensure!(document["signers"][0]["name"] == "acme", "{document}");

    operator.keygen("other")?;
    let other = operator.path("other.pub").display().to_string();
    let ended = verify(&["--key", &other])?;
    ensure!(
        ended.code == Some(NOT_MET) && ended.err.contains("different from public key"),
        "{ended:?}"
    );
    operator.revoke("keys = [\"acme\"]")?;
    verify(&[])?.refused(NOT_MET, &["is revoked"])?;
    Ok(())
}

#[test]
fn secrets_come_from_files_that_nobody_else_can_read() -> Result<()> {
    let operator = Operator::new()?;
    let (key, public) = (operator.path("e.key"), operator.path("e.pub"));
    let (password, wrong) = (operator.path("password"), operator.path("wrong"));
    for (file, text) in [(&password, "correct horse\n"), (&wrong, "wrong\n")] {
        fs::write(file, text)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    let hook = |verb: &str, more: &[&Path]| {
        let arguments = [Path::new("hook"), Path::new(verb)];
        operator.stillpoint(arguments.iter().chain(more))
    };
    let (by_file, secret) = (Path::new("--password-file"), Path::new("--secret"));
    hook("keygen", &[by_file, &password, secret, &key, Path::new("--public"), &public])?.well()?;
    ensure!(fs::metadata(&key)?.permissions().mode() & 0o777 == 0o600);
    hook("keygen", &[by_file, &password, secret, &key, Path::new("--public"), &public])?
        .refused(PARAMETERS, &["e.key cannot be used", "never overwritten"])?;

    let module = operator.puppet("1.0.0")?;
    let sign =
        |more: &[&Path]| hook("sign", &[&[Path::new("--key"), &key], more, &[&module]].concat());
    sign(&[])?.refused(PARAMETERS, &["no terminal", "--password-file"])?;
    sign(&[by_file, &wrong])?.refused(PARAMETERS, &["the password is wrong"])?;
    sign(&[by_file, &password])?.well()?;
    let text = |path: &Path| path.display().to_string();
    output_of(Command::new("minisign").args(["-V", "-m", &text(&module), "-p", &text(&public)]))?;

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    sign(&[by_file, &password])?.refused(PARAMETERS, &["its mode is 0644", "chmod 0600"])?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o604))?;
    sign(&[by_file, &password])?.refused(PARAMETERS, &["its mode is 0604", "chmod 0600"])?;
    Ok(())
}

#[test]
fn a_record_of_before_signatures_says_to_install_again() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    operator.install(&module, &[])?.well()?;
    let digest = operator.installed()?[0]["digest"].as_str().context("no digest")?.to_owned();
    let record = format!("root/var/lib/stillpoint/hooks/{}.json", &digest["sha256:".len()..]);
    let record = operator.path(&record);
    let mut old: Value = serde_json::from_str(&fs::read_to_string(&record)?)?;
    let fields = old.as_object_mut().context("not an object")?;
    for field in ["source", "signed_by", "allowed_unsigned", "imports", "toolchain"] {
        fields.remove(field);
    }
    fields.insert("record_version".into(), 1.into());
    fs::write(&record, old.to_string())?;
    let list = operator.stillpoint(["hook", "list"])?;
    list.refused(PARAMETERS, &["was installed before signatures were checked", "hook install"])?;
    operator.install(&module, &[])?.well()?;
    ensure!(operator.installed()?[0]["signed_by"]["name"] == "acme");
    Ok(())
}

#[test]
fn a_manifest_says_on_whose_word_a_hook_ran() -> Result<()> {
    let lab = Lab::new(&[FsSpec::new("a", FsType::Ext4, 64)], std::time::Duration::from_secs(120))?;
    let stillpoint = Stillpoint::new(&lab)?;
    stillpoint.configure(&stillpoint.settings(&lab, NO_SCRIPTS))?;
    let module = component("puppet")?;
    let install = ["hook", "install", "--allow-unsigned"].map(Path::new);
    stillpoint.run(install.iter().chain([&module.as_path()]))?.succeeded()?;
    let list = stillpoint.run_json(["hook", "list"])?.json()?;
    let grant = format!(
        "module = {}\n[settings]\npaths = [\"{}\"]\n",
        list[0]["digest"],
        lab.mount("a").display()
    );
    stillpoint.write_config("hooks.d/puppet.toml", &grant)?;
    let unsigned = stillpoint.snapshot("unsigned", &[])?;
    let manifest = unsigned.succeeded()?.manifest()?;
    ensure!(manifest.text("/hooks/0/allowed_unsigned")? == "nobody signed it");
    ensure!(manifest.at("/hooks/0/signed_by")?.is_null());

    // A better word takes the place of the exception.
    stillpoint.sign_and_install(&module)?;
    let signed = stillpoint.snapshot("signed", &[])?;
    let manifest = signed.succeeded()?.manifest()?;
    ensure!(manifest.text("/hooks/0/signed_by/name")? == "lab");
    ensure!(manifest.at("/hooks/0/allowed_unsigned")?.is_null());
    lab.finish()
}

#[test]
fn one_screen_shows_who_signed_a_hook_and_what_it_gets() -> Result<()> {
    let operator = Operator::new()?;
    let module = operator.signed("1.0.0")?;
    let inspect = |more: &[&str]| {
        operator.stillpoint(more.iter().chain(&["hook", "inspect", "puppet"]))?.well()
    };
    operator.install(&module, &[])?.well()?;
    let ungranted = inspect(&[])?;
    ensure!(ungranted.contains("nothing: no file in hooks.d names it"), "{ungranted}");

    operator.grant()?;
    let file = operator.config("hooks.d/puppet.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replacen("\"SELECT 1\"", "\"SELECT 99\"", 1))?;
    let screen = inspect(&[])?;
    for line in [
        "puppet 1.0.0: does what its settings say",
        "by acme (key ",
        "imports    stillpoint:hook ",
        "made with  ",
        "granted   connection main: to be tested",
        "DENIED    SELECT 1\n",
        "not asked SELECT 99\n",
        "granted   SELECT CONNECTION_ID()\n",
        "2 would be refused",
        "64 MiB memory",
    ] {
        ensure!(screen.contains(line), "not `{line}`:\n{screen}");
    }
    // Beside the texts that it asks for: this hook asks for more than any other.
    let others = screen.lines().filter(|line| !line.starts_with("    ")).count();
    ensure!(others < 24, "more than a screen:\n{screen}");

    operator.revoke("keys = [\"acme\"]")?;
    let screen = inspect(&[])?;
    ensure!(screen.contains("REFUSED") && screen.contains("is revoked"), "{screen}");
    let document: Value = serde_json::from_str(&inspect(&["--json"])?)?;
    let refused = document["word"]["refused"].as_str().unwrap_or_default();
    ensure!(refused.contains("is revoked"), "{document:#}");
    Ok(())
}
