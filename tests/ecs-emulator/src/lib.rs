//! For tests only: an emulator of the ECS snapshot API and of the metadata service.
