//! One connection: a socket, or TCP with or without TLS, and no more memory for one answer than a bound.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, RedisError, Value as Reply,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::capability::Target;
use crate::capability::tls::{certificate_name, client_config};
use crate::config::connections::{Endpoint, Tls};

/// The longest answer that is taken from a server, in bytes.
pub(super) const LONGEST_ANSWER: usize = 16 << 20;

/// A connection with one command in flight at a time. Dropping it closes it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: Driver,
    left: Arc<AtomicUsize>,
}

/// What moves bytes between the connection and its socket, and owns the socket.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects, and says nothing yet.
    pub(super) async fn connect(target: &Target) -> Result<Self, RedisError> {
        match &target.connection.endpoint {
            Endpoint::Socket(path) => Self::over(UnixStream::connect(path).await?).await,
            Endpoint::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match connector(tls, target.authorities.as_deref())? {
                    None => Self::over(stream).await,
                    Some(encryption) => {
                        let name = server_name(certificate_name(tls, host))?;
                        Self::over(encryption.connect(name, stream).await?).await
                    }
                }
            }
        }
    }

    async fn over<S>(stream: S) -> Result<Self, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let left = Arc::new(AtomicUsize::new(LONGEST_ANSWER));
        let metered = Metered { stream, left: Arc::clone(&left) };
        // Nothing is sent but what is granted, and the greeting; deadlines are the caller's.
        let silent = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driving) =
            MultiplexedConnection::new_with_config(&silent, metered, config).await?;
        let driver = Driver(tokio::spawn(driving));
        Ok(Self { connection, driver, left })
    }

    /// Sends one command, and waits for its answer. Whoever drops the future must close the link: the
    /// answer may still come.
    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Reply, RedisError> {
        self.left.store(LONGEST_ANSWER, Ordering::Relaxed);
        let reply = self.connection.send_packed_command(command).await?;
        // An error of the server, as one.
        reply.extract_error()
    }

    /// True if the connection ended because an answer was too long.
    pub(super) fn was_flooded(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Closes the socket, and returns when it is closed.
    pub(super) async fn close(mut self) {
        self.driver.0.abort();
        // Aborted, or ended by itself: either way it is gone.
        let _ = (&mut self.driver.0).await;
    }
}

fn connector(tls: &Tls, authorities: Option<&[u8]>) -> io::Result<Option<TlsConnector>> {
    let config = client_config(tls, authorities).map_err(io::Error::other)?;
    Ok(config.map(|config| TlsConnector::from(Arc::new(config))))
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|error| io::Error::other(format!("`{name}`: {error}")))
}

/// A stream that fails after so many bytes.
struct Metered<S> {
    stream: S,
    left: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        let left = this.left.load(Ordering::Relaxed).saturating_sub(read);
        this.left.store(left, Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("the server's answer is too long")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
