//! Decodes the messages of PostgreSQL's logical replication protocol (pgoutput); pure, borrows from the buffer.
