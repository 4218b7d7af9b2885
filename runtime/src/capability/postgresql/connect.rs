//! The way to a server: a unix socket, TCP, TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{CancelToken, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::capability::Target;
use crate::capability::tls::{certificate_name, client_config};
use crate::config::connections::{Endpoint, Tls};

/// The database that every server has.
const DEFAULT_DATABASE: &str = "postgres";

/// A session, before it is used.
pub(super) struct Connected {
    pub(super) client: Client,
    /// Has to be polled for anything to happen; ends with the session.
    pub(super) connection: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    /// `15.18 (Debian 15.18-1)`, as the server said when it greeted.
    pub(super) version: String,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The socket could not be opened.
    Socket(io::Error),
    /// The authorities' file is of no use.
    Tls(String),
    /// The server refused, or what answered does not speak the protocol.
    Server(Error),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Opens a session.
pub(super) async fn connect(target: &Target) -> Result<Connected, ConnectError> {
    let mut config = config(target);
    match &target.connection.endpoint {
        Endpoint::Socket(path) => start(&config, UnixStream::connect(path).await?, NoTls).await,
        Endpoint::Tcp { host, port, tls } => {
            let stream = tcp(host, *port).await?;
            match encryption(tls, host, target.authorities.as_deref())? {
                None => start(&config, stream, NoTls).await,
                Some(tls) => start(config.ssl_mode(SslMode::Require), stream, tls).await,
            }
        }
    }
}

/// Tells the server, over a second connection, to cancel what a session runs.
pub(super) async fn cancel(target: &Target, token: &CancelToken) -> Result<(), ConnectError> {
    match &target.connection.endpoint {
        Endpoint::Socket(path) => {
            token.cancel_query_raw(UnixStream::connect(path).await?, NoTls).await?;
        }
        Endpoint::Tcp { host, port, tls } => {
            let stream = tcp(host, *port).await?;
            match encryption(tls, host, target.authorities.as_deref())? {
                None => token.cancel_query_raw(stream, NoTls).await?,
                Some(tls) => token.cancel_query_raw(stream, tls).await?,
            }
        }
    }
    Ok(())
}

fn config(target: &Target) -> Config {
    let connection = &target.connection;
    let mut config = Config::new();
    config
        .dbname(connection.database.as_deref().unwrap_or(DEFAULT_DATABASE))
        .application_name("stillpoint")
        .ssl_mode(SslMode::Disable);
    if let Some(user) = &connection.user {
        config.user(user);
    }
    if let Some(secret) = &target.secret {
        config.password(secret.expose());
    }
    config
}

async fn start<S, T>(config: &Config, stream: S, tls: T) -> Result<Connected, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, tls).await?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    // Fused: a connection that has ended is not to be polled again.
    Ok(Connected { client, connection: Box::pin(connection.fuse()), version })
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What encrypts a connection; `None` if it is in the clear.
fn encryption(
    tls: &Tls,
    host: &str,
    authorities: Option<&[u8]>,
) -> Result<
    Option<impl TlsConnect<TcpStream, Stream: Send + 'static, Future: Send> + Send + use<>>,
    ConnectError,
> {
    let Some(config) = client_config(tls, authorities).map_err(ConnectError::Tls)? else {
        return Ok(None);
    };
    let name = certificate_name(tls, host);
    let made =
        MakeTlsConnect::<TcpStream>::make_tls_connect(&mut MakeRustlsConnect::new(config), name);
    made.map(Some).map_err(|error| ConnectError::Tls(format!("`{name}`: {error}")))
}
