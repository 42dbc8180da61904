//! Starts the real servers and our real programs as child processes: demo, end-to-end tests, measurements.
