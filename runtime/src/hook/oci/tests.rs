//! Registries that lie, stall, flood, and send us elsewhere: each is refused in the words that are
//! asserted here, within its bound. Well-behaved ones are Debian's own: tests/tests/distribution.rs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::manifest::{Descriptor, INDEX, Index, MANIFEST, Manifest, wasm_config};
use super::*;

const MODULE: &[u8] = b"\0asm, as far as a registry knows";

/// One request, as it came.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn is(&self, path: &str) -> bool {
        self.line.split(' ').nth(1) == Some(path)
    }

    fn authorization(&self) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix("authorization: "))
    }
}

/// What to do with a request.
enum Answer {
    Whole(String, Vec<u8>),
    /// A head, and then bytes as long as somebody reads.
    Endless(String),
    /// A head that promises a body that never comes.
    Silent(String),
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Answer::Whole(head, body.to_vec())
}

fn not_found() -> Answer {
    answer("404 Not Found", "", b"")
}

/// A server on this machine, and what it was asked. Ends with the process.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    fn plain(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(answers, |stream| Box::new(stream))
    }

    /// With a certificate of its own; the second is its authority, as a file.
    fn with_tls(
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> (Self, tempfile::NamedTempFile) {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(own.cert.pem().as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.unwrap())
            .unwrap();
        let config = Arc::new(config);
        let server = Self::start(answers, move |stream| {
            let tls = rustls::ServerConnection::new(config.clone()).unwrap();
            Box::new(rustls::StreamOwned::new(tls, stream))
        });
        (server, file)
    }

    fn start(
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, shared) = (asked.clone(), Arc::new((answers, wrap)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, shared) = (heard.clone(), shared.clone());
                std::thread::spawn(move || serve(shared.1(stream), &heard, &shared.0));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("oci://{}/{rest}", self.address).parse().unwrap()
    }
}

fn serve(
    mut stream: Box<dyn Stream>,
    heard: &Mutex<Vec<Asked>>,
    answers: &dyn Fn(&Asked) -> Answer,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Like Go's server: what is not HTTP is told so, in HTTP.
        if head.first() == Some(&0x16) {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            return;
        }
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let asked = Asked { line, head, body };
    heard.lock().unwrap().push(asked.clone());
    match answers(&asked) {
        Answer::Whole(head, body) => {
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
            let _ = stream.flush();
        }
        Answer::Endless(head) => {
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&[b'x'; 8192]).is_ok() {}
        }
        Answer::Silent(head) => {
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.flush();
            let _ = stream.read(&mut byte);
        }
    }
}

/// A hook's manifest and its parts, as a registry has them.
fn hook() -> (Vec<u8>, Digest) {
    let config = wasm_config(MODULE, &[], &[]);
    let manifest = Manifest::of_hook(&config, MODULE, &BTreeMap::new()).to_json();
    let digest = Digest::of(&manifest);
    (manifest, digest)
}

fn typed(media_type: &str) -> String {
    format!("Content-Type: {media_type}\r\n")
}

/// A registry that has the hook `mysql:1`, and no signature of it.
fn honest(asked: &Asked) -> Answer {
    let (manifest, digest) = hook();
    let by_digest = format!("/v2/mysql/manifests/{digest}");
    if asked.is("/v2/mysql/manifests/1") || asked.is(&by_digest) {
        return answer("200 OK", &typed(MANIFEST), &manifest);
    }
    if asked.is(&format!("/v2/mysql/blobs/{}", Digest::of(MODULE))) {
        return answer("200 OK", "", MODULE);
    }
    not_found()
}

fn access() -> Access {
    Access {
        docker_config: Some("/nonexistent/config.json".into()),
        limits: Limits {
            stall: Duration::from_millis(600),
            document: Duration::from_secs(5),
            ..Limits::default()
        },
        ..Access::default()
    }
}

/// Docker's file with a name and a password for a server.
fn logged_in(address: &SocketAddr) -> (Access, tempfile::NamedTempFile) {
    let auth = base64::engine::general_purpose::STANDARD.encode("me:geheim");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"{{"auths": {{"{address}": {{"auth": "{auth}"}}}}}}"#).unwrap();
    (Access { docker_config: Some(file.path().into()), ..access() }, file)
}

async fn pulled(server: &Server, access: &Access) -> Result<Pulled, OciError> {
    pull(&server.reference("mysql:1"), access, &Watch::none()).await
}

async fn refusal(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> String {
    let server = Server::plain(answers);
    let error = pulled(&server, &access()).await.unwrap_err();
    told(&error)
}

/// Everything that would be printed of an error.
fn told(error: &OciError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!("\n{cause}"));
        next = cause.source();
    }
    format!("{text}\nhint: {}", error.hint().unwrap_or_default())
}

#[tokio::test]
async fn a_hook_is_pulled_by_tag_and_by_digest_and_its_place_is_pinned() {
    let server = Server::plain(honest);
    let by_tag = pulled(&server, &access()).await.unwrap();
    assert_eq!(by_tag.module, MODULE);
    assert!(by_tag.signatures.is_empty());
    assert_eq!(by_tag.reference.digest(), Some(&hook().1));
    let by_digest = pull(&by_tag.reference, &access(), &Watch::none()).await.unwrap();
    assert_eq!(by_digest.module, MODULE);
    assert!(server.asked().iter().all(|asked| asked.authorization().is_none()));
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_refused() {
    let server = Server::plain(honest);
    let other = Digest::of(b"another manifest");
    let (manifest, digest) = hook();
    let lying = Server::plain(move |_| answer("200 OK", &typed(MANIFEST), &manifest));
    let error = pull(&lying.reference("mysql:1").pinned(other), &access(), &Watch::none()).await;
    let text = told(&error.unwrap_err());
    assert!(text.contains(&format!("its digest is {digest}, not {other}")), "{text}");
    let error = pull(&server.reference("mysql:1").pinned(other), &access(), &Watch::none()).await;
    assert!(told(&error.unwrap_err()).contains(&format!("has no mysql@{other}")));

    let said = refusal(|_| {
        let said = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"x"));
        answer("200 OK", &(typed(MANIFEST) + &said), &hook().0)
    })
    .await;
    assert!(said.contains("the hook's manifest is not what it is said to be"), "{said}");

    let changed = refusal(|asked| match asked.line.contains("/blobs/") {
        true => answer("200 OK", "", &[b"M", &MODULE[1..]].concat()),
        false => honest(asked),
    })
    .await;
    assert!(changed.contains("the hook's module is not what it is said to be"), "{changed}");
    assert!(changed.contains("hint: somebody changed it"), "{changed}");
    for longer in [true, false] {
        let text = refusal(move |asked| match (asked.line.contains("/blobs/"), longer) {
            (true, true) => answer("200 OK", "", &[MODULE, b"more"].concat()),
            (true, false) => answer("200 OK", "", &MODULE[1..]),
            (false, _) => honest(asked),
        })
        .await;
        assert!(text.contains("does not have the 32 bytes that its manifest says"), "{text}");
    }
}

#[tokio::test]
async fn a_flood_ends_at_its_bound_and_silence_at_its_deadline() {
    let flood = |media_type: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", typed(media_type));
        move |_: &Asked| Answer::Endless(head.clone())
    };
    assert!(refusal(flood(MANIFEST)).await.contains("is longer than the 4194304 bytes"));
    let promised = |_: &Asked| {
        let head = format!("{}Content-Length: 99999999999\r\n", typed(MANIFEST));
        Answer::Silent(format!("HTTP/1.1 200 OK\r\n{head}\r\n"))
    };
    assert!(refusal(promised).await.contains("is longer than the 4194304 bytes"));
    let refused = |_: &Asked| Answer::Endless("HTTP/1.1 500 Oh\r\n\r\n".into());
    assert!(refusal(refused).await.contains("answered 500 while reading the hook's manifest"));

    let began = Instant::now();
    let silent = |_: &Asked| {
        let head = format!("{}Content-Length: 99\r\n", typed(MANIFEST));
        Answer::Silent(format!("HTTP/1.1 200 OK\r\n{head}\r\n"))
    };
    let text = refusal(silent).await;
    assert!(text.contains("did not answer in time while reading the hook's manifest"), "{text}");
    let text = refusal(|_| Answer::Silent(String::new())).await;
    assert!(text.contains("did not answer in time"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn we_are_not_sent_to_plain_http_nor_in_circles() {
    let elsewhere = Server::plain(honest);
    let to = format!("http://{}/v2/mysql/manifests/1?signed=geheim", elsewhere.address);
    let location = format!("Location: {to}\r\n");
    let there = location.clone();
    let text = refusal(move |_| answer("307 Temporary Redirect", &there, b"")).await;
    assert!(text.contains("that is plain http, where anybody"), "{text}");
    assert!(!text.contains("geheim"), "the query is a signature: {text}");
    let (secure, authority) =
        Server::with_tls(move |_| answer("307 Temporary Redirect", &location, b""));
    let trusting = Access { ca_file: Some(authority.path().into()), ..access() };
    let text = told(&pulled(&secure, &trusting).await.unwrap_err());
    assert!(text.contains("that is plain http, where anybody"), "{text}");
    assert!(elsewhere.asked().is_empty(), "nobody went there");

    let round = refusal(|_| answer("302 Found", "Location: /v2/mysql/manifests/1\r\n", b"")).await;
    assert!(round.contains("again and again"), "{round}");
    let file = refusal(|_| answer("302 Found", "Location: file:///etc/shadow\r\n", b"")).await;
    assert!(file.contains("neither https nor http"), "{file}");
    let user = refusal(|_| answer("302 Found", "Location: https://a:geheim@b/\r\n", b"")).await;
    assert!(user.contains("has credentials in it") && !user.contains("geheim"), "{user}");
    let nowhere = refusal(|_| answer("302 Found", "", b"")).await;
    assert!(nowhere.contains("no address to go on with"), "{nowhere}");
}

#[tokio::test]
async fn credentials_go_to_the_registry_only_and_only_when_it_asks() {
    let (storage, authority) = Server::with_tls(|_| answer("200 OK", "", MODULE));
    let there = format!("Location: https://{}/blob\r\n", storage.address);
    // The same certificate, so that one authority is enough for both.
    let (registry, other) = Server::with_tls(move |asked| match asked.authorization() {
        None => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", b""),
        Some(_) if asked.line.contains("/blobs/") => answer("307 Moved", &there, b""),
        Some(_) => honest(asked),
    });
    let mut both = std::fs::read_to_string(authority.path()).unwrap();
    both.push_str(&std::fs::read_to_string(other.path()).unwrap());
    std::fs::write(authority.path(), both).unwrap();
    let (access, _file) = logged_in(&registry.address);
    let access = Access { ca_file: Some(authority.path().into()), ..access };
    assert_eq!(pulled(&registry, &access).await.unwrap().module, MODULE);
    let asked = registry.asked();
    assert_eq!(asked[0].authorization(), None, "nobody asked yet");
    assert_eq!(asked[1].authorization(), Some("Basic bWU6Z2VoZWlt"));
    assert_eq!(storage.asked().len(), 1);
    assert_eq!(storage.asked()[0].authorization(), None, "the storage is somebody else");
}

#[tokio::test]
async fn a_token_is_asked_for_this_repository_and_act_alone() {
    let registry = Arc::new(Mutex::new(None::<SocketAddr>));
    let own = registry.clone();
    let server = Server::plain(move |asked| {
        if asked.line.contains("/token?") {
            return answer("200 OK", "", br#"{"access_token": "abc"}"#);
        }
        if asked.authorization() == Some("Bearer abc") {
            return honest(asked);
        }
        let realm = format!("http://{}/token", own.lock().unwrap().unwrap());
        let asks = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
        answer("401 Unauthorized", &asks, b"")
    });
    *registry.lock().unwrap() = Some(server.address);
    let (access, _file) = logged_in(&server.address);
    assert_eq!(pulled(&server, &access).await.unwrap().module, MODULE);
    let tokens: Vec<Asked> =
        server.asked().into_iter().filter(|asked| asked.line.contains("/token?")).collect();
    assert_eq!(tokens.len(), 1, "one token for all requests");
    let line = &tokens[0].line;
    assert!(line.contains("service=s&scope=repository%3Amysql%3Apull "), "{line}");
    assert_eq!(tokens[0].authorization(), Some("Basic bWU6Z2VoZWlt"));

    let text = refusal(|_| {
        let asks = "WWW-Authenticate: Bearer realm=\"http://tokens.example.com/token\"\r\n";
        answer("401 Unauthorized", asks, b"")
    })
    .await;
    assert!(text.contains("plain http"), "a token is not fetched in clear: {text}");
    let text =
        refusal(|_| answer("401 Unauthorized", "WWW-Authenticate: Negotiate\r\n", b"")).await;
    assert!(text.contains("a way that cannot be followed: scheme negotiate"), "{text}");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_which_file_was_read_for_which_registry() {
    let ask = "WWW-Authenticate: Basic realm=\"r\"\r\n";
    let server = Server::plain(move |_| {
        let body = br#"{"errors": [{"code": "UNAUTHORIZED", "message": "no \u001b[31mway"}]}"#;
        answer("401 Unauthorized", ask, body)
    });
    let (access, file) = logged_in(&server.address);
    let text = told(&pulled(&server, &access).await.unwrap_err());
    let (registry, file) = (server.address.to_string(), file.path().display().to_string());
    assert!(text.contains(&registry) && text.contains(&file), "{text}");
    assert!(text.contains("it says: no way (UNAUTHORIZED)"), "{text}");
    assert!(text.contains(&format!("docker login {registry}")), "{text}");
    assert!(!text.contains("geheim") && !text.contains("bWU6Z2VoZWlt"), "{text}");
    assert_eq!(server.asked().len(), 2, "not tried again and again: {:?}", server.asked());
}

#[tokio::test]
async fn a_signature_that_says_it_belongs_to_another_hook_is_refused() {
    let text = refusal(|asked| {
        let (_, digest) = hook();
        let other = Descriptor::of(MANIFEST, b"another hook");
        let own = Manifest::of_signature(b"signature", None, other).to_json();
        let mut entry = Descriptor::of(MANIFEST, &own);
        entry.artifact_type = Some(manifest::SIGNATURE.into());
        if asked.is(&format!("/v2/mysql/referrers/{digest}")) {
            let mut index = Index::empty();
            index.add(&entry, &[]);
            return answer("200 OK", &typed(INDEX), &index.to_json());
        }
        if asked.is(&format!("/v2/mysql/manifests/{}", entry.digest)) {
            return answer("200 OK", &typed(MANIFEST), &own);
        }
        honest(asked)
    })
    .await;
    assert!(text.contains("says that it is not"), "{text}");
}

#[tokio::test]
async fn a_flood_of_signatures_is_refused() {
    let text = refusal(|asked| {
        if asked.is(&format!("/v2/mysql/manifests/sha256-{}", hook().1.hex())) {
            let mut index = Index::empty();
            for number in 0..17u8 {
                let mut entry = Descriptor::of(MANIFEST, &[number]);
                entry.artifact_type = Some(manifest::SIGNATURE.into());
                index.add(&entry, &[]);
            }
            return answer("200 OK", &typed(INDEX), &index.to_json());
        }
        honest(asked)
    })
    .await;
    assert!(text.contains("there are 17 signatures, and 16 are looked at"), "{text}");
}

#[tokio::test]
async fn what_else_is_there_is_named() {
    let text = refusal(|_| answer("200 OK", &typed(INDEX), &Index::empty().to_json())).await;
    assert!(text.contains("is not a hook: there is an index"), "{text}");
    let text = refusal(|_| answer("200 OK", &typed("text/html"), b"<html>")).await;
    assert!(text.contains("its type is text/html"), "{text}");
    let text = refusal(|_| answer("200 OK", &typed(MANIFEST), b"{]")).await;
    assert!(text.contains("cannot be understood"), "{text}");
}

#[tokio::test]
async fn nobody_there_and_nobody_trusted_are_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference: Reference = format!("oci://{gone}/mysql:1").parse().unwrap();
    let text = told(&pull(&reference, &access(), &Watch::none()).await.unwrap_err());
    assert!(text.contains(&format!("{gone} cannot be reached")), "{text}");
    let (server, _authority) = Server::with_tls(honest);
    let text = told(&pulled(&server, &access()).await.unwrap_err());
    assert!(text.contains("is not trusted") && text.contains("--ca-file"), "{text}");
    let plain = Server::plain(honest);
    let (_, authority) = Server::with_tls(honest);
    let strict = Access { ca_file: Some(authority.path().into()), ..access() };
    let text = told(&pulled(&plain, &strict).await.unwrap_err());
    assert!(text.contains("does not speak TLS"), "who names an authority wants TLS: {text}");
}

/// A registry that takes what is pushed and keeps track of subjects by itself.
fn taking(asked: &Asked) -> Answer {
    let there = format!("HEAD /v2/mysql/blobs/{} ", Digest::of(b"{}"));
    match asked.line.split_whitespace().next() {
        Some("HEAD") if asked.line.starts_with(&there) => {
            answer("307 Moved", "Location: http://storage.example.com/\r\n", b"")
        }
        Some("HEAD") => not_found(),
        Some("POST") => answer("202 Accepted", "Location: /upload/1?state=s\r\n", b""),
        Some("PUT") if String::from_utf8_lossy(&asked.body).contains("\"subject\"") => {
            answer("201 Created", "OCI-Subject: sha256:00\r\n", b"")
        }
        Some("PUT") => answer("201 Created", "", b""),
        Some("DELETE") => answer("202 Accepted", "", b""),
        _ if asked.line.contains("/referrers/") => {
            let subject = Descriptor::of(MANIFEST, b"hook");
            let junk = Manifest::of_signature(b"junk", None, subject.clone());
            let other = Manifest::of_signature(b"other", Some("B".into()), subject);
            let mut index = Index::empty();
            index.add(&Descriptor::of_signature(&junk), &[]);
            index.add(&Descriptor::of_signature(&other), &[]);
            answer("200 OK", &typed(INDEX), &index.to_json())
        }
        _ => not_found(),
    }
}

#[tokio::test]
async fn a_push_sets_the_tag_last_and_leaves_referrers_to_a_registry_that_keeps_them() {
    let server = Server::plain(taking);
    let artifact = Artifact {
        module: MODULE.to_vec(),
        signature: Some(b"signature".to_vec()),
        ..Artifact::default()
    };
    let reference = server.reference("mysql:1");
    let pushed = push(&artifact, &reference, &access(), &Watch::none()).await.unwrap();
    assert_eq!(pushed.signature, Some(Attached::Referrer));
    let asked = server.asked();
    let puts: Vec<&Asked> = asked.iter().filter(|one| one.line.starts_with("PUT")).collect();
    let uploads: Vec<_> =
        puts.iter().filter(|one| one.line.contains("/upload/1?state=s&")).collect();
    assert_eq!(uploads.len(), 3, "module, config, signature; what is there is not sent: {asked:?}");
    let digest = Digest::of(MODULE).to_string().replace(':', "%3A");
    assert!(uploads[0].line.contains(&format!("digest={digest}")), "{}", uploads[0].line);
    assert_eq!(uploads[0].body, MODULE);
    assert!(!uploads[0].head.contains("transfer-encoding"), "{}", uploads[0].head);
    assert!(puts.last().unwrap().is("/v2/mysql/manifests/1"), "the tag is set last");
    let tagged = puts.iter().filter(|one| one.is("/v2/mysql/manifests/1")).count();
    assert_eq!(tagged, 1);
    assert!(!puts.iter().any(|one| one.line.contains("/sha256-")), "no tag for referrers");
    let removed: Vec<_> = asked.iter().filter(|one| one.line.starts_with("DELETE")).collect();
    assert_eq!(removed.len(), 1, "what cannot be read goes, what others signed stays: {removed:?}");
    let error = push(&artifact, &pushed.reference, &access(), &Watch::none()).await.unwrap_err();
    assert!(matches!(error, OciError::PushToDigest { .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_to_where_anybody_could_read_it() {
    let server = Server::plain(|asked| match asked.line.starts_with("POST") {
        true => answer("202 Accepted", "Location: http://storage.example.com/upload\r\n", b""),
        false => taking(asked),
    });
    let artifact = Artifact { module: MODULE.to_vec(), ..Artifact::default() };
    let reference = server.reference("mysql:1");
    let error = push(&artifact, &reference, &access(), &Watch::none()).await.unwrap_err();
    let text = told(&error);
    assert!(
        text.contains("to http://storage.example.com/upload while sending the module"),
        "{text}"
    );
}
