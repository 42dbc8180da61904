//! The real program: signals, exit codes and what it prints.

use std::time::Duration;

use anyhow::Result;
use testbed::{Program, free_port};

use super::outbox::wait_for_a_blocked_statement;
use super::service::{CANCEL_REQUEST, DEADLINE, ORDER_REQUEST, World};

const PROGRAM: &str = env!("CARGO_BIN_EXE_order-service");

#[tokio::test]
async fn sigterm_lets_a_running_request_end_and_says_so() -> Result<()> {
    // The world's own service is only there to look and to prepare.
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let address = format!("127.0.0.1:{}", free_port());
    let url = world.database.url();
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("HTTP_ADDRESS", address.as_str()),
        ("RUST_LOG", "info"),
        ("LOG_FORMAT", "text"),
    ];
    let program = Program::start(PROGRAM, &[], &settings)?;
    program.line("the database is ready", DEADLINE).await?;

    let mut holder = world.pool.begin().await?;
    sqlx::query("select id from inventory.purchaseorder where id = 1 for update")
        .execute(&mut *holder)
        .await?;
    let request = world
        .service
        .client
        .put(format!("http://{address}/orders/1/lines/2"))
        .header("content-type", "application/json")
        .body(CANCEL_REQUEST);
    let request = super::service::Answer::to(request);
    let stopping = async {
        wait_for_a_blocked_statement(&world).await?;
        let terminated = program.terminate();
        let released = async {
            program.line("stopping: no new connections", DEADLINE).await?;
            let refused = world.service.client.get(format!("http://{address}/health/live"));
            assert!(refused.send().await.is_err(), "a stopping service takes no connections");
            holder.rollback().await?;
            anyhow::Ok(())
        };
        let (status, released) = tokio::join!(terminated, released);
        released?;
        status
    };
    let (answer, status) = tokio::join!(request, stopping);
    assert_eq!(answer?.json()["lineItems"][1]["status"], "CANCELLED");
    assert!(status?.success(), "{}", program.tail());
    let last = program.line("stopped: every request was answered", DEADLINE).await?;
    assert!(last.contains("requests.drained=1"), "{last}");
    Ok(())
}

#[tokio::test]
async fn a_quiet_connection_does_not_hold_up_the_stop() -> Result<()> {
    let world = World::new().await?;
    // The client keeps this connection for its next request.
    world.service.get("/health/live").await?;
    let (client, base) = (world.service.client.clone(), world.service.base.clone());
    tokio::time::timeout(Duration::from_secs(5), world.service.stop()).await??;
    assert!(client.get(base).send().await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_bad_setting_ends_the_program_by_name_before_it_listens() -> Result<()> {
    for (settings, name) in [
        ([("DATABASE_URL", ""), ("HTTP_ADDRESS", "127.0.0.1:0")], "DATABASE_URL is not set"),
        ([("DATABASE_URL", "mysql://u:hidden@h/d"), ("RUST_LOG", "info")], "DATABASE_URL must"),
        (
            [("DATABASE_URL", "postgres://u:hidden@h/d"), ("HTTP_ADDRESS", "here")],
            "HTTP_ADDRESS must",
        ),
    ] {
        let program = Program::start(PROGRAM, &[], &settings)?;
        program.line(name, DEADLINE).await?;
        assert_eq!(program.wait(DEADLINE).await?.code(), Some(1));
        let output = program.output().join("\n");
        assert!(!output.contains("hidden") && !output.contains("listening"), "{output}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_program_with_advice() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let settings =
        [("DATABASE_URL", "postgres://u:hidden@127.0.0.1:1/d"), ("HTTP_ADDRESS", address.as_str())];
    let program = Program::start(PROGRAM, &[], &settings)?;
    program.line("free the port or set HTTP_ADDRESS", DEADLINE).await?;
    assert_eq!(program.wait(DEADLINE).await?.code(), Some(1));
    Ok(())
}
