//! Hooks in a real registry, plain and with TLS and a login, and in bundles: what is pushed is what
//! other tools expect, what is installed is what was pushed, and who is not let in is told why.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::command::run;
use stillpoint_tests::lab::Lab;
use stillpoint_tests::publisher::{Published, Publisher};
use stillpoint_tests::registry::{LOGIN, Options, Registry};
use stillpoint_tests::stillpoint::{Run, Stillpoint, component};
use stillpoint_tests::tokens::Tokens;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A lab without file systems, a publisher, and the component to publish.
struct Place {
    lab: Lab,
    stillpoint: Stillpoint,
    publisher: Publisher,
    module: Vec<u8>,
}

impl Place {
    fn new() -> Result<Self> {
        let lab = Lab::new(&[], Duration::from_secs(300))?;
        let stillpoint = Stillpoint::new(&lab)?;
        let publisher = Publisher::new(&lab, stillpoint.on_another_root("acme")?, "acme")?;
        let module = fs::read(component("mysql")?)?;
        Ok(Self { lab, stillpoint, publisher, module })
    }

    /// An operator who trusts the publisher.
    fn operator(&self, name: &str) -> Result<Stillpoint> {
        let operator = self.stillpoint.on_another_root(name)?;
        self.publisher.trusted_by(&operator, "hooks = [\"mysql\"]\n")?;
        Ok(operator)
    }
}

#[test]
fn what_is_pushed_is_what_other_tools_expect_and_is_installed_by_tag_and_by_digest() -> Result<()> {
    let place = Place::new()?;
    let registry = Registry::start(&place.lab, "registry", &Options::default())?;
    let file = place.publisher.signed("mysql.wasm", &place.module)?;
    let pushed = place.publisher.push(&file, &registry.reference("team/mysql:1"))?;
    let again = place.publisher.push(&file, &registry.reference("team/mysql:also"))?;
    ensure!(again.manifest() == pushed.manifest(), "the same hook has the same digest");

    looks_right_to_others(&registry, &pushed)?;
    let signature = signature_by_hand(&registry, &pushed)?;
    ensure!(signature == fs::read_to_string(with_suffix(&file, ".minisig"))?);

    for (name, asked) in [("by-tag", pushed.tag()), ("by-digest", &pushed.reference)] {
        let operator = place.operator(name)?;
        let installed = operator.run_json(["hook", "install", asked])?.succeeded()?.json()?;
        ensure!(text(&installed, "/digest")? == pushed.digest);
        ensure!(text(&installed, "/source/registry")? == pushed.reference, "{installed}");
        ensure!(text(&installed, "/signed_by/name")? == "acme", "{installed}");
    }
    not_there(&place, &registry, &pushed)?;
    drop(registry);
    place.lab.finish()
}

/// By the conventions of the wasm ecosystem: read with curl, by their names.
fn looks_right_to_others(registry: &Registry, pushed: &Published) -> Result<()> {
    let manifest = document(registry, "/v2/team/mysql/manifests/1", MANIFEST)?;
    ensure!(text(&manifest, "/config/mediaType")? == "application/vnd.wasm.config.v0+json");
    ensure!(text(&manifest, "/layers/0/mediaType")? == "application/wasm");
    ensure!(manifest.pointer("/layers/1").is_none(), "one layer: {manifest}");
    ensure!(text(&manifest, "/layers/0/digest")? == pushed.digest);
    let config = format!("/v2/team/mysql/blobs/{}", text(&manifest, "/config/digest")?);
    let config = document(registry, &config, "*/*")?;
    ensure!(text(&config, "/architecture")? == "wasm" && text(&config, "/os")? == "wasip2");
    ensure!(text(&config, "/layerDigests/0")? == pushed.digest, "{config}");
    let exports = config.pointer("/component/exports").context("no exports")?.to_string();
    ensure!(exports.contains("stillpoint:hook/lifecycle@"), "{config}");
    Ok(())
}

/// The signature, found as the distribution specification says for registries without referrers.
fn signature_by_hand(registry: &Registry, pushed: &Published) -> Result<String> {
    let tag = pushed.manifest().replace(':', "-");
    let index = document(registry, &format!("/v2/team/mysql/manifests/{tag}"), INDEX)?;
    ensure!(text(&index, "/manifests/0/artifactType")?.contains("minisig"), "{index}");
    let path = format!("/v2/team/mysql/manifests/{}", text(&index, "/manifests/0/digest")?);
    let own = document(registry, &path, MANIFEST)?;
    ensure!(text(&own, "/subject/digest")? == pushed.manifest(), "{own}");
    let blob = format!("/v2/team/mysql/blobs/{}", text(&own, "/layers/0/digest")?);
    registry.get(&blob, "*/*")
}

fn not_there(place: &Place, registry: &Registry, pushed: &Published) -> Result<()> {
    let operator = place.operator("not-there")?;
    let refused = |reference: &str, words: &[&str]| -> Result<()> {
        let run = operator.run_json(["hook", "install", reference])?;
        said(run.exited_with(1)?, words)
    };
    refused(&registry.reference("team/mysql:2"), &["has no team/mysql:2", "compare repository"])?;
    refused(&registry.reference("team/other:1"), &["has no team/other:1"])?;
    let absent = format!("sha256:{}", "0".repeat(64));
    let other = pushed.reference.replace(pushed.manifest(), &absent);
    refused(&other, &["has no team/mysql@sha256:"])?;
    let moved = registry.reference("team/mysql:1").replace("oci://127.0.0.1", "oci://127.0.0.2");
    refused(&moved, &["127.0.0.2", "cannot be reached", "Connection refused"])?;
    let run = operator.run_json(["hook", "install", "oci://registry.example.com/mysql"])?;
    said(run.exited_with(2)?, &["names neither a tag nor a digest", "write it as oci://"])
}

#[test]
fn tls_and_a_login_are_asked_for_and_no_output_has_the_password() -> Result<()> {
    let place = Place::new()?;
    let options = Options { tls: true, login: true, ..Options::default() };
    let registry = Registry::start(&place.lab, "registry", &options)?;
    let file = place.publisher.signed("mysql.wasm", &place.module)?;
    let reference = registry.reference("mysql:1");
    let (right, wrong) = (
        registry.docker_config(LOGIN.0, LOGIN.1)?,
        registry.docker_config(LOGIN.0, "not-the-password")?,
    );
    let authority = registry.authority();
    let empty = place.lab.scratch("no-docker-config")?;
    let push = |docker: &Path, more: &[&Path]| -> Result<Run> {
        let own = place.operator("operator")?.with_variable("DOCKER_CONFIG", docker);
        let command = [Path::new("hook"), "push".as_ref(), &file, reference.as_ref()];
        let run = own.run_json(command.iter().chain(more))?;
        for secret in [LOGIN.1, "not-the-password", "b3BlcmF0b3I6"] {
            ensure!(!run.description().contains(secret), "a secret: {}", run.description());
        }
        Ok(run)
    };
    let trusting: &[&Path] = &[Path::new("--ca-file"), &authority];
    said(
        push(&right, &[])?.exited_with(1)?,
        &["the certificate of 127.0.0.1:", "is not trusted", "UnknownIssuer", "--ca-file"],
    )?;
    let config = |directory: &Path| directory.join("config.json").display().to_string();
    let address = registry.address();
    said(
        push(&empty, trusting)?.exited_with(1)?,
        &[address, "refused", &config(&empty), "is not there", &format!("docker login {address}")],
    )?;
    said(push(&wrong, trusting)?.exited_with(1)?, &[address, &config(&wrong), "were used"])?;
    helper(&place, &empty, &push, trusting)?;
    push(&right, trusting)?.succeeded()?;

    let install = |docker: &Path| -> Result<Run> {
        let own = place.operator("operator")?.with_variable("DOCKER_CONFIG", docker);
        let command = [Path::new("hook"), "install".as_ref(), reference.as_ref()];
        own.run_json(command.iter().chain(trusting))
    };
    said(install(&empty)?.exited_with(1)?, &["refused reading the hook's manifest"])?;
    install(&right)?.succeeded()?;
    drop(registry);
    place.lab.finish()
}

/// A helper that docker would run is named, and not run.
fn helper(
    place: &Place,
    empty: &Path,
    push: &dyn Fn(&Path, &[&Path]) -> Result<Run>,
    trusting: &[&Path],
) -> Result<()> {
    let directory = place.lab.scratch("helper")?;
    let program = directory.join("docker-credential-evil");
    fs::write(&program, format!("#!/bin/sh\ntouch {}/ran\n", empty.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = directory.join("config.json");
    fs::write(&config, r#"{"credsStore": "evil"}"#)?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let run = push(&directory, trusting)?;
    said(
        run.exited_with(1)?,
        &["docker-credential-evil", "helpers are not run", "DOCKER_CONFIG="],
    )?;
    ensure!(!empty.join("ran").exists(), "it was run");
    Ok(())
}

/// As public registries do it: the registry names a service, that gives a token for one repository
/// and one act, and the registry checks the token.
#[test]
fn a_token_service_is_asked_for_what_is_done_and_nothing_else() -> Result<()> {
    let place = Place::new()?;
    let tokens = Tokens::start(place.lab.scratch("tokens")?)?;
    let service = Some((tokens.realm(), tokens.certificate()));
    let options = Options { tokens: service, ..Options::default() };
    let registry = Registry::start(&place.lab, "registry", &options)?;
    let file = place.publisher.signed("mysql.wasm", &place.module)?;
    let reference = registry.reference("team/mysql:1");
    let logged_in = |password: &str| -> Result<Stillpoint> {
        let directory = registry.docker_config(LOGIN.0, password)?;
        Ok(place.operator("operator")?.with_variable("DOCKER_CONFIG", &directory))
    };
    let push = [Path::new("hook"), "push".as_ref(), &file, reference.as_ref()];
    let run = logged_in("not-the-password")?.run_json(push)?;
    said(run.exited_with(1)?, &["refused asking for a token", "were used", "docker login"])?;
    let _ = tokens.scopes();
    logged_in(LOGIN.1)?.run(push)?.succeeded()?;
    ensure!(tokens.scopes() == ["repository:team/mysql:pull,push"], "one token for one push");
    logged_in(LOGIN.1)?.run(["hook", "install", &reference])?.succeeded()?;
    ensure!(tokens.scopes() == ["repository:team/mysql:pull"], "one token for one pull");
    drop(registry);
    place.lab.finish()
}

#[test]
fn a_registry_that_sends_us_to_plain_http_is_not_followed() -> Result<()> {
    let place = Place::new()?;
    let redirect = Some("http://127.0.0.1:9/".into());
    let options = Options { tls: true, redirect, ..Options::default() };
    let registry = Registry::start(&place.lab, "registry", &options)?;
    let file = place.publisher.signed("mysql.wasm", &place.module)?;
    let (reference, authority) = (registry.reference("mysql:1"), registry.authority());
    let trusting = [Path::new("--ca-file"), &authority];
    let push = [Path::new("hook"), "push".as_ref(), &file, reference.as_ref()];
    place.stillpoint.run(push.iter().chain(&trusting))?.succeeded()?;
    let install = [Path::new("hook"), "install".as_ref(), reference.as_ref()];
    let run = place.operator("operator")?.run_json(install.iter().chain(&trusting))?;
    let words = ["sends us to http://127.0.0.1:9/", "plain http", "must give out https addresses"];
    said(run.exited_with(1)?, &words)?;
    drop(registry);
    place.lab.finish()
}

#[test]
fn what_nobody_signed_is_pushed_with_a_word_and_installed_only_if_that_is_allowed() -> Result<()> {
    let place = Place::new()?;
    let registry = Registry::start(&place.lab, "registry", &Options::default())?;
    let file = place.publisher.file("mysql.wasm", &place.module)?;
    let reference = registry.reference("mysql:1");
    let push = [Path::new("hook"), "push".as_ref(), &file, reference.as_ref()];
    let told = place.stillpoint.run(push)?;
    ensure!(told.succeeded()?.stdout.contains("NOT signed"), "{}", told.description());
    let operator = place.operator("operator")?;
    let run = operator.run_json(["hook", "install", &reference])?;
    said(run.exited_with(1)?, &["no trusted key vouches for it", "--allow-unsigned"])?;
    let installed = operator.run_json(["hook", "install", "--allow-unsigned", &reference])?;
    let installed = installed.succeeded()?.json()?;
    ensure!(installed.get("allowed_unsigned").is_some_and(Value::is_string), "{installed}");
    // What is no hook is not pushed at all.
    let file = place.publisher.file("other.wasm", b"\0asm\x01\0\0\0")?;
    let push = [Path::new("hook"), "push".as_ref(), &file, reference.as_ref()];
    said(place.stillpoint.run_json(push)?.exited_with(2)?, &["is not a hook", "not a component"])?;
    drop(registry);
    place.lab.finish()
}

#[test]
fn a_bundle_carries_a_hook_to_a_machine_without_a_network() -> Result<()> {
    let place = Place::new()?;
    let file = place.publisher.signed("mysql.wasm", &place.module)?;
    let directory = place.lab.scratch("bundles")?;
    let bundle = directory.join("mysql.bundle");
    let readme = directory.join("AUTHOR.md");
    fs::write(&readme, "Least privilege: RELOAD.\n")?;
    let make = ["hook", "bundle", "-o"].map(Path::new);
    let made = place.stillpoint.run_json(make.iter().copied().chain([
        &*bundle,
        "--readme".as_ref(),
        &*readme,
        &*file,
    ]))?;
    ensure!(made.succeeded()?.json()?.get("signed") == Some(&Value::Bool(true)));

    // tar and minisign read it without us.
    run("tar", [Path::new("-C"), &directory, "-xf".as_ref(), &bundle])?;
    let out = |name: &str| directory.join(name);
    ensure!(fs::read(out("hook.wasm"))? == place.module);
    place.publisher.verified_by_minisign(&out("hook.wasm"))?;
    ensure!(fs::read_to_string(out("README.md"))?.contains("Least privilege: RELOAD."));
    ensure!(fs::read_to_string(out("grant.toml"))?.contains("FLUSH TABLES WITH READ LOCK"));

    let operator = place.operator("operator")?;
    let install = [Path::new("hook"), "install".as_ref(), &bundle];
    let installed = operator.run_json(install)?.succeeded()?.json()?;
    ensure!(text(&installed, "/source/bundle")? == bundle.display().to_string());
    ensure!(text(&installed, "/signed_by/name")? == "acme");
    ensure!(!operator.config_file("hooks.d/mysql.toml").exists(), "nothing is granted");

    // From an installed hook, on to the next machine.
    let onward = directory.join("onward.bundle");
    operator.run(make.iter().copied().chain([&*onward, "mysql".as_ref()]))?.succeeded()?;
    let next = place.operator("next")?;
    next.run([Path::new("hook"), "install".as_ref(), &onward])?.succeeded()?;
    every_part_of_a_bundle_counts(&place, &bundle)?;
    place.lab.finish()
}

/// One byte of module, signature, or of tar's own.
fn every_part_of_a_bundle_counts(place: &Place, bundle: &Path) -> Result<()> {
    let good = fs::read(bundle)?;
    let find = |what: &[u8]| -> Result<usize> {
        good.windows(what.len()).position(|window| window == what).context("not in the bundle")
    };
    let module = find(&place.module)?;
    let signature = find(b"untrusted comment:")?;
    let second_line =
        signature + good[signature..].iter().position(|&b| b == b'\n').context("one line")? + 41;
    for (name, at, code, words) in [
        ("module", module + place.module.len() / 2, 1, "is not a signature of it"),
        ("signature", second_line, 1, "is not a signature of it"),
        ("name", find(b"hook.wasm\0")?, 2, "a header in it is damaged"),
        ("end", good.len() - 1, 2, "something behind its end"),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let path = bundle.with_file_name(format!("{name}.bundle"));
        fs::write(&path, bytes)?;
        let operator = place.operator(&format!("changed-{name}"))?;
        let run = operator.run_json([Path::new("hook"), "install".as_ref(), &path])?;
        said(run.exited_with(code)?, &[words])
            .with_context(|| format!("one byte of the {name}"))?;
    }
    let cut = bundle.with_file_name("cut.bundle");
    fs::write(&cut, &good[..good.len() / 2])?;
    let run = place.operator("cut")?.run_json([Path::new("hook"), "install".as_ref(), &cut])?;
    said(run.exited_with(2)?, &["is not a bundle: it is cut short", "get it again"])
}

fn said(run: &Run, words: &[&str]) -> Result<()> {
    let text = run.error_text()?;
    for word in words {
        ensure!(text.contains(word), "not said: {word}\n{}", run.description());
    }
    Ok(())
}

fn document(registry: &Registry, path: &str, accept: &str) -> Result<Value> {
    Ok(serde_json::from_str(&registry.get(path, accept)?)?)
}

fn text(document: &Value, pointer: &str) -> Result<String> {
    let text = document.pointer(pointer).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {pointer} in {document}"))?.to_owned())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}
