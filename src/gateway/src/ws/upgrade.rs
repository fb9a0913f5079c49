//! From a request that asks for an upgrade to a running session, or to a problem document.

use std::rc::Rc;
use std::sync::Arc;

use ackord_agents::{Connection, Transport, outbox};
use ackord_machine::site::SiteName;
use actix_codec::Framed;
use actix_http::{Extensions, Request, h1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::admit::{Admitted, admit};
use super::frames::Frames;
use super::link::Link;
use super::writer::Writer;
use crate::context::{ConnectionGuard, Context};
use crate::http::answer::refuse_raw;
use crate::http::{attempt, too_many_connections};
use crate::meter::Metered;
use crate::metrics::close_label;
use crate::route::{Endpoint, Route};
use crate::stream::Stream;

/// Answers an upgrade request. The session of whoever is let in gets a task of its own, and that
/// of the HTTP connection, several times as large, ends.
pub async fn upgrade(
    context: Arc<Context>,
    request: Request,
    framed: Framed<Metered<Stream>, h1::Codec>,
) {
    let mut request = request;
    // Counts the connection for as long as it is served here.
    let connection = request.take_conn_data();
    let over = connection
        .as_ref()
        .and_then(|data| data.get::<ConnectionGuard>())
        .is_some_and(|guard| guard.over);
    let peer = request.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let admitted = if over {
        Err(too_many_connections(&context))
    } else {
        admit(&context, request.head()).await
    };
    let route = Route::parse(request.path());
    if let Err(problem) = &admitted {
        attempt::note(&context, request.head(), route.as_ref(), problem).await;
    }
    drop(request);
    let (mut socket, input, mut head) = unframe(framed);
    let label = route.as_ref().map_or("none", Route::label);
    match admitted {
        Err(problem) => {
            context.metrics.answered(label, problem.status);
            tracing::debug!(route = label, code = %problem.code, peer, "refused an upgrade");
            let allow = match (&route, problem.status) {
                (Some(route), 405) => route.methods(),
                (Some(_) | None, _) => &[],
            };
            head.extend_from_slice(&refuse_raw(&problem, allow));
            refuse(&context, &mut socket, &head).await;
        }
        Ok(admitted) => {
            context.metrics.answered(label, 101);
            head.extend_from_slice(&switching(&admitted));
            let writing = async {
                socket.write_all(&head).await?;
                socket.flush().await
            };
            let deadline = context.limits().write_deadline;
            let written = timeout(deadline, writing).await;
            if matches!(written, Ok(Ok(()))) {
                let tracked = context.sockets.clone();
                let session = serve(context, admitted, socket, &input, peer, connection);
                actix_rt::spawn(tracked.track_future(session));
            }
        }
    }
}

/// The socket, what was read from it behind the request, and what is still to be written. The
/// buffers of the HTTP connection, several KiB each, end here.
fn unframe(framed: Framed<Metered<Stream>, h1::Codec>) -> (Stream, Vec<u8>, Vec<u8>) {
    let parts = framed.into_parts();
    (parts.io.into_inner(), parts.read_buf.to_vec(), parts.write_buf.to_vec())
}

/// Starts the session and carries its words until the connection ends.
fn serve(
    context: Arc<Context>,
    admitted: Admitted,
    socket: Stream,
    input: &[u8],
    peer: String,
    counted: Option<Rc<Extensions>>,
) -> impl Future<Output = ()> + 'static {
    let Admitted { site, endpoint, principal, token, expires_ms, codec, accept: _ } = admitted;
    // A frame is written when it is there; waiting for more is the writer's decision.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off coalescing");
    }
    let link = Rc::new(Link::new(socket));
    let frames = Frames::new(context.clone(), link.clone(), codec, input);
    let (said, outbox) = outbox(context.limits().outbox_messages);
    let connection = Connection {
        site: SiteName::from(site),
        principal,
        token,
        expires_ms,
        codec,
        outbox: said,
        transport: Transport::WebSocket,
        peer: peer.into_boxed_str(),
    };
    match endpoint {
        Endpoint::Service => context.broker.open_service(connection, frames),
        Endpoint::Client => {
            context.broker.open_client(connection, frames);
        }
    }
    let role = endpoint.as_str();
    let codec_label = match codec {
        ackord_wire::Codec::Json => "json",
        ackord_wire::Codec::Cbor => "cbor",
    };
    async move {
        let metrics = &context.metrics;
        metrics.sockets_opened.with_label_values(&[role, codec_label]).inc();
        metrics.sockets.with_label_values(&[role]).inc();
        let receipts = Vec::new();
        let writer = Writer { context: context.clone(), link, codec, outbox, receipts };
        let code = writer.run().await;
        metrics.sockets.with_label_values(&[role]).dec();
        metrics.sockets_closed.with_label_values(&[role, close_label(code)]).inc();
        drop(counted);
    }
}

fn switching(admitted: &Admitted) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {}\r\nsec-websocket-protocol: {}\r\n\r\n",
        admitted.accept,
        admitted.codec.subprotocol(),
    )
    .into_bytes()
}

/// Writes a refusal and waits, not long, for the peer to have read it.
async fn refuse(context: &Context, socket: &mut Stream, response: &[u8]) {
    let telling = async {
        socket.write_all(response).await?;
        socket.shutdown().await?;
        let mut buffer = vec![0; 512];
        while socket.read(&mut buffer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // The peer may be gone already: there is nobody left to tell.
    let deadline = context.limits().close_deadline;
    let _ = timeout(deadline, telling).await;
}
