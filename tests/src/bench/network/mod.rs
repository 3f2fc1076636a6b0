//! Networks: what they cost a connection, a request and a byte, and how soon changes are everywhere.
//!
//! User-space encryption is off but where a row names it: it costs more than all else together.

mod client;
mod deaths;
mod names;
mod nodes;
mod paths;
mod proxy;
mod repair;
mod scale;
mod server;
mod spot;
mod stage;
mod throughput;

use anyhow::{Context, Result};

use super::Order;
use super::table::Row;
use stage::Stage;

pub(crate) use deaths::run as deaths;
pub(crate) use names::run as names;
pub(crate) use scale::run as scale;

/// Requests, throughput and repair, on one cluster.
pub(crate) async fn traffic(order: &Order) -> Result<Vec<Row>> {
    proxy::install().context("install haproxy to measure against")?;
    let stage = Stage::up(order).await.context("make hosts to measure on")?;
    let mut rows = paths::run(order, &stage).await.context("measure requests")?;
    rows.extend(throughput::run(order, &stage).await.context("measure throughput")?);
    rows.extend(repair::run(order, &stage).await.context("measure the repair of rules")?);
    Ok(rows)
}

/// Does what a process of a bench is to do; none if the word is no such.
pub(crate) fn part(word: &str, words: &[String]) -> Option<Result<()>> {
    let part = match word {
        server::WORD => server::run,
        client::WORD => client::run,
        client::SOURCE => client::pour,
        nodes::WORD => nodes::run,
        _ => return None,
    };
    Some(spot::end_with_parent().and_then(|()| part(words)))
}
