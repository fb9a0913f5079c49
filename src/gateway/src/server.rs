//! The running front: its thread, its workers, its sockets, and how it stops.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use ackord_agents::Broker;
use actix_codec::Framed;
use actix_http::{HttpService, Request, h1};
use actix_server::{Server, ServerHandle};
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{App, HttpRequest, dev::AppConfig, web};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::context::{Context, Live};
use crate::control::Control;
use crate::meter::Metered;
use crate::options::{Error, GatewayOptions, Listener};
use crate::stream::Stream;
use crate::tls::{Shaking, Tls, accept};
use crate::{http, ws};

/// Connections of a worker beyond the limit that are accepted to be told so.
const REFUSED_AT_ONCE: usize = 256;

/// A running front. Dropping it stops it at once; [`Gateway::stop`] does it gently.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    context: Arc<Context>,
    server: ServerHandle,
    control: Control,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Binds the addresses and serves them on threads of its own.
    ///
    /// # Errors
    /// When an address cannot be bound or none is given.
    pub fn start(broker: Broker, options: GatewayOptions) -> Result<Self, Error> {
        let GatewayOptions {
            listen,
            mut listeners,
            watch_interval,
            admin_hash,
            workers,
            origins,
            issuers,
            limits,
        } = options;
        for address in listen {
            let socket =
                TcpListener::bind(address).map_err(|source| Error::Listen { address, source })?;
            listeners.push(Listener::plain(socket));
        }
        if listeners.is_empty() {
            return Err(Error::NoAddress);
        }
        let addresses =
            listeners.iter().map(|at| at.socket.local_addr()).collect::<Result<Vec<_>, _>>()?;
        let live = Live { admin_hash, origins, issuers, limits: limits.raised() };
        let context = Arc::new(Context::new(broker, live, distinct(&listeners)));
        let control = Control::new(context.clone());
        let (started, handle) = std::sync::mpsc::sync_channel(1);
        let served = context.clone();
        let thread =
            std::thread::Builder::new().name("ackord-gateway".to_owned()).spawn(move || {
                actix_rt::System::new().block_on(async move {
                    let server = match server(&served, listeners, workers) {
                        Ok(server) => server,
                        // The starter waits for exactly one message, so this cannot block.
                        Err(error) => return drop(started.send(Err(error))),
                    };
                    drop(started.send(Ok(server.handle())));
                    if let Err(error) = server.await {
                        tracing::error!(%error, "the front has failed");
                    }
                });
            })?;
        let gone = || Error::Server(std::io::Error::other("the server's thread ended"));
        let server = handle.recv().map_err(|_| gone())??;
        control.watch(watch_interval)?;
        tracing::info!(?addresses, "listening");
        Ok(Self { addresses, context, server, control, thread: Some(thread) })
    }

    /// What can be changed about it while it runs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Where it listens, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops: takes no new sessions, lets the broker close those that are open, finishes requests,
    /// and drops what is still open when [`crate::GatewayLimits::stop_deadline`] has passed. The
    /// broker's node goes on.
    pub async fn stop(mut self) {
        self.context.broker.shutdown().await;
        self.context.stopping.cancel();
        self.context.sockets.close();
        // Those that are still open then are dropped with the threads that serve them.
        let _ = timeout(self.context.limits().stop_deadline, self.context.sockets.wait()).await;
        self.server.stop(true).await;
        let Some(thread) = self.thread.take() else { return };
        let (ended, end) = oneshot::channel();
        // Joining blocks, and the thread has nothing left to do: a thread waits for it so that no
        // task does.
        let waiter = std::thread::Builder::new().name("ackord-gateway-join".to_owned());
        let spawned = waiter.spawn(move || {
            drop(thread.join());
            let _ = ended.send(());
        });
        if spawned.is_ok() {
            // An error means that the waiter has ended, which is what is waited for.
            let _ = end.await;
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.context.stopping.cancel();
        // Sends the command at once; the future only waits for its completion.
        drop(self.server.stop(false));
    }
}

/// The TLS of the listeners, each once.
fn distinct(listeners: &[Listener]) -> Vec<Arc<Tls>> {
    let mut found: Vec<Arc<Tls>> = Vec::new();
    for tls in listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        if !found.iter().any(|known| Arc::ptr_eq(known, tls)) {
            found.push(tls.clone());
        }
    }
    found
}

fn server(
    context: &Arc<Context>,
    listeners: Vec<Listener>,
    workers: usize,
) -> std::io::Result<Server> {
    let limits = context.limits();
    let stop_seconds = limits.stop_deadline.as_secs().max(1);
    let mut builder = Server::build()
        .workers(workers.max(1))
        .worker_max_blocking_threads(1)
        .max_concurrent_connections(limits.connections_max.saturating_add(REFUSED_AT_ONCE))
        .shutdown_timeout(stop_seconds)
        .disable_signals();
    let shutdown = builder.graceful_shutdown_signal();
    for Listener { socket, face, tls } in listeners {
        let address = socket.local_addr()?;
        // The threads that serve a listener share its places.
        let tls = tls.map(Shaking::new);
        let (context, limits, shutdown) = (context.clone(), limits.clone(), shutdown.clone());
        builder = builder.listen(format!("http-{address}"), socket, move || {
            let (on_connect, on_upgrade) = (context.clone(), context.clone());
            let on_request = context.clone();
            let shutdown = shutdown.clone();
            let app = App::new().default_service(web::to(
                move |request: HttpRequest, payload: web::Payload| {
                    http::handle(on_request.clone(), face, request, payload)
                },
            ));
            let served = HttpService::build()
                .keep_alive(limits.keep_alive)
                .client_request_timeout(limits.head_deadline)
                .client_disconnect_timeout(limits.close_deadline)
                .graceful_shutdown_signal(move || {
                    let shutdown = shutdown.clone();
                    async move { shutdown.notified().await }
                })
                .local_addr(address)
                .on_connect_ext(move |io: &Metered<Stream>, extensions| {
                    extensions.insert(on_connect.connected());
                    extensions.insert(io.meter());
                })
                .upgrade(fn_service(
                    move |(request, framed): (Request, Framed<Metered<Stream>, h1::Codec>)| {
                        let context = on_upgrade.clone();
                        // Boxed: every connection's task would otherwise have room for it.
                        Box::pin(async move {
                            ws::upgrade(context, request, framed).await;
                            Ok::<(), actix_http::Error>(())
                        })
                    },
                ))
                .finish(map_config(app, |()| AppConfig::default()));
            accept(tls.clone())
                .map(|(io, protocol, peer)| (Metered::new(io), protocol, peer))
                .and_then(served)
        })?;
    }
    Ok(builder.run())
}
