//! Who answers while the node is not there yet: it reads its log, or waits for other nodes.
//!
//! The process lives and says so; everything else is told to come again, so that nobody waits for an
//! answer that comes late. Connections are closed with the answer: the next one finds the front.

use std::time::Duration;

use ackord_wire::resource::Health;
use ackord_wire::{Code, Problem};
use actix_http::{ConnectionType, HttpService};
use actix_server::{Server, ServerHandle};
use actix_service::{ServiceFactoryExt as _, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, HttpRequest, HttpResponse, web};

use crate::http::RETRY_AFTER_S;
use crate::http::answer::{Answer, refuse};
use crate::options::{Error, Listener};
use crate::tls::{Shaking, accept};

/// Connections that are answered at once.
const CONNECTIONS_MAX: usize = 1024;
/// Until the head of a request has arrived.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// See the module. Dropping it ends it.
pub struct WaitingRoom {
    server: ServerHandle,
}

impl WaitingRoom {
    /// Answers on these sockets until it is left.
    ///
    /// # Errors
    /// When there is no thread or a socket is of no use.
    pub fn open(listeners: &[Listener]) -> Result<Self, Error> {
        let listeners =
            listeners.iter().map(Listener::again).collect::<std::io::Result<Vec<_>>>()?;
        let (started, handle) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("ackord-waiting".to_owned()).spawn(move || {
            actix_rt::System::new().block_on(async move {
                let server = match server(listeners) {
                    Ok(server) => server,
                    // The starter waits for exactly one message, so this cannot block.
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(server.handle())));
                if let Err(error) = server.await {
                    tracing::warn!(%error, "nobody answered while the node started");
                }
            });
        })?;
        let gone = || Error::Server(std::io::Error::other("the server's thread ended"));
        let server = handle.recv().map_err(|_| gone())??;
        Ok(Self { server })
    }

    /// Ends it; the socket is free for the front when this returns.
    pub async fn leave(self) {
        self.server.stop(false).await;
    }
}

impl Drop for WaitingRoom {
    fn drop(&mut self) {
        // Sends the command at once; the future only waits for its completion.
        drop(self.server.stop(false));
    }
}

fn server(listeners: Vec<Listener>) -> std::io::Result<Server> {
    let mut builder = Server::build()
        .workers(1)
        .worker_max_blocking_threads(1)
        .max_concurrent_connections(CONNECTIONS_MAX)
        .disable_signals();
    for Listener { socket, face: _, tls } in listeners {
        let tls = tls.map(Shaking::new);
        let address = socket.local_addr()?;
        builder = builder.listen(format!("waiting-{address}"), socket, move || {
            let app = App::new().default_service(web::to(answer));
            let answered = HttpService::build()
                .client_request_timeout(HEAD_DEADLINE)
                .finish(map_config(app, |()| AppConfig::default()));
            accept(tls.clone()).and_then(answered)
        })?;
    }
    Ok(builder.run())
}

async fn answer(request: HttpRequest) -> HttpResponse {
    let mut response = if request.path() == "/healthz/live" {
        Answer::ok(&Health { status: "ok".to_owned() }).into_response()
    } else {
        let detail = "this node is starting: it reads its log, or waits for the other nodes";
        refuse(&Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER_S), &[])
    };
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_node_that_starts_lives_and_tells_everybody_to_come_again() {
        let listener = Listener::plain(TcpListener::bind("127.0.0.1:0").unwrap());
        let url = format!("http://{}", listener.socket.local_addr().unwrap());
        let room = WaitingRoom::open(std::slice::from_ref(&listener)).unwrap();
        let listener = listener.socket;
        let live = reqwest::get(format!("{url}/healthz/live")).await.unwrap();
        assert_eq!(live.status(), 200);
        for path in ["/healthz/startup", "/healthz/ready", "/v1/sites/plant/service", "/v1/cluster"]
        {
            let told = reqwest::get(format!("{url}{path}")).await.unwrap();
            assert_eq!(told.status(), 503, "{path}");
            assert_eq!(told.headers()["retry-after"], "1", "{path}");
            assert_eq!(told.headers()["connection"], "close", "{path}");
            let problem: serde_json::Value = told.json().await.unwrap();
            assert_eq!(problem["code"], "unavailable", "{path}");
        }
        room.leave().await;
        // The socket is the caller's again; it has been made one that does not block.
        listener.set_nonblocking(false).unwrap();
        let next = std::thread::spawn(move || listener.accept().map(|_| ()));
        listening(&url).await;
        next.join().unwrap().unwrap();
    }

    async fn listening(url: &str) {
        let address = url.trim_start_matches("http://").to_owned();
        tokio::net::TcpStream::connect(address).await.unwrap();
    }
}
