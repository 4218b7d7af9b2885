//! One repository: its manifests and blobs, and what is attached to them.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Method, Response};

use super::error::OciError;
use super::manifest::{
    Descriptor, EMPTY, INDEX, Index, MANIFEST, Manifest, OLDER_WASM, SIGNATURE, WASM, wasm_config,
};
use super::reference::Reference;
use super::transport::{LONGEST_DOCUMENT, Transport, said_digest};
use super::{Artifact, Attached, LONGEST_MODULE, LONGEST_SIGNATURE, Transfer, Watch};
use crate::hook::DetachedSignature;
use crate::hook::digest::Digest;
use crate::hook::text::clean;
use crate::hook::vetting::Signature;

/// The most signatures of one hook that are looked at.
const MOST_SIGNATURES: usize = 16;

/// Says that the registry keeps track of subjects by itself.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

pub(super) struct Repository {
    transport: Transport,
}

/// What was found under a name.
struct Document {
    bytes: Vec<u8>,
    media_type: String,
    digest: Digest,
}

impl Repository {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// The manifest of a hook, and its digest: by what the reference says, digest before tag.
    pub(super) async fn manifest(
        &mut self,
        reference: &Reference,
    ) -> Result<(Digest, Manifest), OciError> {
        let not_a_hook = |problem| OciError::NotAHook { reference: reference.to_string(), problem };
        let asked = reference.asked();
        let types = format!("{MANIFEST}, {INDEX}");
        let found = self.document(&asked, &types, "the hook's manifest").await?;
        let found = found.ok_or_else(|| OciError::NotFound {
            registry: self.transport.registry(),
            what: without_scheme(reference),
        })?;
        if found.media_type == INDEX {
            let problem =
                "there is an index of several manifests; a hook has one for all platforms";
            return Err(not_a_hook(problem.into()));
        }
        let manifest = Manifest::read(&found.bytes).map_err(|problem| OciError::Document {
            what: format!("the manifest of {reference}"),
            problem,
        })?;
        manifest.only_layer(&[WASM, OLDER_WASM]).map_err(not_a_hook)?;
        Ok((found.digest, manifest))
    }

    /// The module that a manifest names.
    pub(super) async fn module(
        &mut self,
        reference: &Reference,
        manifest: &Manifest,
        watch: &Watch,
    ) -> Result<Vec<u8>, OciError> {
        let layer = manifest
            .only_layer(&[WASM, OLDER_WASM])
            .map_err(|problem| OciError::NotAHook { reference: reference.to_string(), problem })?;
        self.blob(layer, LONGEST_MODULE, "module", Some(watch)).await
    }

    /// All signatures that are attached to a manifest.
    pub(super) async fn signatures(
        &mut self,
        of: &Digest,
    ) -> Result<Vec<DetachedSignature>, OciError> {
        let attached = signatures_in(&self.referrers(of).await?)?;
        if attached.len() > MOST_SIGNATURES {
            return Err(OciError::Document {
                what: format!("what is attached to {of}"),
                problem: format!(
                    "there are {} signatures, and {MOST_SIGNATURES} are looked at",
                    attached.len()
                ),
            });
        }
        let mut signatures = Vec::new();
        for one in &attached {
            let from = format!("signature {} in {}", one.digest, self.transport.registry());
            let bytes = self.signature(one, of).await?;
            signatures.push(DetachedSignature { bytes, from });
        }
        Ok(signatures)
    }

    async fn signature(&mut self, at: &Descriptor, of: &Digest) -> Result<Vec<u8>, OciError> {
        let what = "the signature's manifest";
        let found = self.document(&at.digest.to_string(), MANIFEST, what).await?;
        let wrong = |problem: String| OciError::Document { what: what.into(), problem };
        let found = found.ok_or_else(|| wrong(format!("the registry has lost {}", at.digest)))?;
        let manifest = Manifest::read(&found.bytes).map_err(wrong)?;
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        if subject != Some(*of) {
            return Err(wrong(format!("it is attached to {of}, and says that it is not")));
        }
        let layer = manifest.only_layer(&[SIGNATURE]).map_err(wrong)?;
        self.blob(layer, LONGEST_SIGNATURE, "signature", None).await
    }

    /// What refers to a manifest: by the registry's own list, else by the tag that stands for it.
    async fn referrers(&mut self, of: &Digest) -> Result<Index, OciError> {
        let doing = "asking what is attached to the hook";
        let request = self.transport.get(&format!("referrers/{of}"), doing)?.accept(INDEX);
        let response = self.transport.send(&request).await?;
        if response.status().is_success() && media_type(&response) == INDEX {
            let what = "the list of what is attached to the hook";
            let bytes = self.transport.body(response, LONGEST_DOCUMENT, what, |_| {}).await?;
            return read_index(&bytes, what);
        }
        match response.status().as_u16() {
            // What registries that do not know the question answer.
            200 | 400 | 404 | 405 | 501 => self.tagged_referrers(of).await,
            _ => Err(self.transport.refused(doing, response).await),
        }
    }

    async fn tagged_referrers(&mut self, of: &Digest) -> Result<Index, OciError> {
        let what = "the index of what is attached to the hook";
        match self.document(&referrers_tag(of), INDEX, what).await? {
            None => Ok(Index::empty()),
            Some(found) => read_index(&found.bytes, what),
        }
    }

    /// Sends a module and its config, and its manifest by digest; nothing points at it yet.
    pub(super) async fn send_hook(
        &mut self,
        artifact: &Artifact,
        watch: &Watch,
    ) -> Result<Vec<u8>, OciError> {
        let module: Arc<[u8]> = artifact.module.as_slice().into();
        if module.len() as u64 > LONGEST_MODULE {
            return Err(OciError::TooLong { what: "the module".into(), limit: LONGEST_MODULE });
        }
        let config = wasm_config(&module, &artifact.imports, &artifact.exports);
        let manifest = Manifest::of_hook(&config, &module, &artifact.annotations).to_json();
        self.send_blob(&module, "module", Some(watch)).await?;
        self.send_blob(&config.into(), "config", None).await?;
        self.put(&Digest::of(&manifest).to_string(), MANIFEST, &manifest).await?;
        Ok(manifest)
    }

    /// Attaches a signature to a manifest.
    pub(super) async fn attach(
        &mut self,
        manifest: &[u8],
        signature: &[u8],
    ) -> Result<Attached, OciError> {
        if signature.len() as u64 > LONGEST_SIGNATURE {
            return Err(OciError::TooLong {
                what: "the signature".into(),
                limit: LONGEST_SIGNATURE,
            });
        }
        let subject = Descriptor::of(MANIFEST, manifest);
        let of = subject.digest;
        let key = Signature::parse(signature).ok().map(|parsed| parsed.key_id().to_string());
        let own = Manifest::of_signature(signature, key, subject);
        let descriptor = Descriptor::of_signature(&own);
        self.send_blob(&EMPTY.into(), "config", None).await?;
        self.send_blob(&signature.into(), "signature", None).await?;
        let answer = self.put(&descriptor.digest.to_string(), MANIFEST, &own.to_json()).await?;
        if answer.headers().contains_key(OCI_SUBJECT) {
            for earlier in superseded(&self.referrers(&of).await?, &descriptor)? {
                self.delete(&earlier).await?;
            }
            return Ok(Attached::Referrer);
        }
        let mut index = self.tagged_referrers(&of).await?;
        let earlier = superseded(&index, &descriptor)?;
        if index.add(&descriptor, &earlier) {
            self.put(&referrers_tag(&of), INDEX, &index.to_json()).await?;
        }
        Ok(Attached::Tag)
    }

    /// Takes an earlier signature away, in registries that keep track by themselves.
    async fn delete(&mut self, manifest: &Digest) -> Result<(), OciError> {
        let doing = "removing an earlier signature of the same key";
        let request =
            self.transport.request(Method::DELETE, &format!("manifests/{manifest}"), doing)?;
        let response = self.transport.send(&request).await?;
        match response.status().as_u16() {
            202 | 404 => Ok(()),
            _ => Err(self.transport.refused(doing, response).await),
        }
    }

    /// Lets a tag point at a manifest.
    pub(super) async fn tag(&mut self, manifest: &[u8], tag: &str) -> Result<(), OciError> {
        self.put(tag, MANIFEST, manifest).await.map(drop)
    }

    /// A manifest or index by tag or digest, its digest checked; none if there is none.
    async fn document(
        &mut self,
        name: &str,
        types: &str,
        what: &str,
    ) -> Result<Option<Document>, OciError> {
        let doing = format!("reading {what}");
        let request = self.transport.get(&format!("manifests/{name}"), &doing)?.accept(types);
        let response = self.transport.send(&request).await?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => return Err(self.transport.refused(&doing, response).await),
        }
        let (media_type, said) = (media_type(&response), said_digest(&response));
        let bytes = self.transport.body(response, LONGEST_DOCUMENT, what, |_| {}).await?;
        let digest = Digest::of(&bytes);
        // Both: the registry may be wrong about itself, and it may not be what was asked for.
        for expected in name.parse().ok().into_iter().chain(said) {
            if expected != digest {
                return Err(OciError::Changed { what: what.into(), expected, found: digest });
            }
        }
        if !types.split(", ").any(|known| known == media_type) {
            let problem = format!("its type is {}", clean(&media_type, 80));
            return Err(OciError::Document { what: what.into(), problem });
        }
        Ok(Some(Document { bytes, media_type, digest }))
    }

    /// A blob, its size and digest checked.
    async fn blob(
        &mut self,
        at: &Descriptor,
        longest: u64,
        name: &'static str,
        watch: Option<&Watch>,
    ) -> Result<Vec<u8>, OciError> {
        let what = format!("the hook's {name}");
        if at.size > longest {
            return Err(OciError::TooLong { what, limit: longest });
        }
        let doing = format!("reading {what}");
        let limit = self.transport.blob_limit();
        let request = self.transport.get(&format!("blobs/{}", at.digest), &doing)?.within(limit);
        let response = self.transport.send(&request).await?;
        match response.status().as_u16() {
            200 => {}
            404 => {
                let registry = self.transport.registry();
                return Err(OciError::NotFound {
                    registry,
                    what: format!("{what}, {}", at.digest),
                });
            }
            _ => return Err(self.transport.refused(&doing, response).await),
        }
        let told = |done| {
            if let Some(watch) = watch {
                watch.tell(Transfer { what: name, done, total: at.size });
            }
        };
        let size = |what| OciError::Size { what, expected: at.size };
        let bytes = match self.transport.body(response, at.size, &what, told).await {
            Err(OciError::TooLong { what, .. }) => return Err(size(what)),
            other => other?,
        };
        if bytes.len() as u64 != at.size {
            return Err(size(what));
        }
        let found = Digest::of(&bytes);
        if found != at.digest {
            return Err(OciError::Changed { what, expected: at.digest, found });
        }
        Ok(bytes)
    }

    /// Sends a blob, unless it is there.
    async fn send_blob(
        &mut self,
        bytes: &Arc<[u8]>,
        name: &'static str,
        watch: Option<&Watch>,
    ) -> Result<(), OciError> {
        let digest = Digest::of(bytes);
        let doing = format!("looking for the {name}");
        let head = self.transport.request(Method::HEAD, &format!("blobs/{digest}"), &doing)?;
        let status = self.transport.send(&head).await?.status();
        // Where it would be read from, in registries that store elsewhere: it is there.
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let doing = format!("sending the {name}");
        let begin = self.transport.request(Method::POST, "blobs/uploads/", &doing)?;
        let nothing: Arc<[u8]> = Arc::new([]);
        let begin = begin.body("application/octet-stream", &nothing, None);
        let response = self.transport.send(&begin).await?;
        if response.status().as_u16() != 202 {
            return Err(self.transport.refused(&doing, response).await);
        }
        let mut place = self.transport.location(&response, response.url(), &doing)?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let watch = watch.map(|watch| (name, watch.clone()));
        let put = self
            .transport
            .at(Method::PUT, place, &doing)?
            .within(self.transport.blob_limit())
            .body("application/octet-stream", bytes, watch);
        let response = self.transport.send(&put).await?;
        match response.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.transport.refused(&doing, response).await),
        }
    }

    /// Puts a manifest or index under a tag or its digest.
    async fn put(
        &mut self,
        name: &str,
        media_type: &'static str,
        document: &[u8],
    ) -> Result<Response, OciError> {
        let (doing, bytes) = ("writing the manifest", document.into());
        let request = self.transport.request(Method::PUT, &format!("manifests/{name}"), doing)?;
        let response = self.transport.send(&request.body(media_type, &bytes, None)).await?;
        match response.status().as_u16() {
            201 => Ok(response),
            _ => Err(self.transport.refused(doing, response).await),
        }
    }
}

fn signatures_in(index: &Index) -> Result<Vec<Descriptor>, OciError> {
    let what = "the list of what is attached to the hook";
    index.of_type(SIGNATURE).map_err(|problem| OciError::Document { what: what.into(), problem })
}

/// The signatures that this one takes the place of.
fn superseded(index: &Index, by: &Descriptor) -> Result<Vec<Digest>, OciError> {
    let all = signatures_in(index)?;
    Ok(all.iter().filter(|one| by.supersedes(one)).map(|one| one.digest).collect())
}

fn without_scheme(reference: &Reference) -> String {
    let named = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("@{digest}"),
        (None, tag) => format!(":{}", tag.unwrap_or_default()),
    };
    format!("{}{named}", reference.repository())
}

/// The tag that stands for the list of referrers in registries that keep none.
fn referrers_tag(of: &Digest) -> String {
    format!("sha256-{}", of.hex())
}

fn read_index(bytes: &[u8], what: &str) -> Result<Index, OciError> {
    Index::read(bytes).map_err(|problem| OciError::Document { what: what.into(), problem })
}

fn media_type(response: &Response) -> String {
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned()
}
