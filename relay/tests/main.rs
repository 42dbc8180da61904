//! The relay on real servers: each module has its own database, slot, topics and, where it needs one, process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

#[path = "it/database_tls.rs"]
mod database_tls;
#[path = "it/exactly_once.rs"]
mod exactly_once;
#[path = "it/failover.rs"]
mod failover;
#[path = "it/flow.rs"]
mod flow;
#[path = "it/graceful_stop.rs"]
mod graceful_stop;
#[path = "it/kafka_security.rs"]
mod kafka_security;
#[path = "it/kafka_sink.rs"]
mod kafka_sink;
#[path = "it/least_privilege.rs"]
mod least_privilege;
#[path = "it/lost_slot.rs"]
mod lost_slot;
#[path = "it/memory.rs"]
mod memory;
#[path = "it/messages.rs"]
mod messages;
#[path = "it/metrics_page.rs"]
mod metrics_page;
#[path = "it/numbered_events.rs"]
mod numbered_events;
#[path = "it/options_page.rs"]
mod options_page;
#[path = "it/outbox.rs"]
mod outbox;
#[path = "it/restored.rs"]
mod restored;
#[path = "it/sleeping_broker.rs"]
mod sleeping_broker;
#[path = "it/slot_at_rest.rs"]
mod slot_at_rest;
#[path = "it/slot_guard.rs"]
mod slot_guard;
#[path = "it/slot_identity.rs"]
mod slot_identity;
#[path = "it/snapshot_steps.rs"]
mod snapshot_steps;
#[path = "it/standby.rs"]
mod standby;
#[path = "it/stream.rs"]
mod stream;
#[path = "it/stream_metadata.rs"]
mod stream_metadata;
#[path = "it/stream_publication.rs"]
mod stream_publication;
#[path = "it/stream_slot.rs"]
mod stream_slot;
#[path = "it/stream_snapshot.rs"]
mod stream_snapshot;
#[path = "it/transactional_sink.rs"]
mod transactional_sink;

#[path = "it/connect_api.rs"]
mod connect_api;
#[path = "it/connect_clients.rs"]
mod connect_clients;
#[path = "it/connect_offsets.rs"]
mod connect_offsets;
#[path = "it/connect_security.rs"]
mod connect_security;
#[path = "it/connect_slot_holder.rs"]
mod connect_slot_holder;
#[path = "it/connect_start.rs"]
mod connect_start;
#[path = "it/connect_transcript_compare.rs"]
mod connect_transcript_compare;
#[path = "it/connect_transcripts.rs"]
mod connect_transcripts;
#[path = "it/connect_worker.rs"]
mod connect_worker;

#[path = "it/dead_letters.rs"]
mod dead_letters;
#[path = "it/dead_letters_exactly_once.rs"]
mod dead_letters_exactly_once;
#[path = "it/dead_letters_refused.rs"]
mod dead_letters_refused;
#[path = "it/dead_letters_replay.rs"]
mod dead_letters_replay;

#[path = "it/connector_options.rs"]
mod connector_options;
#[path = "it/worker_settings.rs"]
mod worker_settings;
