"""What the scripts share: where the emulator is, how its mood is changed, how a check fails."""

import json
import os
import urllib.request

ECS = os.environ.get("EMULATOR_ECS", "")
REGION = "cn-hangzhou"
INSTANCE = "i-bp1emulator0000001"
KEY_ID = "LTAI5tSdkSuite0000000001"
# Not a secret: the emulator is told it by the same suite.
SECRET = "sdk/Suite+Secret=0123456789"


def control(method, what, body=None, url=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{url or ECS}/_control/{what}", data=data, method=method
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def fault(**fields):
    """From now on this goes wrong, and nothing else."""
    control("PATCH", "scenario", {"faults": [fields]})


def no_fault():
    control("DELETE", "faults")


def equal(found, expected, what):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, expected {expected!r}")


def true(condition, what):
    if not condition:
        raise SystemExit(f"not so: {what}")


def done(name):
    print(f"ok {name}", flush=True)
