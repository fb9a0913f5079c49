//! Whether a request opened a connection of its own, or went over one that was open before.

use std::cell::Cell;
use std::future::Future;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    static CONNECTED: Cell<bool>;
}

/// Awaits a request; whether a connection was opened for it meanwhile.
pub(crate) async fn noting<F: Future>(request: F) -> (F::Output, bool) {
    let noted = async {
        let output = request.await;
        (output, CONNECTED.with(Cell::get))
    };
    CONNECTED.scope(Cell::new(false), noted).await
}

/// Makes connections as before, and notes that it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noting;

impl<S> Layer<S> for Noting {
    type Service = Noted<S>;

    fn layer(&self, connector: S) -> Noted<S> {
        Noted { connector }
    }
}

/// See [`Noting`].
#[derive(Clone, Debug)]
pub(crate) struct Noted<S> {
    connector: S,
}

impl<R, S: Service<R>> Service<R> for Noted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: R) -> S::Future {
        // Nobody asks of a connection that is opened in advance.
        let _unasked = CONNECTED.try_with(|connected| connected.set(true));
        self.connector.call(to)
    }
}
