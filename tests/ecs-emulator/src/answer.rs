//! What a client gets: an answer, a part of one, or none.

use crate::fault::{ConnectionFault, Fault};

/// When and over which connection a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: u64,
    pub(crate) received_ns: u64,
}

/// An answer, and what becomes of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) connection: Option<ConnectionFault>,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body, connection: None }
    }

    pub(crate) fn header(&mut self, name: &str, value: impl Into<String>) {
        self.headers.push((name.to_owned(), value.into()));
    }

    /// As the fault wants it.
    pub(crate) fn with(mut self, fault: &Fault) -> Self {
        self.connection = fault.connection;
        if let Some(location) = &fault.redirect {
            self.status = 302;
            self.header("location", location.clone());
        }
        self
    }

    /// Whether the client gets all of it.
    pub(crate) fn is_sent(&self) -> bool {
        self.connection.is_none()
    }
}
