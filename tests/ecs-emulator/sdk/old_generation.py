"""Every action through the vendor's SDK of the old generation: version 1.0 of the RPC signature."""

import json

from aliyunsdkcore.acs_exception.exceptions import ClientException, ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526 import (
    CreateSnapshotGroupRequest,
    DeleteSnapshotGroupRequest,
    DescribeDisksRequest,
    DescribeSnapshotGroupsRequest,
    DescribeSnapshotsRequest,
    TagResourcesRequest,
    UntagResourcesRequest,
)

from common import *

HOST, PORT = ECS.removeprefix("http://").split(":")


def client_of(key_id=KEY_ID, secret=SECRET):
    return AcsClient(key_id, secret, REGION, port=int(PORT), auto_retry=False)


client = client_of()


def call(module, method=None, **parameters):
    """Calls the action that the module is named after."""
    name = module.__name__.rsplit(".", 1)[-1]
    request = getattr(module, name)()
    request.set_endpoint(HOST)
    request.set_protocol_type("http")
    if method:
        request.set_method(method)
    for name, value in parameters.items():
        getattr(request, f"set_{name}")(value)
    request.add_query_param("RegionId", REGION)
    return json.loads(client.do_action_with_exception(request))


def refused(code, status, *arguments, **parameters):
    try:
        call(*arguments, **parameters)
    except ServerException as error:
        equal(error.get_error_code(), code, "code")
        equal(error.get_http_status(), status, f"status of {code}")
        true(error.get_request_id(), f"{code} has a request id")
        return error
    raise SystemExit(f"not refused: {code} expected")


for method in ["GET", "POST"]:
    found = call(DescribeDisksRequest, method, InstanceId=INSTANCE, MaxResults=100)
    equal(len(found["Disks"]["Disk"]), 12, "disks")
first = call(DescribeDisksRequest, InstanceId=INSTANCE, MaxResults=10)
second = call(
    DescribeDisksRequest, InstanceId=INSTANCE, MaxResults=10, NextToken=first["NextToken"]
)
equal(len(first["Disks"]["Disk"] + second["Disks"]["Disk"]), 12, "disks on two pages")
equal(second["NextToken"], "", "no third page")
done("DescribeDisks")

order = dict(
    InstanceId=INSTANCE,
    Name="OldSdk",
    Description="nightly: a b+c*~é/中&=%",
    ExcludeDiskIds=["d-sdk02", "d-sdk10"],
    ClientToken="old-token-1",
    InstantAccess=True,
    Tags=[{"Key": "k 1", "Value": "v&=1"}],
)
g = call(CreateSnapshotGroupRequest, "POST", **order)["SnapshotGroupId"]
equal(call(CreateSnapshotGroupRequest, "POST", **order)["SnapshotGroupId"], g, "the same group")
order["Name"] = "OldSdk2"
refused("IdempotentParameterMismatch", 400, CreateSnapshotGroupRequest, "POST", **order)
refused("InvalidDiskId.NotFound", 404, CreateSnapshotGroupRequest, DiskIds=["d-none"])
done("CreateSnapshotGroup")


def group():
    found = call(DescribeSnapshotGroupsRequest, SnapshotGroupIds=[g])
    return found["SnapshotGroups"]["SnapshotGroup"]


equal([group(), group(), group()], [[], [], []], "hidden")
while group()[0]["Status"] == "progressing":
    pass
shown = group()[0]
equal(shown["Status"], "accomplished", "status")
equal(shown["Description"], "nightly: a b+c*~é/中&=%", "description")
ids = [member["SnapshotId"] for member in shown["Snapshots"]["Snapshot"]]
equal(len(ids), 10, "members")
done("DescribeSnapshotGroups")

call(
    TagResourcesRequest,
    ResourceType="snapshot",
    ResourceIds=ids,
    Tags=[{"Key": "FsConsistent", "Value": "True"}],
)
listed = call(DescribeSnapshotsRequest, SnapshotIds=json.dumps(ids), MaxResults=100)
tags = [
    {t["TagKey"]: t["TagValue"] for t in s["Tags"]["Tag"]} for s in listed["Snapshots"]["Snapshot"]
]
equal(tags, [{"k 1": "v&=1", "FsConsistent": "True"}] * 10, "tags")
call(UntagResourcesRequest, ResourceType="snapshot", ResourceIds=ids, All=True)
listed = call(DescribeSnapshotsRequest, SnapshotIds=json.dumps(ids), MaxResults=100)
equal([s["Tags"]["Tag"] for s in listed["Snapshots"]["Snapshot"]], [[]] * 10, "no tags")
done("DescribeSnapshots, TagResources, UntagResources")

call(DeleteSnapshotGroupRequest, SnapshotGroupId=g)
refused("InvalidSnapshotGroupId.NotFound", 404, DeleteSnapshotGroupRequest, SnapshotGroupId=g)
done("DeleteSnapshotGroup")

fault(action="DescribeDisks", error={"code": "Forbidden.RAM"})
refused("Forbidden.RAM", 403, DescribeDisksRequest)
fault(action="DescribeDisks", error={"code": "Throttling"})
refused("Throttling", 400, DescribeDisksRequest)
no_fault()
# The SDK compares what the service would have signed with what it signed: that the code is another
# one says that both texts are the same, and so that it is the secret.
right, client = client, client_of(secret=SECRET + "x")
refused("InvalidAccessKeySecret", 400, DescribeDisksRequest)
client = client_of(key_id="LTAInobody")
refused("InvalidAccessKeyId.NotFound", 404, DescribeDisksRequest)
client = right
fault(action="DescribeDisks", connection="reset-before")
try:
    call(DescribeDisksRequest)
    raise SystemExit("an answer in spite of a reset")
except ClientException as error:
    equal(error.get_error_code(), "SDK.HttpError", "a reset")
no_fault()
done("errors")
