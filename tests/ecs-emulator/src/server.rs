//! Connections: HTTP over TCP or TLS, and the ways in which they end before their time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Answer, Arrival};
use crate::fault::ConnectionFault;
use crate::log::now_ns;
use crate::signature::Received;
use crate::world::Shared;
use crate::{control, ecs, metadata};

/// No request is larger.
const MOST_BYTES: usize = 1024 * 1024;

/// Which of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ecs,
    Metadata,
}

/// One service, at one address.
pub(crate) struct Service {
    shared: Shared,
    kind: Kind,
    tls: Option<TlsAcceptor>,
    connections: AtomicU64,
}

impl Service {
    pub(crate) fn new(shared: Shared, kind: Kind, tls: Option<TlsAcceptor>) -> Arc<Self> {
        Arc::new(Self { shared, kind, tls, connections: AtomicU64::new(0) })
    }

    /// Serves connections until the runtime ends.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.clone().connection(stream));
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Answers are small; they do not wait for company.
        let _ = stream.set_nodelay(true);
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let reset = Arc::new(AtomicBool::new(false));
        let socket = Socket { stream, reset: reset.clone() };
        match self.tls.clone() {
            None => self.http(socket, number, reset).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(socket).await {
                    self.http(stream, number, reset).await;
                }
            }
        }
    }

    async fn http<S>(self: Arc<Self>, stream: S, number: u64, reset: Arc<AtomicBool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let respond = |request| self.clone().respond(request, number, reset.clone());
        // An error is a client that left, or a connection that a fault ended.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(respond))
            .await;
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: u64,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<Body>, Ended> {
        let arrival = Arrival { connection, received_ns: now_ns() };
        let received = read(request).await?;
        if received.path.starts_with(control::PREFIX) {
            let (status, body) =
                control::answer(&self.shared, &received.method, &received.path, &received.body);
            return response(&Answer::new(status, "application/json", body.to_string()));
        }
        // In a task of its own: what a request does is done whether its client waits or not.
        let service = self.clone();
        let answer = tokio::spawn(async move {
            match service.kind {
                Kind::Ecs => ecs::serve(&service.shared, &received, arrival).await,
                Kind::Metadata => metadata::serve(&service.shared, &received, arrival).await,
            }
        });
        let answer = answer.await.map_err(|_| Ended)?;
        match answer.connection {
            None | Some(ConnectionFault::Truncate) => response(&answer),
            Some(ConnectionFault::CloseBefore | ConnectionFault::CloseAfter) => Err(Ended),
            Some(ConnectionFault::HangBefore | ConnectionFault::HangAfter) => {
                std::future::pending().await
            }
            Some(ConnectionFault::ResetBefore | ConnectionFault::ResetAfter) => {
                reset.store(true, Ordering::Relaxed);
                Err(Ended)
            }
        }
    }
}

/// The connection is closed.
#[derive(Debug)]
struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is closed, as the test wants it")
    }
}

impl std::error::Error for Ended {}

async fn read(request: Request<Incoming>) -> Result<Received, Ended> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), MOST_BYTES).await.map_err(|_| Ended)?;
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(Received {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.to_vec(),
    })
}

fn response(answer: &Answer) -> Result<Response<Body>, Ended> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let body = answer.body.clone();
    let body = match answer.connection {
        Some(_) => Body::new(Half::of(body)),
        None => Body::from(body),
    };
    response.body(body).map_err(|_| Ended)
}

/// The first half of a body that was announced whole.
struct Half {
    half: Option<Bytes>,
    whole: u64,
    sent: bool,
}

impl Half {
    fn of(body: String) -> Self {
        let bytes = Bytes::from(body);
        let half = bytes.slice(..bytes.len() / 2);
        Self { half: Some(half), whole: bytes.len() as u64, sent: false }
    }
}

impl HttpBody for Half {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        if !self.sent {
            // Once: the half is written out before the end is noticed.
            self.sent = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Ended)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}

/// A TCP connection that ends with RST if it is told to.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
