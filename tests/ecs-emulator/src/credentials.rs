//! The credentials of the instance's role: handed out by the metadata service, asked for by ECS.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::api::error::ApiError;
use crate::scenario::Scenario;
use crate::signature::Claim;

/// Renewed this long before they expire.
const RENEWAL_S: u64 = 30 * 60;

/// One set of temporary credentials.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

/// All that were handed out.
#[derive(Default)]
pub(crate) struct Credentials {
    sessions: Vec<Session>,
}

/// Who called, once that is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Role,
    User,
}

impl Credentials {
    /// The current ones; new ones if the current ones are about to expire. The old ones stay good
    /// until they expire.
    pub(crate) fn current(&mut self, lifetime_s: u64, now: Timestamp) -> Session {
        let renewal = RENEWAL_S.min(lifetime_s / 2);
        match self.sessions.last() {
            Some(session) if left(session, now) > seconds(renewal) => session.clone(),
            _ => self.issue(lifetime_s, now),
        }
    }

    /// New ones.
    pub(crate) fn issue(&mut self, lifetime_s: u64, now: Timestamp) -> Session {
        let session = Session {
            access_key_id: format!("STS.NU{}", Uuid::new_v4().simple()),
            secret: format!("canary+Secret/{}", Uuid::new_v4().simple()),
            // As long as real ones, and with characters that have to be encoded.
            token: format!(
                "CAIScanary+{0}/{1}{0}{1}{0}==",
                Uuid::new_v4().simple(),
                Uuid::new_v4().simple()
            ),
            issued: now,
            expires: now.checked_add(seconds(lifetime_s)).unwrap_or(now),
        };
        self.sessions.push(session.clone());
        session
    }

    /// None of them is good any more.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        for session in &mut self.sessions {
            session.expires = session.expires.min(now);
        }
    }

    /// Secrets and tokens that were ever handed out.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let both = |session: &Session| [session.secret.clone(), session.token.clone()];
        self.sessions.iter().flat_map(both).collect()
    }

    /// Verifies that the request is signed by whom it says.
    pub(crate) fn authenticate(
        &self,
        claim: &Claim,
        scenario: &Scenario,
        now: Timestamp,
    ) -> Result<Caller, ApiError> {
        if let Some(key) = scenario.access_keys.iter().find(|key| key.id == claim.access_key_id) {
            claim.verify(&key.secret, now)?;
            return Ok(Caller::User);
        }
        let session = self
            .sessions
            .iter()
            .find(|session| session.access_key_id == claim.access_key_id)
            .ok_or_else(|| ApiError::documented("InvalidAccessKeyId.NotFound"))?;
        claim.verify(&session.secret, now)?;
        match &claim.security_token {
            None => Err(ApiError::documented("MissingSecurityToken")),
            Some(token) if *token != session.token => {
                Err(ApiError::documented("InvalidSecurityToken.MismatchWithAccessKey"))
            }
            Some(_) if session.expires <= now => {
                Err(ApiError::documented("InvalidSecurityToken.Expired"))
            }
            Some(_) => Ok(Caller::Role),
        }
    }
}

/// Whether the role's policy allows an action, `ecs:CreateSnapshotGroup`.
pub(crate) fn is_allowed(scenario: &Scenario, action: &str) -> bool {
    let covers = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, action));
    covers(&scenario.role.allow) && !covers(&scenario.role.deny)
}

/// Whether a pattern with an optional `*` at its end covers an action.
fn fits(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => action.starts_with(start),
        None => pattern == action,
    }
}

fn left(session: &Session, now: Timestamp) -> SignedDuration {
    session.expires.duration_since(now)
}

fn seconds(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}
