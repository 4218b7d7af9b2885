//! When a call is made again, and after how long. Every action here can be repeated: reads change
//! nothing, a creation has its token, a tag or a deletion that is there already is no second one. A
//! disk that was attached or detached by an attempt whose answer was lost is refused by the next: who
//! asks looks at the disk then.

use std::time::Duration;

use crate::error::EcsError;

/// How often a call is made at most.
const ATTEMPTS: u32 = 5;
/// The first wait after a fault of server or connection.
const FAULT: Duration = Duration::from_millis(50);
/// The first wait after throttling.
const THROTTLED: Duration = Duration::from_millis(250);
/// The wait while ECS works on the same token.
const PROCESSING: Duration = Duration::from_millis(200);
/// No wait of ours is longer. What ECS asks for can be.
const LONGEST: Duration = Duration::from_secs(5);

/// How long to wait before attempt number `attempt + 1`; `None`: give up. `spread` (0 to 255) keeps
/// many instances from asking at the same moment.
pub(crate) fn wait(
    error: &EcsError,
    attempt: u32,
    remaining: Duration,
    spread: u8,
) -> Option<Duration> {
    let wanted = match error {
        EcsError::Api { error, .. } if error.is_throttling() => {
            error.retry_after.unwrap_or_else(|| growing(THROTTLED, attempt, spread))
        }
        EcsError::Api { error, .. } if error.is_still_processing() => PROCESSING,
        EcsError::Api { error, .. } if error.is_server_fault() => growing(FAULT, attempt, spread),
        EcsError::Connect { .. }
        | EcsError::NoAnswer { .. }
        | EcsError::TimedOut { .. }
        | EcsError::NotAnAnswer { status: 500.., .. } => growing(FAULT, attempt, spread),
        _ => return None,
    };
    // What is still being worked on ends by the deadline, not by a number of attempts.
    let patient = error.api().is_some_and(|error| error.is_still_processing());
    let again = (patient || attempt < ATTEMPTS) && wanted < remaining;
    again.then_some(wanted)
}

/// Doubled each time, of which three quarters to the whole.
fn growing(first: Duration, attempt: u32, spread: u8) -> Duration {
    let whole = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    whole * 3 / 4 + whole * u32::from(spread) / (4 * 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    const LONG: Duration = Duration::from_secs(30);

    fn api(status: u16, code: &str, retry_after: Option<u64>) -> EcsError {
        let error = ApiError {
            status,
            code: code.into(),
            message: String::new(),
            request_id: None,
            retry_after: retry_after.map(Duration::from_millis),
            clock_ahead: None,
        };
        EcsError::Api { action: "DescribeDisks", error: Box::new(error) }
    }

    #[test]
    fn throttling_waits_as_long_as_ecs_says() {
        let error = api(400, "Throttling.User", Some(730));
        assert_eq!(wait(&error, 1, LONG, 0), Some(Duration::from_millis(730)));
    }

    #[test]
    fn nothing_waits_beyond_the_deadline() {
        let error = api(429, "Throttling", Some(5_000));
        assert_eq!(wait(&error, 1, Duration::from_secs(5), 0), None);
    }

    #[test]
    fn an_error_of_the_request_is_final() {
        for error in [api(403, "Forbidden.RAM", None), api(404, "InvalidDiskId.NotFound", None)] {
            assert_eq!(wait(&error, 1, LONG, 0), None);
        }
    }

    #[test]
    fn faults_are_repeated_with_growing_waits_a_few_times() {
        let error = api(503, "ServiceUnavailable", None);
        let waits: Vec<_> = (1..=5).map(|attempt| wait(&error, attempt, LONG, 255)).collect();
        let expected = [50, 100, 200, 400].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(waits[..4], expected);
        assert_eq!(waits[4], None);
    }
}
