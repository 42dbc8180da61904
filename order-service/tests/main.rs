//! The service against a real PostgreSQL: each promise of the README as a test. Every test has a database of its own.

mod it;
