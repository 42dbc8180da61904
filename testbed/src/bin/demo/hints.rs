//! What the user can try while the demo is up.

use testbed::deployment::Ports;

use crate::screen::Screen;

/// Prints the example's own commands, with the ports as they are.
pub(crate) fn print(screen: Screen, ports: Ports, is_registered: bool) {
    let Ports { relay, order_service, shipment_service, .. } = ports;
    let json = "-H 'Content-Type: application/json'";
    screen.title("It is up. Try, in another terminal, in this folder:");
    if !is_registered {
        screen.note("register the connector");
        screen.command(&format!(
            "curl {json} -d @register-postgres.json http://localhost:{relay}/connectors/"
        ));
    }
    screen.note("place an order; cancel its second line (take the ids from the answer)");
    let orders = format!("http://localhost:{order_service}/order-service/rest/orders");
    screen.command(&format!("curl {json} -d @resources/data/create-order-request.json {orders}"));
    screen.command(&format!(
        "curl {json} -X PUT -d @resources/data/cancel-order-line-request.json {orders}/1/lines/2"
    ));
    screen.note("look at the connector, the events, the shipments, the databases");
    screen.command(&format!("curl http://localhost:{relay}/connectors/outbox-connector/status"));
    let kafka = flag("--kafka-port", ports.kafka, 9092);
    screen.command(&format!("cargo demo topic OrderEvents --follow{kafka}"));
    screen.command(&format!("curl http://localhost:{shipment_service}/shipments"));
    let postgres = flag("--postgres-port", ports.postgres, 5432);
    let orders = "select * from inventory.purchaseorder po join inventory.orderline ol on ol.order_id = po.id";
    screen.command(&format!("cargo demo sql order-db \"{orders}\"{postgres}"));
    let mysql = flag("--mysql-port", ports.mysql, 3306);
    screen.command(&format!("cargo demo sql shipment-db \"select * from Shipment\"{mysql}"));
    screen.note(&format!("the API of order-service: http://localhost:{order_service}/docs"));
    screen.note("Ctrl-C stops everything. Below: what the programs say.");
    screen.plain("");
}

/// The flag that another run of this program needs to find a moved server.
fn flag(flag: &str, port: u16, usual: u16) -> String {
    if port == usual { String::new() } else { format!(" {flag} {port}") }
}
