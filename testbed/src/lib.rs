// Starts real servers and our real programs, for the demo, the tests and the measurements.
#![doc = include_str!("../README.md")]

pub mod chaos;
mod config;
mod database;
pub mod deployment;
mod fetch;
pub mod guard;
pub mod links;
pub mod measure;
mod name;
mod process;
mod program;
pub mod proxy;
pub mod server;
mod shared;
pub mod supervisor;
pub mod topic;
mod wait;

pub use config::{ServerChoice, Settings};
pub use database::{MySqlDatabase, PostgresDatabase};
pub use name::{free_port, unique_name};
pub use program::{Program, build_programs, program, stop_building};
pub use shared::{Servers, servers};
pub use wait::eventually;
