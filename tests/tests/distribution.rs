use anyhow::Result;
use std::time::Duration;
use stillpoint::hook::oci::*;
use stillpoint_tests::lab::Lab;
use stillpoint_tests::registry::{LOGIN, Options, Registry};

#[tokio::test]
async fn smoke() -> Result<()> {
    let lab = Lab::new(&[], Duration::from_secs(300))?;
    for options in [Options::default(), Options { tls: true, login: true, redirect: None }] {
        let registry = Registry::start(&lab, if options.tls { "tls" } else { "plain" }, &options)?;
        let mut access = Access::default();
        if options.tls {
            access.ca_file = Some(registry.authority());
            access.docker_config =
                Some(registry.docker_config(LOGIN.0, LOGIN.1)?.join("config.json"));
        }
        let reference: Reference = registry.reference("team/mysql:1.0.0").parse()?;
        let artifact = Artifact {
            module: vec![7; 3_000_000],
            signature: Some(b"sig".to_vec()),
            ..Artifact::default()
        };
        let pushed =
            push(&artifact, &reference, &access, &Watch::new(|t| println!("{t:?}"))).await?;
        println!("{pushed:?}");
        let again = push(&artifact, &reference, &access, &Watch::none()).await?;
        assert_eq!(again.reference, pushed.reference);
        let second = Artifact { signature: Some(b"sig2".to_vec()), ..artifact.clone() };
        push(&second, &reference, &access, &Watch::none()).await?;
        let pulled = pull(&reference, &access, &Watch::new(|t| println!("{t:?}"))).await?;
        assert_eq!(pulled.module, artifact.module);
        println!("{:?} {}", pulled.signatures, pulled.reference);
        assert_eq!(pulled.signatures.len(), 2);
    }
    lab.finish()
}
