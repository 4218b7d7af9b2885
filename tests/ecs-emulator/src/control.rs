//! `/_control/…`: what a test in another language does to the emulator, on either address. Bodies
//! are JSON; so are the answers.
//!
//! | request | does |
//! |---|---|
//! | `GET log`, `DELETE log` | gives, forgets the requests that came |
//! | `GET groups` | gives the groups as they are, members and tags |
//! | `GET scenario` | gives it, without its secrets |
//! | `PUT scenario` | sets it; what is not given has its default |
//! | `PATCH scenario` | changes what is given, and nothing else |
//! | `POST faults`, `DELETE faults` | adds one or a list of them, removes all |
//! | `POST credentials/expire` | the role's credentials are not good any more |
//! | `POST credentials/renew` | the role has new ones; the old ones stay good |

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::group::GroupView;
use crate::scenario::Scenario;
use crate::world::{Shared, World};

/// Where it is.
pub(crate) const PREFIX: &str = "/_control/";

/// HTTP status and body.
pub(crate) fn answer(shared: &Shared, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    match act(&mut shared.lock(), method, path.trim_start_matches(PREFIX), body) {
        Ok(Some(value)) => (200, value),
        Ok(None) => (404, json!({ "error": format!("no {method} {path}") })),
        Err(error) => (400, json!({ "error": error.to_string() })),
    }
}

fn act(
    world: &mut World,
    method: &str,
    what: &str,
    body: &[u8],
) -> Result<Option<Value>, serde_json::Error> {
    let done = Ok(Some(json!({})));
    match (method, what) {
        ("GET", "log") => serde_json::to_value(&world.log).map(Some),
        ("DELETE", "log") => {
            world.log.clear();
            done
        }
        ("GET", "groups") => {
            let groups: Vec<_> = world.groups.iter().map(GroupView::of).collect();
            serde_json::to_value(groups).map(Some)
        }
        ("GET", "scenario") => without_secrets(&world.scenario).map(Some),
        ("PUT", "scenario") => {
            world.set_scenario(serde_json::from_slice(body)?);
            done
        }
        ("PATCH", "scenario") => {
            let mut scenario = serde_json::to_value(&world.scenario)?;
            merge(&mut scenario, serde_json::from_slice(body)?);
            world.set_scenario(serde_json::from_value(scenario)?);
            done
        }
        ("POST", "faults") => {
            let mut scenario = world.scenario.clone();
            scenario.faults.extend(one_or_many(body)?);
            world.set_scenario(scenario);
            done
        }
        ("DELETE", "faults") => {
            let scenario = Scenario { faults: Vec::new(), ..world.scenario.clone() };
            world.set_scenario(scenario);
            done
        }
        ("POST", "credentials/expire") => {
            let now = world.now();
            world.credentials.expire(now);
            done
        }
        ("POST", "credentials/renew") => {
            let now = world.now();
            world.credentials.issue(world.scenario.role.lifetime_s, now);
            done
        }
        _ => Ok(None),
    }
}

fn one_or_many(body: &[u8]) -> Result<Vec<Fault>, serde_json::Error> {
    match serde_json::from_slice(body)? {
        Value::Array(faults) => faults.into_iter().map(serde_json::from_value).collect(),
        fault => serde_json::from_value(fault).map(|fault| vec![fault]),
    }
}

fn without_secrets(scenario: &Scenario) -> Result<Value, serde_json::Error> {
    let mut scenario = scenario.clone();
    for key in &mut scenario.access_keys {
        "***".clone_into(&mut key.secret);
    }
    serde_json::to_value(scenario)
}

/// Objects are merged, everything else replaces: a null too, for what may be absent.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}
