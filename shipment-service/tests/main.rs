//! The service as a process, on real MySQL (or MariaDB) and Kafka. Each test has its own database, topic and group.

mod it {
    mod crash;
    mod dead_letters;
    mod delivery;
    mod fixture;
    mod forms;
    mod outage;
    mod proxy;
    mod rebalance;
    mod rest;
    mod secured;
    mod start_and_stop;
}
