//! Events of the engines that the operator must know, as lines of the log (RFC 6888 REQ-11c).

use std::sync::Arc;
use std::time::Duration;

use crate::nat64::event::{Event, Stream};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads the streams and logs limits and pools that run low. Never ends by itself.
pub async fn tell(streams: Vec<Arc<Stream>>) {
    loop {
        for (worker, stream) in streams.iter().enumerate() {
            while let Some((_, event)) = stream.take() {
                say(worker, &event);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn say(worker: usize, event: &Event) {
    match event {
        Event::LimitHit { limit, client } => {
            tracing::warn!(worker, %client, limit = ?limit, "refused: a limit is reached");
        }
        Event::PoolLow { scope, blocks, leased } => {
            tracing::warn!(pool = scope, blocks, leased, "few blocks of ports are left");
        }
        // For logs of their own; nobody asks for these yet.
        Event::SessionCreated(_)
        | Event::SessionDeleted(_)
        | Event::BindingCreated(_)
        | Event::BindingDeleted(_)
        | Event::BlockLeased(_)
        | Event::BlockReleased(_) => {}
    }
}
