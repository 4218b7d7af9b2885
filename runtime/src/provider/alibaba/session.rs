//! Who and where this instance is, its credentials, and the way to ECS: once, before anything is
//! held.

use std::sync::Arc;

use stillpoint_alibaba::{CredentialSource, EcsClient, Endpoint, Metadata};

use super::exit::{credentials_error, ecs_error, metadata_error};
use super::settings::AlibabaSettings;
use crate::provider::ProviderError;

/// An open way to ECS.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) ecs: EcsClient,
    pub(super) instance: String,
}

impl Session {
    pub(super) async fn open(settings: &AlibabaSettings) -> Result<Self, ProviderError> {
        let metadata = Arc::new(Metadata::new(settings.metadata()).map_err(metadata_error)?);
        let instance = match &settings.instance {
            Some(instance) => instance.clone(),
            None => metadata.instance_id().await.map_err(metadata_error)?,
        };
        let region = match &settings.region {
            Some(region) => region.clone(),
            None => metadata.region_id().await.map_err(metadata_error)?,
        };
        let credentials = CredentialSource::connect(metadata, settings.role.as_deref()).await;
        let credentials = Arc::new(credentials.map_err(credentials_error)?);
        let endpoint = match settings.named_endpoint()? {
            Some(endpoint) => endpoint,
            None => {
                Endpoint::of_region(&region, settings.network.into()).await.map_err(ecs_error)?
            }
        };
        tracing::debug!("instance {instance} in {region}, ECS at {}", endpoint.host());
        let ecs = EcsClient::new(endpoint, region, settings.signature.into(), credentials).await;
        Ok(Self { ecs: ecs.map_err(ecs_error)?, instance })
    }
}
