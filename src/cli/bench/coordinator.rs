//! The coordinator's process: the real one, with its HTTP interface. Tells on stdout of every saga that ends; answers
//! what is asked on stdin; ends with it.

use std::collections::BTreeMap;
use std::io::Write;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::parts::{COMMITS, ENDED, READY};
use super::workload::Names;
use crate::api::AuthConfig;
use crate::cli::error::{CliError, Exit};
use crate::cli::{Context, connect};
use crate::coordinator::{Coordinator, CoordinatorOptions, Ended, Limits};

/// How many messages may wait for the participant of `bench fairness` that has stopped.
pub(super) const FLOODED_WINDOW: u32 = 100;
/// How many ends are told of at once.
const AT_ONCE: usize = 4_096;

/// How a coordinator of the bench runs: as any other, but apart from others on the same broker.
pub(super) fn options(names: &Names, ended: mpsc::UnboundedSender<Ended>) -> CoordinatorOptions {
    CoordinatorOptions {
        replies: names.replies(),
        requests: false,
        ended: Some(ended),
        limits: Limits { windows: BTreeMap::from([(names.flooded(), FLOODED_WINDOW)]), ..Limits::default() },
        ..CoordinatorOptions::default()
    }
}

/// Runs until stdin ends.
pub(super) async fn play(names: &Names, context: &Context) -> Result<Exit, CliError> {
    let store = connect::store(&context.settings.store_or_default()?).await?;
    let broker = connect::broker(context.settings.broker_or_default()).await?;
    let (sender, mut ended) = mpsc::unbounded_channel();
    let coordinator = Coordinator::launch(store.clone(), broker.clone(), options(names, sender)).await?;
    coordinator.register(&names.definition(), "bench").await?;
    let no_port = |error: std::io::Error| CliError::failed(format!("no port on the loopback address: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(no_port)?;
    let address = listener.local_addr().map_err(no_port)?;
    let stop = CancellationToken::new();
    let auth = AuthConfig::new(Vec::new());
    let served = tokio::spawn(connect::serve(listener, coordinator.clone(), auth, Default::default(), stop.clone()));
    print(&format!("{READY} http://{address}\n"))?;

    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            received = ended.recv_many(&mut batch, AT_ONCE) => {
                if received == 0 {
                    break;
                }
                let mut line = ENDED.to_owned();
                for Ended { id, how } in batch.drain(..) {
                    line.push_str(&format!(" {how}:{id}"));
                }
                line.push('\n');
                print(&line)?;
            }
            question = asked.next_line() => match question {
                Ok(Some(_)) => print(&format!("{COMMITS} {}\n", coordinator.metrics().commits()))?,
                // Whoever started this process has gone.
                _ => break,
            },
        }
    }
    stop.cancel();
    drop(served.await);
    coordinator.stop().await;
    broker.close().await;
    store.close().await;
    Ok(Exit::Done)
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
