//! The documents of a registry that a hook needs: manifests, indexes, the config of a component.
//!
//! A hook is a "Wasm OCI artifact" (CNCF TAG Runtime): one layer `application/wasm`, and a config
//! `application/vnd.wasm.config.v0+json`. Its signature is an artifact of its own that has the
//! hook's manifest as its `subject`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hook::digest::Digest;
use crate::hook::text::clean;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(super) const WASM: &str = "application/wasm";

/// What tools called a layer of WebAssembly before there was a convention; still in registries.
pub(super) const OLDER_WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// Type of artifact and layer of a minisign signature.
pub(super) const SIGNATURE: &str = "application/vnd.stillpoint.hook.minisig.v1";

/// The config of an artifact that needs none, and its type.
pub(super) const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

const TITLE: &str = "org.opencontainers.image.title";

const MANIFESTS: &str = "manifests";

/// The id of the key that made a signature: by it, a signature replaces an earlier one.
const KEY: &str = "vnd.stillpoint.hook.key";

/// What a document says of another, or of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Of a signature's manifest, as a list of referrers has it.
    pub(super) fn of_signature(manifest: &Manifest) -> Self {
        Self {
            artifact_type: Some(SIGNATURE.into()),
            annotations: manifest.annotations.clone(),
            ..Self::of(MANIFEST, &manifest.to_json())
        }
    }

    /// Whether this signature takes the place of that one: of the same key, or of none that can be
    /// read. What another key signed stays beside it.
    pub(super) fn supersedes(&self, earlier: &Self) -> bool {
        let key = |of: &Self| of.annotations.get(KEY).cloned();
        let alike = key(earlier).is_none() || key(earlier) == key(self);
        earlier.digest != self.digest && alike
    }

    fn titled(mut self, title: &str) -> Self {
        self.annotations.insert(TITLE.into(), title.into());
        self
    }
}

/// A manifest of an image or artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A list of manifests: here, of what refers to one. What others put into it stays as it is.
#[derive(Clone, Debug)]
pub(super) struct Index(Map<String, Value>);

/// What tools of the ecosystem show about a component without fetching it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: Vec<Digest>,
    component: Component<'a>,
}

#[derive(Debug, Serialize)]
struct Component<'a> {
    exports: &'a [String],
    imports: &'a [String],
}

/// The config of a hook. The same component gives the same bytes, so that pushing it again changes
/// no digest: its time of making is always the epoch.
pub(super) fn wasm_config(module: &[u8], imports: &[String], exports: &[String]) -> Vec<u8> {
    to_json(&WasmConfig {
        created: "1970-01-01T00:00:00Z",
        architecture: "wasm",
        os: "wasip2",
        layer_digests: vec![Digest::of(module)],
        component: Component { exports, imports },
    })
}

impl Manifest {
    /// Of a hook.
    pub(super) fn of_hook(
        config: &[u8],
        module: &[u8],
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            artifact_type: None,
            config: Descriptor::of(WASM_CONFIG, config),
            layers: vec![Descriptor::of(WASM, module).titled("hook.wasm")],
            subject: None,
            annotations: annotations.clone(),
        }
    }

    /// Of a signature of the hook whose manifest `subject` describes, made with the key of this id.
    pub(super) fn of_signature(signature: &[u8], key: Option<String>, subject: Descriptor) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            artifact_type: Some(SIGNATURE.into()),
            config: Descriptor::of(EMPTY_TYPE, EMPTY),
            layers: vec![Descriptor::of(SIGNATURE, signature).titled("hook.wasm.minisig")],
            subject: Some(subject),
            annotations: key.map(|id| (KEY.to_owned(), id)).into_iter().collect(),
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = from_json(bytes)?;
        is_of_version(manifest.schema_version.into(), manifest.media_type.as_deref(), MANIFEST)?;
        Ok(manifest)
    }

    /// The one layer, if it is of one of these types.
    pub(super) fn only_layer(&self, types: &[&str]) -> Result<&Descriptor, String> {
        match self.layers.as_slice() {
            [layer] if types.contains(&layer.media_type.as_str()) => Ok(layer),
            layers => {
                let found: Vec<_> =
                    layers.iter().map(|layer| clean(&layer.media_type, 80)).collect();
                Err(format!(
                    "it has {} layers ({}), not one of type {}",
                    layers.len(),
                    found.join(", "),
                    types.first().unwrap_or(&"")
                ))
            }
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl Index {
    pub(super) fn empty() -> Self {
        let mut fields = Map::new();
        fields.insert("schemaVersion".into(), 2.into());
        fields.insert("mediaType".into(), INDEX.into());
        fields.insert(MANIFESTS.into(), Value::Array(Vec::new()));
        Self(fields)
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let fields: Map<String, Value> = from_json(bytes)?;
        let version = fields.get("schemaVersion").and_then(Value::as_u64).unwrap_or_default();
        let media_type = fields.get("mediaType").and_then(Value::as_str);
        is_of_version(version, media_type, INDEX)?;
        match fields.get(MANIFESTS) {
            Some(Value::Array(_)) => Ok(Self(fields)),
            _ => Err("it has no list `manifests`".into()),
        }
    }

    /// Those that are of this type of artifact.
    pub(super) fn of_type(&self, artifact_type: &str) -> Result<Vec<Descriptor>, String> {
        self.entries()
            .filter(|entry| {
                entry.get("artifactType").and_then(Value::as_str) == Some(artifact_type)
            })
            .map(|entry| {
                Descriptor::deserialize(entry).map_err(|error| clean(&error.to_string(), 200))
            })
            .collect()
    }

    /// Adds one, in the place of those that are named; false if there was nothing to do.
    pub(super) fn add(&mut self, descriptor: &Descriptor, instead_of: &[Digest]) -> bool {
        let Some(Value::Array(all)) = self.0.get_mut(MANIFESTS) else { return false };
        let before = all.len();
        let is = |entry: &Value, digest: &Digest| {
            entry.get("digest").and_then(Value::as_str) == Some(&digest.to_string())
        };
        all.retain(|entry| !instead_of.iter().any(|digest| is(entry, digest)));
        let dropped = all.len() != before;
        if all.iter().any(|entry| is(entry, &descriptor.digest)) {
            return dropped;
        }
        if let Ok(entry) = serde_json::to_value(descriptor) {
            all.push(entry);
        }
        true
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        to_json(&self.0)
    }

    fn entries(&self) -> impl Iterator<Item = &Value> {
        self.0.get(MANIFESTS).and_then(Value::as_array).into_iter().flatten()
    }
}

fn is_of_version(version: u64, found: Option<&str>, wanted: &str) -> Result<(), String> {
    if version != 2 {
        return Err(format!("its schemaVersion is {version}, not 2"));
    }
    match found {
        // What it is was said in the answer's header, then.
        None => Ok(()),
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(format!("its mediaType is {}, not {wanted}", clean(found, 80))),
    }
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| clean(&error.to_string(), 200))
}

/// Our own documents have only strings, numbers and lists in them: they can always be written.
fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_put_into_an_index_stays() {
        let other = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","annotations":{"a":"b"},"manifests":[{"mediaType":"x","digest":"sha512:00","size":1,"platform":{"os":"linux"}}]}"#;
        let mut index = Index::read(other.as_bytes()).unwrap();
        let signed = |bytes: &[u8], key: Option<&str>| {
            let subject = Descriptor::of(MANIFEST, b"hook");
            Descriptor::of_signature(&Manifest::of_signature(bytes, key.map(Into::into), subject))
        };
        let (stale, other) = (signed(b"stale", Some("A")), signed(b"other", Some("B")));
        let (junk, own) = (signed(b"junk", None), signed(b"own", Some("A")));
        for earlier in [&stale, &other, &junk] {
            assert!(index.add(earlier, &[]) && !index.add(earlier, &[]));
        }
        let all = index.of_type(SIGNATURE).unwrap();
        let gone: Vec<Digest> =
            all.iter().filter(|one| own.supersedes(one)).map(|one| one.digest).collect();
        assert_eq!(gone, [stale.digest, junk.digest]);
        assert!(index.add(&own, &gone));
        assert_eq!(index.of_type(SIGNATURE).unwrap(), [other, own]);
        let written = String::from_utf8(index.to_json()).unwrap();
        assert!(
            written.contains("\"platform\":{\"os\":\"linux\"}") && written.contains("\"a\":\"b\""),
            "{written}"
        );
    }

    #[test]
    fn the_same_hook_has_the_same_manifest() {
        let of = || {
            let config = wasm_config(b"module", &["i".into()], &["e".into()]);
            Manifest::of_hook(&config, b"module", &BTreeMap::new()).to_json()
        };
        assert_eq!(of(), of());
        let manifest = Manifest::read(&of()).unwrap();
        assert_eq!(manifest.config.media_type, "application/vnd.wasm.config.v0+json");
        assert_eq!(
            manifest.only_layer(&["application/wasm"]).unwrap().digest,
            Digest::of(b"module")
        );
    }

    #[test]
    fn an_image_of_a_container_is_no_hook() {
        let text = r#"{"schemaVersion":2,"config":{"mediaType":"c","digest":"DIGEST","size":1},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"DIGEST","size":1}]}"#;
        let text = text.replace("DIGEST", &Digest::of(b"").to_string());
        let problem = Manifest::read(text.as_bytes()).unwrap().only_layer(&[WASM]).unwrap_err();
        assert!(problem.contains("tar+gzip") && problem.contains("application/wasm"), "{problem}");
    }
}
