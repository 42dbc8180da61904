// The modules stand in the order in which the data flows; `pipeline` is the sentence that joins them.
#![doc = include_str!("../README.md")]

pub mod source;

pub mod columns;
pub mod context_headers;

pub mod convert;
pub mod dead_letter;
pub mod events;
pub mod heartbeat;
pub mod record;

pub mod sink;

pub mod position;
pub mod progress;
pub mod provenance;
pub mod slot_identity;
pub mod source_offset;
pub mod written;

pub mod canary;
pub mod failpoint;
pub mod health;
pub mod slot_figures;
pub mod slot_guard;

pub mod failure;
pub mod pipeline;
pub mod task;

pub mod config;
pub mod connector_config;
pub mod kafka_client;
pub mod secret;

pub mod connect;
