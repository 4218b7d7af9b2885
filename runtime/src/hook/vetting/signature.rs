//! Detached signatures in minisign's format: Ed25519 over the BLAKE2b-512 hash of the file, and over
//! the signature with its trusted comment. <https://jedisct1.github.io/minisign/#signature-format>

use std::fmt;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::{PublicKeyBox, SecretKeyBox, SignatureBox};
use zeroize::Zeroizing;

use crate::hook::text::clean;

/// Bytes of a signature line: algorithm, key id, Ed25519 signature.
const SIGNATURE_BYTES: usize = 2 + 8 + 64;

/// Bytes of the signature over the trusted comment.
const GLOBAL_BYTES: usize = 64;

/// Bytes of a public key line: algorithm, key id, Ed25519 public key.
const KEY_BYTES: usize = 2 + 8 + 32;

/// Bytes of a secret key line: three algorithms, salt, two limits, key id, key, checksum.
const SECRET_BYTES: usize = 3 * 2 + 32 + 2 * 8 + 8 + 64 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 32;

/// The algorithm of every public key.
const ED25519: &[u8] = b"Ed";

/// A key's id: 8 bytes that find a key among others, and prove nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

/// A signature, in the right form; whether it verifies is another question.
#[derive(Clone)]
pub struct Signature {
    parsed: SignatureBox,
    key_id: KeyId,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(minisign::PublicKey);

/// A secret key, decrypted.
pub struct SecretKey(minisign::SecretKey);

/// Why a secret key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is encrypted, and no password was given.
    #[error("the key is encrypted")]
    Encrypted,
    /// The password is not the one that it was encrypted with.
    #[error("the password is wrong")]
    WrongPassword,
    /// It is not a secret key.
    #[error("it is not a minisign secret key")]
    NotAKey,
    /// Signing, or making a key, failed.
    #[error("the signature cannot be made: {0}")]
    Failed(String),
}

impl KeyId {
    fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    /// As `minisign` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Signature {
    /// Reads the text of a signature file.
    ///
    /// # Errors
    /// In words, if it is not one, or is of the old form that signs the file without hashing it first.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let lines: Vec<&str> = text.lines().collect();
        // The crate indexes into these without looking at their length.
        let has_length = |line: usize, length: usize| {
            lines.get(line).and_then(|line| STANDARD.decode(line.trim()).ok()).map(|b| b.len())
                == Some(length)
        };
        if !has_length(1, SIGNATURE_BYTES) || !has_length(3, GLOBAL_BYTES) {
            return Err(
                "it is not a minisign signature: four lines, the second and the fourth in base64"
                    .into(),
            );
        }
        let parsed =
            SignatureBox::from_string(text).map_err(|error| clean(&error.to_string(), 200))?;
        if !parsed.is_prehashed() {
            return Err(
                "it is of minisign's old form; sign again with a current minisign, or with -H"
                    .into(),
            );
        }
        let key_id = KeyId::of(parsed.keynum()).ok_or("it names no key")?;
        Ok(Self { parsed, key_id })
    }

    /// The key that made it, as it says.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The comment that is signed with it, cleaned. Worth something once the signature has verified.
    #[must_use]
    pub fn trusted_comment(&self) -> String {
        clean(&self.parsed.trusted_comment().unwrap_or_default(), 300)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Reads the text of a public key file: a comment, and the key in base64.
    ///
    /// # Errors
    /// In words, if it is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it is not a minisign public key: a comment, and a line that begins with `RW`"
                .to_owned()
        };
        let line = text.lines().nth(1).ok_or_else(wrong)?;
        let bytes = STANDARD.decode(line.trim()).map_err(|_| wrong())?;
        if bytes.len() != KEY_BYTES || !bytes.starts_with(ED25519) {
            return Err(wrong());
        }
        let boxed = PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key);
        boxed.map(Self).map_err(|_| wrong())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self.0.keynum()).unwrap_or(KeyId([0; 8]))
    }

    /// Checks that this key has signed `module`, and the trusted comment with it.
    ///
    /// # Errors
    /// In words.
    pub fn verify(&self, module: &[u8], signature: &Signature) -> Result<(), String> {
        minisign::verify(&self.0, &signature.parsed, Cursor::new(module), true, false, false)
            .map_err(|error| clean(&error.to_string(), 200))
    }

    /// The text of its file.
    ///
    /// # Errors
    /// [`KeyError::Failed`].
    pub fn to_text(&self) -> Result<String, KeyError> {
        self.0.to_box().map(PublicKeyBox::into_string).map_err(failed)
    }
}

impl SecretKey {
    /// A new key: the text of its file, encrypted if there is a password, and its public half.
    ///
    /// # Errors
    /// [`KeyError::Failed`].
    pub fn generate(
        password: Option<&Zeroizing<String>>,
    ) -> Result<(Zeroizing<String>, PublicKey), KeyError> {
        let pair = match password {
            None => minisign::KeyPair::generate_unencrypted_keypair(),
            Some(password) => {
                minisign::KeyPair::generate_encrypted_keypair(Some(password.as_str().to_owned()))
            }
        }
        .map_err(failed)?;
        let text = pair.sk.to_box(Some("minisign secret key")).map_err(failed)?;
        Ok((Zeroizing::new(text.into_string()), PublicKey(pair.pk)))
    }

    /// Reads the text of a secret key file.
    ///
    /// # Errors
    /// [`KeyError::Encrypted`] if it needs a password and none is given.
    pub fn parse(text: &str, password: Option<&Zeroizing<String>>) -> Result<Self, KeyError> {
        let boxed = || SecretKeyBox::from_string(text).map_err(|_| KeyError::NotAKey);
        let bytes = secret_bytes(text).ok_or(KeyError::NotAKey)?;
        let encrypted = is_encrypted(&bytes).ok_or(KeyError::NotAKey)?;
        let read = match (encrypted, password) {
            // minisign up to 0.11 leaves the checksum of a key without a password empty.
            (false, _) if bytes.ends_with(&[0; CHECKSUM_BYTES]) => {
                minisign::SecretKey::from_bytes(&bytes)
            }
            (false, _) => boxed()?.into_unencrypted_secret_key(),
            (true, None) => return Err(KeyError::Encrypted),
            (true, Some(password)) => boxed()?.into_secret_key(Some(password.as_str().to_owned())),
        };
        read.map(Self).map_err(|error| match error.kind() {
            minisign::ErrorKind::Verify if encrypted => KeyError::WrongPassword,
            _ => KeyError::NotAKey,
        })
    }

    /// Its public half.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`].
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        minisign::PublicKey::from_secret_key(&self.0).map(PublicKey).map_err(|_| KeyError::NotAKey)
    }

    /// The text of a signature file for `module`, with the trusted comment that minisign would write.
    ///
    /// # Errors
    /// [`KeyError::Failed`].
    pub fn sign(&self, module: &[u8], file_name: &str) -> Result<String, KeyError> {
        let now = jiff::Timestamp::now().as_second();
        let trusted = format!("timestamp:{now}\tfile:{}\thashed", clean(file_name, 200));
        let public = self.public()?;
        let untrusted = format!("signature by stillpoint, key {}", public.id());
        minisign::sign(
            Some(&public.0),
            &self.0,
            Cursor::new(module),
            Some(&trusted),
            Some(&untrusted),
        )
        .map(SignatureBox::into_string)
        .map_err(failed)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// What the second line of a secret key file holds.
fn secret_bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.lines().nth(1)?.trim()).ok()?);
    (bytes.len() == SECRET_BYTES).then_some(bytes)
}

/// Whether a secret key is encrypted; `None` if it is not one. Bytes 2 and 3 name the function that
/// makes a key of the password, or none.
fn is_encrypted(bytes: &[u8]) -> Option<bool> {
    match bytes.get(..4)? {
        [b'E', b'd', 0, 0] => Some(false),
        [b'E', b'd', b'S', b'c'] => Some(true),
        _ => None,
    }
}

fn failed(error: minisign::PError) -> KeyError {
    KeyError::Failed(clean(&error.to_string(), 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(module: &[u8]) -> (PublicKey, String) {
        let (text, public) = SecretKey::generate(None).unwrap();
        let secret = SecretKey::parse(&text, None).unwrap();
        (public, secret.sign(module, "hook.wasm").unwrap())
    }

    #[test]
    fn a_signature_verifies_for_its_bytes_and_its_key_alone() {
        let (public, text) = signed(b"module");
        let signature = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(signature.key_id(), public.id());
        assert!(signature.trusted_comment().contains("file:hook.wasm"));
        public.verify(b"module", &signature).unwrap();
        assert!(public.verify(b"modulf", &signature).is_err());
        let (other, _) = signed(b"module");
        assert!(other.verify(b"module", &signature).is_err());
    }

    #[test]
    fn every_changed_byte_of_a_signature_is_noticed() {
        let (public, text) = signed(b"module");
        let comment = text.find('\n').unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let verified = Signature::parse(&bytes)
                .is_ok_and(|signature| public.verify(b"module", &signature).is_ok());
            // The untrusted comment is not signed, and neither is the end of the last line.
            let signed = at >= comment && at + 1 < text.len();
            assert!(!verified || !signed, "byte {at} of {text}");
        }
    }

    #[test]
    fn what_is_not_a_signature_is_refused_in_words_and_ends_nothing() {
        let (_, text) = signed(b"module");
        let lines: Vec<&str> = text.lines().collect();
        let short = STANDARD.encode([b'E'; 20]);
        for wrong in [
            String::new(),
            "\n\n\n\n".into(),
            lines[..3].join("\n"),
            [lines[0], lines[1], lines[2], &short].join("\n"),
            [lines[0], &short, lines[2], lines[3]].join("\n"),
            [lines[0], lines[1], "comment", lines[3]].join("\n"),
            [lines[0], lines[1], lines[2], "not base64!"].join("\n"),
        ] {
            assert!(!Signature::parse(wrong.as_bytes()).unwrap_err().is_empty(), "{wrong}");
        }
        assert!(Signature::parse(&[0xff; 400]).is_err());
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_never_shown() {
        let (text, public) = SecretKey::generate(None).unwrap();
        assert_eq!(PublicKey::parse(&public.to_text().unwrap()).unwrap(), public);
        let secret = SecretKey::parse(&text, None).unwrap();
        assert_eq!(secret.public().unwrap(), public);
        assert_eq!(format!("{secret:?}"), "SecretKey(…)");
        for wrong in ["", "comment\n", "comment\nRWQ\n", "comment\n####\n"] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
            assert_eq!(SecretKey::parse(wrong, None).unwrap_err(), KeyError::NotAKey);
        }
    }

    #[test]
    fn an_encrypted_key_wants_its_password() {
        let password = |text: &str| Zeroizing::new(text.to_owned());
        let (text, public) = SecretKey::generate(Some(&password("right"))).unwrap();
        assert_eq!(SecretKey::parse(&text, None).unwrap_err(), KeyError::Encrypted);
        let wrong = SecretKey::parse(&text, Some(&password("wrong"))).unwrap_err();
        assert_eq!(wrong, KeyError::WrongPassword);
        let key = SecretKey::parse(&text, Some(&password("right"))).unwrap();
        assert_eq!(key.public().unwrap(), public);
    }
}
