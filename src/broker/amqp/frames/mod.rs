//! AMQP 0-9-1 as far as messages need it, frame by frame: a batch is written with one system call, confirms are awaited
//! by ranges, deliveries come by the bufferful. lapin, which has a task's wake-up for every message, is kept for what is
//! asked seldom, and is the reference that this is tested and measured against.

mod consume;
mod decode;
mod encode;
mod handshake;
mod publish;
#[cfg(test)]
mod reference;
mod session;
mod stream;
mod unconfirmed;
pub mod whole;

pub(super) use consume::consume;
pub(super) use publish::Publisher;
