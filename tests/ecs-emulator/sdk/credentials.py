"""The vendor's credentials providers, old and new, against the emulator's metadata service.

Both have the address 100.100.100.200 built in: this runs in a network namespace whose loopback has
it, and starts the emulator there.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

from alibabacloud_credentials.client import Client as Credentials
from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_credentials.provider.ecs_ram_role import EcsRamRoleCredentialsProvider
from alibabacloud_credentials.models import Config as CredentialsConfig
from alibabacloud_ecs20140526 import models as m
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config
from aliyunsdkcore.auth.credentials import EcsRamRoleCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.DescribeDisksRequest import DescribeDisksRequest
from Tea.exceptions import RetryError

from common import INSTANCE, REGION, control, done, equal, true

ROLE = "AppSnapshotRoleName"
METADATA = "http://100.100.100.200"

emulator = subprocess.Popen(
    [os.environ["EMULATOR"], "--metadata", "100.100.100.200:80"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
)
url = json.loads(emulator.stdout.readline())["ecs_url"]


def scenario(**changes):
    control("PATCH", "scenario", changes, url)
    control("DELETE", "log", url=url)


def paths():
    return [f"{r['method']} {r['action'].removeprefix('metadata:')}" for r in control("GET", "log", url=url)]


def provider(role=None, hardened_only=False):
    return EcsRamRoleCredentialsProvider(
        role_name=role, disable_imds_v1=hardened_only, async_update_enabled=False
    )


def refused(provider, how=CredentialException):
    try:
        provider.get_credentials()
    except how:
        return
    raise SystemExit("credentials where there must be none")


# With a token, and nothing but that: the role is found, its credentials are taken.
for hardened_only in [False, True]:
    scenario(metadata={"plain": not hardened_only})
    found = provider(hardened_only=hardened_only).get_credentials()
    true(found.get_access_key_id().startswith("STS."), "an access key of a role")
    equal(paths(), ["PUT token", "GET roles", "PUT token", "GET role"], "requests")
done("hardened mode")

# No tokens to be had: the provider falls back, unless it must not.
scenario(metadata={"plain": True, "hardened": False})
true(provider(role=ROLE).get_credentials().get_security_token(), "credentials without a token")
equal(paths(), ["PUT token", "GET role"], "requests")
refused(provider(role=ROLE, hardened_only=True))
scenario(metadata={"plain": False, "hardened": False})
refused(provider(role=ROLE))
scenario(metadata={"plain": True, "hardened": True})
done("plain mode")

refused(provider(role="NoSuchRole"))
scenario(role={"name": None})
refused(provider())
scenario(role={"name": ROLE, "code": "Failed"})
refused(provider(role=ROLE))
scenario(role={"code": "Success"})
control("POST", "faults", {"action": "metadata:role", "delay_before_ms": 3000}, url)
refused(provider(role=ROLE), RetryError)
control("DELETE", "faults", url=url)
done("errors")


def status(method, path, **headers):
    request = urllib.request.Request(METADATA + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


TTL = "X-aliyun-ecs-metadata-token-ttl-seconds"
TOKEN = "X-aliyun-ecs-metadata-token"
equal(status("PUT", "/latest/api/token", **{TTL: "21600"}), 200, "a token")
equal(status("PUT", "/latest/api/token"), 400, "a token without its time")
for bad in ["0", "21601", "-1", "x", ""]:
    equal(status("PUT", "/latest/api/token", **{TTL: bad}), 400, f"a token for {bad!r} s")
forwarded = {TTL: "60", "X-Forwarded-For": "10.0.0.1"}
equal(status("PUT", "/latest/api/token", **forwarded), 403, "a token through a proxy")
equal(status("GET", "/latest/meta-data/instance-id", **{TOKEN: "x"}), 401, "a wrong token")
equal(status("GET", "/latest/meta-data/no-such-item"), 404, "an unknown item")
done("tokens")

# The role's credentials, with their security token, are good for ECS until they expire.
credentials = Credentials(CredentialsConfig(type="ecs_ram_role", role_name=ROLE))
new = Client(
    Config(
        credential=credentials,
        endpoint=url.removeprefix("http://"),
        protocol="HTTP",
        region_id=REGION,
    )
)
request = m.DescribeDisksRequest(region_id=REGION, instance_id=INSTANCE)
new.describe_disks(request)
host, port = url.removeprefix("http://").split(":")


def old():
    client = AcsClient(
        region_id=REGION, credential=EcsRamRoleCredential(ROLE), port=int(port), auto_retry=False
    )
    request = DescribeDisksRequest()
    request.set_endpoint(host)
    request.set_protocol_type("http")
    request.add_query_param("RegionId", REGION)
    return json.loads(client.do_action_with_exception(request))


equal(old()["TotalCount"], 0, "disks, by the old generation")
control("POST", "credentials/expire", url=url)
try:
    new.describe_disks(request)
    raise SystemExit("expired credentials are accepted")
except ClientException as error:
    equal(error.code, "InvalidSecurityToken.Expired", "code")
equal(old()["TotalCount"], 0, "disks, with new credentials")
scenario(role={"deny": ["ecs:Describe*"]})
fresh = Client(
    Config(
        credential=Credentials(CredentialsConfig(type="ecs_ram_role", role_name=ROLE)),
        endpoint=url.removeprefix("http://"),
        protocol="HTTP",
        region_id=REGION,
    )
)
try:
    fresh.describe_disks(request)
    raise SystemExit("what the role may not do is done")
except ClientException as error:
    equal((error.code, error.status_code), ("Forbidden.RAM", 403), "code")
done("the role's credentials")

emulator.stdin.close()
equal(emulator.wait(timeout=10), 0, "the emulator ends with its standard input")
sys.stdout.flush()
# The providers' background threads have nothing left to do.
os._exit(0)
