"""Every action through the vendor's SDK of today: version 3 of the signature, typed models.

With the argument `rpc`, the same SDK signs by version 1.0 of the RPC style.
"""

import json
import sys

from alibabacloud_ecs20140526 import models as m
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config

from common import *

RPC = "rpc" in sys.argv[1:]


def client_of(key_id=KEY_ID, secret=SECRET):
    return Client(
        Config(
            access_key_id=key_id,
            access_key_secret=secret,
            endpoint=ECS.removeprefix("http://"),
            protocol="HTTP",
            region_id=REGION,
            signature_algorithm="v2" if RPC else None,
        )
    )


client = client_of()


def refused(call, code, status):
    try:
        call()
    except ClientException as error:
        equal(error.code, code, "code")
        equal(error.status_code, status, f"status of {code}")
        true(error.request_id, f"{code} has a request id")
        return error
    raise SystemExit(f"not refused: {code} expected")


def disks(**more):
    request = m.DescribeDisksRequest(region_id=REGION, instance_id=INSTANCE, **more)
    return client.describe_disks(request).body


def create(**more):
    request = m.CreateSnapshotGroupRequest(region_id=REGION, **more)
    return client.create_snapshot_group(request).body.snapshot_group_id


def groups(**more):
    request = m.DescribeSnapshotGroupsRequest(region_id=REGION, **more)
    return client.describe_snapshot_groups(request).body


def group(group_id):
    return groups(snapshot_group_id=[group_id]).snapshot_groups.snapshot_group


def snapshots(**more):
    request = m.DescribeSnapshotsRequest(region_id=REGION, **more)
    return client.describe_snapshots(request).body


def tag(ids, tags):
    tags = [m.TagResourcesRequestTag(key=key, value=value) for key, value in tags.items()]
    request = m.TagResourcesRequest(
        region_id=REGION, resource_type="snapshot", resource_id=ids, tag=tags
    )
    return client.tag_resources(request).body


def delete(group_id):
    request = m.DeleteSnapshotGroupRequest(region_id=REGION, snapshot_group_id=group_id)
    return client.delete_snapshot_group(request).body


def finish(group_id):
    while group(group_id)[0].status == "progressing":
        pass


# DescribeDisks: typed, filtered, paged.
page = disks(max_results=10)
found = list(page.disks.disk)
equal(len(found), 10, "disks on the first page")
equal(page.total_count, 12, "disks in all")
while page.next_token:
    page = disks(max_results=10, next_token=page.next_token)
    found += page.disks.disk
equal([disk.disk_id for disk in found], [f"d-sdk{n:02}" for n in range(12)], "all disks")
first = found[0]
equal(first.device, "/dev/loop100", "device")
equal(first.serial_number, "sdk00", "serial number")
equal(first.category, "cloud_essd", "category")
equal(first.size, 40, "size")
equal(first.type, "data", "type")
equal(first.multi_attach, "Disabled", "multi-attach")
equal(first.attachments.attachment[0].instance_id, INSTANCE, "attachment")
equal(first.tags.tag[0].tag_key, "disk tag", "tag of a disk")
one = disks(disk_ids=json.dumps(["d-sdk03"]), category="all").disks.disk
equal([disk.disk_id for disk in one], ["d-sdk03"], "disk by id")
refused(lambda: disks(next_token="another list's"), "InvalidParameter", 400)
done("DescribeDisks")

# CreateSnapshotGroup: everything that is given comes back; what must not be is refused.
g = create(
    instance_id=INSTANCE,
    name="Sdk-group_1.0:中",
    description="nightly: a b+c*~é/中&=%",
    exclude_disk_id=["d-sdk02", "d-sdk10"],
    client_token="sdk-token-1",
    instant_access=True,
    instant_access_retention_days=3,
    tag=[m.CreateSnapshotGroupRequestTag(key="k 1", value="v&=1")],
)
true(g.startswith("ssg-"), "the id of a group")
again = lambda name: create(
    instance_id=INSTANCE,
    name=name,
    description="nightly: a b+c*~é/中&=%",
    exclude_disk_id=["d-sdk02", "d-sdk10"],
    client_token="sdk-token-1",
    instant_access=True,
    instant_access_retention_days=3,
    tag=[m.CreateSnapshotGroupRequestTag(key="k 1", value="v&=1")],
)
equal(again("Sdk-group_1.0:中"), g, "the same token gives the same group")
refused(lambda: again("another"), "IdempotentParameterMismatch", 400)
refused(lambda: create(instance_id="i-other"), "InvalidInstanceId.NotFound", 404)
refused(lambda: create(), "MissingParameter", 400)
refused(lambda: create(disk_id=["d-none"]), "InvalidDiskId.NotFound", 404)
refused(
    lambda: create(instance_id=INSTANCE, disk_id=["d-sdk00"], exclude_disk_id=["d-sdk01"]),
    "InvalidParameter.Conflict",
    400,
)
for name in ["x", "1st", "http://name", "a" * 129, "a b"]:
    refused(lambda: create(disk_id=["d-sdk02"], name=name), "InvalidSnapshotName.Malformed", 400)
for text in ["x", "https://text", "a" * 257]:
    refused(
        lambda: create(disk_id=["d-sdk02"], description=text), "InvalidDescription.Malformed", 400
    )
refused(
    lambda: create(disk_id=["d-sdk00"]), "IncorrectDiskStatus.CreatingSnapshot", 403
)
done("CreateSnapshotGroup")

# DescribeSnapshotGroups: not there at first, then progressing, then accomplished.
equal([group(g) or [] for _ in range(3)], [[], [], []], "hidden")
shown = group(g)[0]
equal(shown.status, "progressing", "status")
equal(shown.name, "Sdk-group_1.0:中", "name")
equal(shown.description, "nightly: a b+c*~é/中&=%", "description")
equal(shown.instance_id, INSTANCE, "instance")
equal([(t.key, t.value) for t in shown.tags.tag], [("k 1", "v&=1")], "tags of a group")
members = shown.snapshots.snapshot
equal(len(members), 10, "members")
equal({member.progress for member in members}, {"0%"}, "progress")
equal({member.available for member in members}, {False}, "available")
shown = group(g)[0]
equal({member.progress for member in shown.snapshots.snapshot}, {"50%"}, "progress")
equal({member.available for member in shown.snapshots.snapshot}, {True}, "available")
shown = group(g)[0]
equal(shown.status, "accomplished", "status")
equal({member.progress for member in shown.snapshots.snapshot}, {"100%"}, "progress")
equal(len(groups(status=["accomplished"]).snapshot_groups.snapshot_group), 1, "by status")
equal(len(groups(status=["failed"]).snapshot_groups.snapshot_group), 0, "by status")
equal(len(groups(name="Sdk-group_1.0:中").snapshot_groups.snapshot_group), 1, "by name")
by_tag = [m.DescribeSnapshotGroupsRequestTag(key="k 1", value="v&=1")]
equal(len(groups(tag=by_tag).snapshot_groups.snapshot_group), 1, "by tag")
done("DescribeSnapshotGroups")

# DescribeSnapshots: the members, paged; tags appear in both lists.
ids = [member.snapshot_id for member in members]
page = snapshots(snapshot_ids=json.dumps(ids), max_results=4)
listed = list(page.snapshots.snapshot)
equal(len(listed), 4, "snapshots on the first page")
while page.next_token:
    page = snapshots(snapshot_ids=json.dumps(ids), max_results=4, next_token=page.next_token)
    listed += page.snapshots.snapshot
equal(sorted(s.snapshot_id for s in listed), sorted(ids), "snapshots")
one = listed[0]
equal((one.status, one.progress, one.available), ("accomplished", "100%", True), "a snapshot")
equal(one.source_disk_size, "40", "size, as text")
equal(one.source_disk_type, "data", "type of the disk")
true(tag(ids, {"AppConsistent": "True", "empty": ""}).request_id, "TagResources answers")
tagged = snapshots(snapshot_ids=json.dumps(ids[:1])).snapshots.snapshot[0]
tags = {t.tag_key: t.tag_value for t in tagged.tags.tag}
equal(tags, {"k 1": "v&=1", "AppConsistent": "True", "empty": ""}, "tags of a snapshot")
in_group = {t.key for t in group(g)[0].snapshots.snapshot[0].tags.tag}
equal(in_group, {"k 1", "AppConsistent", "empty"}, "tags of a member")
refused(lambda: tag(ids, {"aliyun-x": "1"}), "InvalidTagKey.Malformed", 400)
refused(lambda: tag(ids, {"acs:x": "1"}), "InvalidTagKey.Malformed", 400)
refused(lambda: tag(ids, {"k": "v" * 129}), "InvalidTagValue.Malformed", 400)
refused(lambda: tag(ids, {f"k{n}": "v" for n in range(18)}), "QuotaExceed.Tags", 400)
refused(lambda: tag(["s-none"], {"k": "v"}), "InvalidResourceId.NotFound", 404)
untag = m.UntagResourcesRequest(
    region_id=REGION, resource_type="snapshot", resource_id=ids, tag_key=["empty"]
)
client.untag_resources(untag)
tagged = snapshots(snapshot_ids=json.dumps(ids[:1])).snapshots.snapshot[0]
equal({t.tag_key for t in tagged.tags.tag}, {"k 1", "AppConsistent"}, "after UntagResources")
done("DescribeSnapshots, TagResources, UntagResources")

# CreateDisk, AttachDisk, DetachDisk, DeleteDisk: a disk of a snapshot, there and back.
def make(**more):
    given = dict(
        region_id=REGION,
        zone_id=f"{REGION}-i",
        snapshot_id=ids[0],
        disk_category="cloud_essd",
        performance_level="PL0",
        size=40,
        disk_name="Sdk-disk_1.0:中",
        description="a copy: a b+c*~é/中&=%",
        client_token="sdk-disk-1",
        tag=[m.CreateDiskRequestTag(key="k 2", value="v&=2")],
    )
    return client.create_disk(m.CreateDiskRequest(**{**given, **more})).body.disk_id


def disk(disk_id):
    request = m.DescribeDisksRequest(region_id=REGION, disk_ids=json.dumps([disk_id]))
    found = client.describe_disks(request).body.disks.disk or []
    return found[0] if found else None


def reach(disk_id, status):
    seen = []
    while not seen or seen[-1] != status:
        now = disk(disk_id)
        seen.append(now.status if now else None)
        true(len(seen) < 20, f"{status}: {seen}")
    return seen


d = make()
true(d.startswith("d-"), "the id of a disk")
equal(make(), d, "the same token gives the same disk")
refused(lambda: make(disk_name="another"), "IdempotentParameterMismatch", 400)
other = lambda **more: make(client_token=f"sdk-disk-other-{RPC}", **more)
refused(lambda: other(snapshot_id="s-none"), "InvalidSnapshotId.NotFound", 404)
refused(lambda: other(zone_id="cn-nowhere-x"), "InvalidZoneId.NotFound", 404)
refused(lambda: other(disk_name="1st"), "InvalidDiskName.Malformed", 400)
refused(lambda: other(disk_category="cloud_none"), "InvalidDiskCategory.NotSupported", 403)
attach = lambda i=INSTANCE: client.attach_disk(
    m.AttachDiskRequest(instance_id=i, disk_id=d, delete_with_instance=True)
)
detach = lambda: client.detach_disk(m.DetachDiskRequest(instance_id=INSTANCE, disk_id=d))
drop = lambda: client.delete_disk(m.DeleteDiskRequest(disk_id=d))
refused(attach, "IncorrectDiskStatus", 403)
equal(reach(d, "Available"), [None, "Creating", "Available"], "how a disk comes to be")
made = disk(d)
equal((made.source_snapshot_id, made.disk_name), (ids[0], "Sdk-disk_1.0:中"), "a new disk")
equal((made.performance_level, made.size, made.type), ("PL0", 40, "data"), "its kind")
equal((made.instance_id, made.device), ("", ""), "it is attached nowhere")
equal([(t.tag_key, t.tag_value) for t in made.tags.tag], [("k 2", "v&=2")], "its tags")
refused(lambda: attach("i-other"), "InvalidInstanceId.NotFound", 404)
refused(detach, "DependencyViolation", 403)
true(attach().body.request_id, "AttachDisk answers")
refused(attach, "IncorrectDiskStatus", 403)
equal(reach(d, "In_use"), ["Attaching", "In_use"], "how it is attached")
made = disk(d)
equal((made.instance_id, made.delete_with_instance), (INSTANCE, True), "where it is attached")
equal("d-" + made.serial_number, d, "its serial number")
true(made.device.startswith("/dev/xvd"), "its device")
refused(drop, "IncorrectDiskStatus", 403)
true(detach().body.request_id, "DetachDisk answers")
equal(reach(d, "Available"), ["Detaching", "Available"], "how it is detached")
true(drop().body.request_id, "DeleteDisk answers")
equal(disk(d), None, "gone")
refused(drop, "InvalidDiskId.NotFound", 404)
done("CreateDisk, AttachDisk, DetachDisk, DeleteDisk")

progress = delete(g).operation_progress_set.operation_progress
equal({entry.operation_status for entry in progress}, {"Success"}, "DeleteSnapshotGroup")
equal(len(progress), 10, "members deleted")
refused(lambda: delete(g), "InvalidSnapshotGroupId.NotFound", 404)
equal(snapshots(snapshot_ids=json.dumps(ids)).snapshots.snapshot or [], [], "gone")
done("DeleteSnapshotGroup")

# Errors, as the SDK shows them to programs.
fault(action="DescribeDisks", error={"code": "Forbidden.RAM"})
error = refused(disks, "Forbidden.RAM", 403)
true(error.access_denied_detail, "Forbidden.RAM has its details")
fault(action="DescribeDisks", error={"code": "Throttling.User", "retry_after_ms": 70})
try:
    disks()
    raise SystemExit("not throttled")
except Exception as error:
    equal(error.code, "Throttling.User", "throttled")
    equal(error.retry_after, 70, "retry after")
fault(action="CreateSnapshotGroup", error={"code": "QuotaExceed.Snapshot"})
refused(lambda: create(disk_id=["d-sdk00"]), "QuotaExceed.Snapshot", 403)
no_fault()
wrong = client_of(secret=SECRET + "x")
client, right = wrong, client
refused(disks, "SignatureDoesNotMatch", 400)
client = client_of(key_id="LTAInobody")
refused(disks, "InvalidAccessKeyId.NotFound", 404)
client = right
done("errors")

# An answer that is lost: the same token finds the group; there is one.
for connection in ["reset-after", "close-after", "truncate"]:
    fault(action="CreateSnapshotGroup", calls=1, connection=connection)
    lost = lambda: create(disk_id=["d-sdk00"], client_token=f"lost-{connection}-{RPC}")
    try:
        lost()
        raise SystemExit(f"an answer in spite of {connection}")
    except SystemExit:
        raise
    except Exception:
        pass
    found = lost()
    equal([g["id"] for g in control("GET", "groups")], [found], f"groups after {connection}")
    delete(found)
fault(action="CreateSnapshotGroup", calls=1, connection="reset-before")
try:
    create(disk_id=["d-sdk00"])
    raise SystemExit("an answer in spite of reset-before")
except SystemExit:
    raise
except Exception:
    pass
equal(control("GET", "groups"), [], "groups after reset-before")
no_fault()
done("lost answers")

# A member that fails, a group that fails.
for outcome, status, failed in [
    ({"fail-member": {"disk": "d-sdk01", "group": "accomplished"}}, "accomplished", 1),
    ({"fail-member": {"disk": "d-sdk01", "group": "failed"}}, "failed", 1),
    ("fail", "failed", 2),
]:
    control("PATCH", "scenario", {"group": {"outcome": outcome}})
    g = create(disk_id=["d-sdk00", "d-sdk01"])
    while not group(g):
        pass
    finish(g)
    equal(group(g)[0].status, status, f"status after {outcome}")
    ids = [member.snapshot_id for member in group(g)[0].snapshots.snapshot]
    found = snapshots(snapshot_ids=json.dumps(ids), status="failed").snapshots.snapshot
    equal(len(found), failed, f"members failed after {outcome}")
    delete(g)
control("PATCH", "scenario", {"group": {"outcome": "accomplish"}})
done("failures")
