//! One request to ECS, from its arrival to its answer.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Answer, Arrival};
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::{self, Admission, Order};
use crate::credentials::{Caller, is_allowed};
use crate::fault::Fault;
use crate::log::{Logged, now_ns};
use crate::signature::{Claim, Received};
use crate::world::{Attaching, Creation, Shared, World};

/// A request that may be carried out.
struct Call {
    action: String,
    parameters: Parameters,
    admission: Option<Admission>,
}

/// Answers a request. What it does is done even if the client leaves meanwhile.
pub(crate) async fn serve(shared: &Shared, request: &Received, arrival: Arrival) -> Answer {
    let (number, fault, call) = arrive(&mut shared.lock(), request, arrival);
    wait(fault.delay_before_ms).await;
    let result = match call {
        Ok(call) => carry_out(shared, number, &fault, call).await,
        Err(error) => Err(error),
    };
    wait(fault.delay_after_ms).await;
    let request_id = Uuid::new_v4().to_string().to_uppercase();
    let host = request.header("host").unwrap_or_default();
    let code = result.as_ref().err().map(|error| error.code.clone());
    let answer = answer(result, &request_id, host).with(&fault);
    shared.lock().amend(number, |logged| {
        logged.code = code;
        if answer.is_sent() {
            logged.status = Some(answer.status);
            logged.request_id = Some(request_id);
            logged.answered_ns = Some(now_ns());
        }
    });
    answer
}

/// Everything that happens at once when a request arrives: who is it, may he, and has this request
/// been made before.
fn arrive(
    world: &mut World,
    request: &Received,
    arrival: Arrival,
) -> (u64, Fault, Result<Call, ApiError>) {
    let claim = Claim::read(request);
    let action = claim.as_ref().map_or(String::new(), |claim| claim.action.clone());
    let fault = world.arrive(&action);
    let parameters = Parameters::new(request.parameters().unwrap_or_default());
    let number = world.begin(Logged {
        connection: arrival.connection,
        received_ns: arrival.received_ns,
        action: action.clone(),
        method: request.method.clone(),
        path: request.path.clone(),
        host: request.header("host").unwrap_or_default().to_owned(),
        header_names: request.headers.iter().map(|(name, _)| name.clone()).collect(),
        parameters: parameters.for_the_log(),
        fault: Some(fault.summary()).filter(|summary| !summary.is_empty()),
        ..Logged::default()
    });
    let call = claim
        .and_then(|claim| {
            authenticate(world, request, &claim)?;
            world.amend(number, |logged| logged.signature = Some(claim.signature));
            Ok(())
        })
        .and_then(|()| {
            let takes_effect =
                fault.error.is_none() && fault.connection.is_none_or(|fault| fault.has_effect());
            let admission =
                if takes_effect { api::admit(world, &action, &parameters)? } else { None };
            Ok(Call { action, parameters, admission })
        });
    (number, fault, call)
}

fn authenticate(world: &mut World, request: &Received, claim: &Claim) -> Result<(), ApiError> {
    if request.path != "/" || !["GET", "POST"].contains(&request.method.as_str()) {
        return Err(ApiError::documented("InvalidAction.NotFound"));
    }
    let caller = world.credentials.authenticate(claim, &world.scenario, world.now())?;
    if !world.is_new_nonce(&claim.nonce) {
        return Err(ApiError::documented("SignatureNonceUsed"));
    }
    if claim.api_version != api::VERSION {
        return Err(ApiError::documented("InvalidVersion"));
    }
    if !api::ACTIONS.contains(&claim.action.as_str()) {
        return Err(ApiError::documented("InvalidAction.NotFound"));
    }
    if claim.parameters.get("Format").is_some_and(|format| !format.eq_ignore_ascii_case("json")) {
        return Err(ApiError::invalid("Format", "the emulator writes JSON only"));
    }
    if caller == Caller::Role && !is_allowed(&world.scenario, &format!("ecs:{}", claim.action)) {
        return Err(ApiError::documented("Forbidden.RAM"));
    }
    Ok(())
}

async fn carry_out(
    shared: &Shared,
    number: u64,
    fault: &Fault,
    call: Call,
) -> Result<Value, ApiError> {
    if let Some(error) = &fault.error {
        let documented = ApiError::documented(&error.code);
        return Err(ApiError {
            status: error.status.unwrap_or(documented.status),
            message: error.message.clone().unwrap_or(documented.message),
            retry_after_ms: error.retry_after_ms,
            code: documented.code,
        });
    }
    if fault.connection.is_some_and(|fault| !fault.has_effect()) || fault.redirect.is_some() {
        return Ok(json!({}));
    }
    let result = match call.admission {
        Some(Admission::Repeated(group)) => Ok(json!({ "SnapshotGroupId": group })),
        Some(Admission::New(order)) => create(shared, number, &order).await,
        None if call.action == "AttachDisk" => {
            let attaching = api::attach(&mut shared.lock(), &call.parameters);
            attach(shared, attaching).await
        }
        None if call.action == "DetachDisk" => {
            let detaching = api::detach(&mut shared.lock(), &call.parameters);
            detach(shared, detaching).await
        }
        None => api::perform(&mut shared.lock(), &call.action, &call.parameters),
    };
    if result.is_ok() {
        let unknown = call.parameters.unknown();
        shared.lock().amend(number, |logged| {
            logged.effect_ns.get_or_insert_with(now_ns);
            logged.unknown_parameters = unknown;
        });
    }
    result
}

/// Makes a group, and tells the test at that very moment.
async fn create(shared: &Shared, number: u64, order: &Order) -> Result<Value, ApiError> {
    let (creation, listener, command) = {
        let mut world = shared.lock();
        let id = api::create(&mut world, order)?;
        world.amend(number, |logged| logged.effect_ns = Some(now_ns()));
        let members = world.groups.iter().filter(|group| group.id == id);
        let members: Vec<_> = members.flat_map(|group| &group.members).collect();
        let creation = Creation {
            disks: members.iter().map(|member| member.disk.id.clone()).collect(),
            devices: members.iter().map(|member| member.disk.device.clone()).collect(),
            group: id,
        };
        (creation, world.on_create.clone(), world.scenario.on_create.clone())
    };
    let group = creation.group.clone();
    let told = tokio::task::spawn_blocking(move || {
        if let Some(listener) = listener {
            listener(&creation);
        }
        run(&command, &creation.group)
    });
    let failure = ApiError::new(500, "InternalError", "the test's own on_create failed");
    match told.await {
        Ok(true) => Ok(json!({ "SnapshotGroupId": group })),
        _ => Err(failure),
    }
}

/// Attaches a disk: the test says at which device the guest sees it.
async fn attach(
    shared: &Shared,
    attaching: Result<Attaching, ApiError>,
) -> Result<Value, ApiError> {
    let attaching = attaching?;
    let listener = shared.lock().on_attach.clone();
    let disk = attaching.disk.clone();
    let plugged = tokio::task::spawn_blocking(move || listener.and_then(|plug| plug(&attaching)));
    let device = plugged.await.ok().flatten();
    api::attached(&mut shared.lock(), &disk, device);
    Ok(json!({}))
}

/// Detaches a disk, and then tells the test.
async fn detach(
    shared: &Shared,
    detaching: Result<Attaching, ApiError>,
) -> Result<Value, ApiError> {
    let detaching = detaching?;
    let listener = shared.lock().on_detach.clone();
    let pulled = tokio::task::spawn_blocking(move || {
        if let Some(pull) = listener {
            pull(&detaching);
        }
    });
    let failed = |_| ApiError::new(500, "InternalError", "the test's own on_detach failed");
    pulled.await.map_err(failed)?;
    Ok(json!({}))
}

/// Runs the scenario's command, if there is one, and says whether it went well.
fn run(command: &[String], group: &str) -> bool {
    let [program, arguments @ ..] = command else { return true };
    let status = std::process::Command::new(program)
        .args(arguments)
        .env("EMULATOR_GROUP", group)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn answer(result: Result<Value, ApiError>, request_id: &str, host: &str) -> Answer {
    let (status, mut body, retry_after) = match result {
        Ok(body) => (200, body, None),
        Err(error) => (error.status, error.body(request_id, host), error.retry_after_ms),
    };
    body["RequestId"] = json!(request_id);
    let mut answer = Answer::new(status, "application/json;charset=utf-8", body.to_string());
    answer.header("x-acs-request-id", request_id);
    if let Some(milliseconds) = retry_after {
        answer.header("x-acs-retry-after", milliseconds.to_string());
    }
    answer
}

pub(crate) async fn wait(milliseconds: u64) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}
