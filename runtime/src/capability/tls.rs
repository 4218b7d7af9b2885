//! Encryption of connections to servers whose clients leave it to us: rustls on ring, and whom to believe.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::connections::Tls;

/// What encrypts a connection; `None` if it is in the clear.
///
/// # Errors
/// In words, if the authorities' file is of no use.
pub(super) fn client_config(
    tls: &Tls,
    authorities: Option<&[u8]>,
) -> Result<Option<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls {
        Tls::Off => return Ok(None),
        Tls::Required => Arc::new(AnyCertificate(Arc::clone(&provider))),
        Tls::Verify { .. } => verifier(&provider, authorities)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Some(config))
}

/// The name that has to be in the certificate.
pub(super) fn certificate_name<'a>(tls: &'a Tls, host: &'a str) -> &'a str {
    match tls {
        Tls::Verify { server_name: Some(name), .. } => name,
        _ => host,
    }
}

/// Believes the authorities of the operator's file, or else those of the system.
fn verifier(
    provider: &Arc<CryptoProvider>,
    authorities: Option<&[u8]>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let Some(pem) = authorities else {
        let system = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
        return Ok(Arc::new(system.map_err(|error| format!("the system's authorities: {error}"))?));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| format!("the file of `ca-file`: {error}"))?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
    Ok(built.build().map_err(|error| format!("the file of `ca-file`: {error}"))?)
}

/// Encrypts, and believes whoever answers: `mode = "required"`. That the other side has the key of the
/// certificate that it shows is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
