//! Alibaba Cloud ECS, as far as a snapshot of this instance needs it: the metadata service, the
//! credentials of the instance's role, signed requests, snapshot-consistent groups.
