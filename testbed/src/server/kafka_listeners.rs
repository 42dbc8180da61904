//! More ports of a broker, each of which sends its clients to a proxy.

/// A port of the broker that sends its clients to another one, where a proxy stands.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Upper-case letters, unlike that of any other.
    pub name: &'static str,
    pub port: u16,
    /// What the broker tells clients that came by this port.
    pub advertised: u16,
}

/// Properties for a broker that listens on `own` and, where it is a controller itself, `controller` as well. They
/// replace what was said before: of two lines of one name the later counts.
pub(super) fn properties(own: u16, controller: Option<u16>, listeners: &[Listener]) -> String {
    let controller = controller.map(|port| format!(",CONTROLLER://127.0.0.1:{port}"));
    let controller = controller.unwrap_or_default();
    let each = |line: fn(&Listener) -> String| listeners.iter().map(line).collect::<String>();
    let listening = each(|l| format!(",{}://127.0.0.1:{}", l.name, l.port));
    let advertised = each(|l| format!(",{}://127.0.0.1:{}", l.name, l.advertised));
    let protocols = each(|l| format!(",{}:PLAINTEXT", l.name));
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{own}{controller}{listening}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{own}{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n"
    )
}
