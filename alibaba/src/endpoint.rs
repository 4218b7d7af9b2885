//! Where ECS of a region answers. Inside a VPC that is `ecs-vpc.<region>.aliyuncs.com`, which needs
//! no public network; from outside `ecs.<region>.aliyuncs.com`, or what the vendor's SDK has as
//! exceptions.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::error::EcsError;

/// Another place, for tests and private deployments.
pub const ENDPOINT_VARIABLE: &str = "ALIBABA_CLOUD_ECS_ENDPOINT";

/// How long one endpoint has to resolve and to accept a connection, each.
const ONE_TRY: Duration = Duration::from_secs(2);

/// Which way to ECS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The endpoint in the VPC if it accepts a connection, else the public one.
    #[default]
    Auto,
    /// The endpoint in the VPC.
    Vpc,
    /// The public endpoint.
    Public,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: Url,
    /// Found before: a connection that must be opened again needs no DNS.
    addresses: Vec<SocketAddr>,
    /// The proxy of the environment is used, if one is set.
    proxied: bool,
}

/// The public endpoints that the rule does not give (the vendor's SDK 7.11.8 has this table).
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "ecs-cn-hangzhou.aliyuncs.com",
        &[
            "cn-hangzhou",
            "cn-shanghai-finance-1",
            "cn-shenzhen-finance-1",
            "cn-beijing-nu16-b01",
            "cn-fujian",
            "cn-haidian-cm12-c01",
            "cn-hangzhou-bj-b01",
            "cn-hangzhou-internal-prod-1",
            "cn-hangzhou-internal-test-1",
            "cn-hangzhou-internal-test-2",
            "cn-hangzhou-internal-test-3",
            "cn-hangzhou-test-306",
            "cn-shanghai-et15-b01",
            "cn-shanghai-et2-b01",
            "cn-shanghai-internal-test-1",
            "cn-shenzhen-st4-d01",
            "cn-shenzhen-su18-b01",
            "cn-zhangbei-na61-b01",
        ],
    ),
    (
        "ecs.aliyuncs.com",
        &[
            "cn-north-2-gov-1",
            "ap-northeast-2-pop",
            "cn-beijing-finance-pop",
            "cn-beijing-gov-1",
            "cn-hangzhou-finance",
            "cn-hongkong-finance-pop",
            "cn-shanghai-inner",
            "cn-shenzhen-inner",
            "cn-wuhan",
            "cn-yushanfang",
            "cn-zhangbei",
            "rus-west-1-pop",
        ],
    ),
    (
        "ecs.cn-qingdao-nebula.aliyuncs.com",
        &["cn-edge-1", "cn-huhehaote-nebula-1", "cn-zhengzhou-nebula-1"],
    ),
    ("ecs.cn-zhangjiakou.aliyuncs.com", &["cn-zhangjiakou-na62-a01"]),
    ("ecs.cn-shenzhen-cloudstone.aliyuncs.com", &["eu-west-1-oxs"]),
];

/// The public endpoint of a region.
#[must_use]
pub fn public_host(region: &str) -> String {
    let exception = EXCEPTIONS.iter().find(|(_, regions)| regions.contains(&region));
    exception.map_or_else(|| format!("ecs.{region}.aliyuncs.com"), |(host, _)| (*host).to_owned())
}

/// The endpoint of a region inside its VPCs.
#[must_use]
pub fn vpc_host(region: &str) -> String {
    format!("ecs-vpc.{region}.aliyuncs.com")
}

impl Endpoint {
    /// An endpoint that the operator names: `https://host[:port]`, or a bare host. `http://` only
    /// with a loopback address.
    ///
    /// # Errors
    /// [`EcsError::Endpoint`] if it is not one.
    pub fn named(text: &str) -> Result<Self, EcsError> {
        let wrong = |problem| EcsError::Endpoint { endpoint: text.to_owned(), problem };
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&whole).map_err(|_| wrong("it is not a URL"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a path or a query"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let endpoint = url.host_str().unwrap_or_default().to_owned();
            let problem = "it is given with a user name or a password";
            return Err(EcsError::Endpoint { endpoint, problem });
        }
        let loopback = is_loopback(&url);
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(wrong("http:// is for loopback addresses only")),
            _ => return Err(wrong("it is neither https:// nor http://")),
        }
        Ok(Self { url, addresses: Vec::new(), proxied: !loopback })
    }

    /// The endpoint of a region. `Auto` looks once which one accepts a connection: the one in the
    /// VPC first.
    ///
    /// # Errors
    /// [`EcsError::Unreachable`] if none does, with what became of each.
    pub async fn of_region(region: &str, network: Network) -> Result<Self, EcsError> {
        let vpc = || Ok::<_, EcsError>(Self { proxied: false, ..Self::named(&vpc_host(region))? });
        let public = || Self::named(&public_host(region));
        let candidates = match network {
            Network::Auto => vec![vpc()?, public()?],
            Network::Vpc => vec![vpc()?],
            Network::Public => vec![public()?],
        };
        let mut tried = Vec::new();
        for candidate in candidates {
            match candidate.reached().await {
                Ok(endpoint) => return Ok(endpoint),
                Err(why) => tried.push(why),
            }
        }
        Err(EcsError::Unreachable { region: region.to_owned(), tried })
    }

    /// Resolves the host and sees whether it accepts a connection. Behind a proxy neither can be
    /// known from here.
    async fn reached(mut self) -> Result<Self, String> {
        if self.proxied && proxy_in_environment() {
            return Ok(self);
        }
        let host = self.host();
        self.addresses = self.resolve().await.map_err(|why| format!("{host}: {why}"))?;
        let mut last = "it has no address".to_owned();
        for address in &self.addresses {
            match timeout(ONE_TRY, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(self),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no connection within {ONE_TRY:?}"),
            }
        }
        Err(format!("{host}: {last}"))
    }

    /// Resolves the host now, so that the window needs no DNS.
    pub(crate) async fn pinned(mut self) -> Self {
        let through_proxy = self.proxied && proxy_in_environment();
        if self.addresses.is_empty() && !through_proxy {
            // If it does not resolve, the first request says so.
            self.addresses = self.resolve().await.unwrap_or_default();
        }
        self
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.url.port_or_known_default().unwrap_or(443);
        let found = timeout(ONE_TRY, lookup_host((host, port))).await;
        let found = found.map_err(|_| format!("its name does not resolve within {ONE_TRY:?}"))?;
        let found = found.map_err(|error| format!("its name does not resolve: {error}"))?;
        Ok(found.collect())
    }

    /// The host, with its port if that is unusual: the header `Host`.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn domain(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    pub(crate) fn is_proxied(&self) -> bool {
        self.proxied
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// True if the environment names a proxy for `https://`.
fn proxy_in_environment() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_endpoint_follows_the_rule_but_for_the_exceptions() {
        assert_eq!(public_host("cn-shanghai"), "ecs.cn-shanghai.aliyuncs.com");
        assert_eq!(public_host("cn-hangzhou"), "ecs-cn-hangzhou.aliyuncs.com");
        assert_eq!(public_host("cn-wuhan"), "ecs.aliyuncs.com");
        assert_eq!(vpc_host("cn-hangzhou"), "ecs-vpc.cn-hangzhou.aliyuncs.com");
    }

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:80", "https://ecs.example", "ecs.cn"] {
            Endpoint::named(good).unwrap();
        }
        for bad in [
            "http://ecs.cn-hangzhou.aliyuncs.com",
            "http://127.0.0.1.example",
            "ftp://127.0.0.1",
            "https://user:word@ecs.example",
            "https://ecs.example/path",
            "https://",
        ] {
            let error = Endpoint::named(bad).unwrap_err();
            assert!(matches!(error, EcsError::Endpoint { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_host_header_has_the_port_only_if_it_is_unusual() {
        assert_eq!(Endpoint::named("https://ecs.example:443").unwrap().host(), "ecs.example");
        assert_eq!(Endpoint::named("http://127.0.0.1:8080").unwrap().host(), "127.0.0.1:8080");
    }
}
