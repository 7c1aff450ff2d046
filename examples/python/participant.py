#!/usr/bin/python3
"""A service that takes part in sagas, in Python, written from the AMQP contract alone.

It keeps customers' loyalty points in SQLite and knows one action, `loyalty.award`, and its compensation,
`loyalty.revoke`, both with the input `{"customer": "...", "points": 10}`. A customer called

    blocked-...  is refused,
    busy-...     is served at the second attempt,
    slow-...     takes a while, with heartbeats.

    AMENDS_BROKER=amqp://guest:guest@127.0.0.1:5672/%2f AMENDS_DATABASE=loyalty.db ./participant.py

Needs `pika` (Debian: python3-pika). SIGTERM and SIGINT finish the command in hand, then stop.
"""

import json
import logging
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

PARTICIPANT = "loyalty"
QUEUE = f"{PARTICIPANT}.commands"
INBOX = Path(__file__).resolve().parents[2] / "migrations" / "participant" / "sqlite.sql"
TABLES = """
create table if not exists points (
    customer text primary key,
    points   integer not null check (points >= 0)
);
"""
log = logging.getLogger(PARTICIPANT)


class Refused(Exception):
    """The business says no: recorded, and the saga goes backward."""

    def __init__(self, kind, title):
        super().__init__(title)
        self.problem = {"type": kind, "title": title}


class RetryLater(Exception):
    """Not now: nothing is recorded, and the coordinator sends the command again."""

    def __init__(self, kind, title, after_ms):
        super().__init__(title)
        self.problem = {"type": kind, "title": title}
        self.after_ms = after_ms


# The business: one function per action and per compensation. It works in an open transaction, and neither commits
# nor rolls back.


def read_order(body):
    """What both actions take; raises what an input that is not so deserves."""
    try:
        return str(body["customer"]), int(body["points"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("invalid-input", f"{type(error).__name__}: {error}") from error


def award(db, command):
    customer, points = read_order(command.body)
    if customer.startswith("blocked-"):
        raise Refused("customer-blocked", f"{customer} gets no points")
    if customer.startswith("busy-") and command.attempt == 1:
        raise RetryLater("points-busy", "the ledger is being closed", after_ms=200)
    if customer.startswith("slow-"):
        for _ in range(3):
            time.sleep(0.2)
            command.heartbeat()
    db.execute(
        "insert into points values (?, ?) on conflict (customer) do update set points = points + excluded.points",
        (customer, points),
    )
    return {"customer": customer, "points": points}


def revoke(db, command):
    customer, points = read_order(command.body)
    db.execute("update points set points = points - ? where customer = ?", (points, customer))
    return {}


ACTIONS = {"award": award, "revoke": revoke}


# The contract.


class Command:
    """One attempt of a command, as its properties and headers tell."""

    def __init__(self, channel, properties, body):
        headers = properties.headers
        self.action = properties.type.removeprefix(f"{PARTICIPANT}.")
        self.token = properties.correlation_id
        self.reply_to = properties.reply_to
        self.saga_id = headers["amends-saga-id"]
        self.step = headers["amends-step"]
        self.direction = headers["amends-direction"]
        self.attempt = headers["amends-attempt"]
        self.key = headers["amends-key"]
        self.compensates = headers["amends-compensates"] if self.direction == "compensation" else None
        self.body = json.loads(body)
        self._channel = channel

    def reply(self, outcome, body, retry_after_ms=None):
        """Publishes a reply and waits until the broker has it; raises if it has not."""
        headers = {"amends-outcome": outcome}
        if retry_after_ms is not None:
            headers["amends-retry-after-ms"] = retry_after_ms
        # The token is this attempt's own, also when the reply comes from the inbox.
        properties = pika.BasicProperties(
            correlation_id=self.token, headers=headers, content_type="application/json", delivery_mode=2
        )
        self._channel.basic_publish("amends.replies", self.reply_to, json.dumps(body), properties, mandatory=True)

    def heartbeat(self):
        """Restarts the attempt's time-out."""
        self.reply("in-progress", {})


def claim(db, command, key, status):
    """Takes a key of the inbox; False if it was taken before. Waits for a transaction that has it in hand, since every
    transaction here begins with `begin immediate`."""
    tombstone = status == "tombstone"
    row = (
        key,
        command.saga_id,
        command.step,
        "action" if tombstone else command.direction,
        None if tombstone else command.action,
        status,
    )
    taken = db.execute(
        "insert into amends_inbox (key, saga_id, step, direction, action, status) values (?, ?, ?, ?, ?, ?)"
        " on conflict (key) do nothing",
        row,
    )
    return taken.rowcount == 1


def stored(db, key):
    """What the inbox says of a key: (outcome, body)."""
    status, outcome, body = db.execute(
        "select status, outcome, body from amends_inbox where key = ?", (key,)
    ).fetchone()
    if status == "tombstone":
        return "failure", {"type": "tombstoned", "title": "this action was compensated before it came"}
    return outcome, json.loads(body)


def record(db, command, outcome, body):
    """Commits the reply together with the effect."""
    db.execute(
        "update amends_inbox set status = 'done', outcome = ?, body = ? where key = ?",
        (outcome, json.dumps(body), command.key),
    )
    db.execute("commit")
    return outcome, body


def perform(db, command):
    """Rules 1, 3, 4 and 5: inbox row first, then the effect, then the reply, in one transaction. Returns the reply."""
    db.execute("begin immediate")
    if not claim(db, command, command.key, "open"):
        return stored(db, command.key)
    if command.compensates:
        never_ran = claim(db, command, command.compensates, "tombstone")
        if never_ran or stored(db, command.compensates)[0] != "success":
            return record(db, command, "success", {})
    db.execute("savepoint effect")
    try:
        if command.action not in ACTIONS:
            raise Refused("unknown-action", f"{PARTICIPANT} has no action {command.action}")
        output = ACTIONS[command.action](db, command)
    except Refused as refused:
        db.execute("rollback to effect")
        return record(db, command, "failure", refused.problem)
    return record(db, command, "success", output)


def handle(db, replies, channel, method, properties, body):
    """From a delivery to its settlement. Rule 2: acknowledged only after the reply is confirmed."""
    try:
        command = Command(replies, properties, body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.error("not a command, into the dead letters: %r", error)
        channel.basic_reject(method.delivery_tag, requeue=False)
        return
    retry_after_ms = None
    try:
        outcome, answer = perform(db, command)
    except RetryLater as later:
        outcome, answer, retry_after_ms = "retry", later.problem, later.after_ms
    except AMQPError:
        raise  # a heartbeat failed: the connection is gone, and the command will come again
    except Exception as error:  # whatever broke, it is not the business that said no
        log.exception("%s failed", command.key)
        outcome, answer = "retry", {"type": "technical", "title": str(error)}
    finally:
        if db.in_transaction:
            db.execute("rollback")
    try:
        command.reply(outcome, answer, retry_after_ms)
    except (NackError, UnroutableError):
        log.exception("no queue has the reply to %s", command.key)
        time.sleep(1)
        channel.basic_nack(method.delivery_tag, requeue=True)  # the queue's delivery limit bounds this
        return
    channel.basic_ack(method.delivery_tag)
    log.info("%s attempt %s: %s", command.key, command.attempt, outcome)


def declare(channel):
    """The participant's queue and its dead letters, with just these arguments: all who declare them must agree."""
    channel.exchange_declare("amends.commands", "topic", durable=True)
    channel.exchange_declare("amends.dead", "topic", durable=True)
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "amends.dead",
        "x-dead-letter-routing-key": QUEUE,
        "x-delivery-limit": 20,
    }
    channel.queue_declare(QUEUE, durable=True, arguments=arguments)
    channel.queue_bind(QUEUE, "amends.commands", f"{PARTICIPANT}.#")
    channel.queue_declare(f"{QUEUE}.dead", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(f"{QUEUE}.dead", "amends.dead", QUEUE)


def serve(db, broker, stopping):
    """One connection's life."""
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    try:
        commands, replies = connection.channel(), connection.channel()
        replies.confirm_delivery()
        declare(commands)
        commands.basic_qos(prefetch_count=8)
        log.info("taking commands")
        # Wakes up every second without a message, to see whether it is to stop.
        for method, properties, body in commands.consume(QUEUE, inactivity_timeout=1):
            if stopping():
                commands.cancel()
                return
            if method is not None:
                handle(db, replies, commands, method, properties, body)
    finally:
        if connection.is_open:
            connection.close()


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    broker = os.environ.get("AMENDS_BROKER", "amqp://guest:guest@127.0.0.1:5672/%2f")
    # `isolation_level=None`: transactions begin and end where this file says so.
    db = sqlite3.connect(os.environ.get("AMENDS_DATABASE", "loyalty.db"), timeout=60, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.executescript(INBOX.read_text() + TABLES)

    stopped = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.append(True))
    while not stopped:
        try:
            serve(db, broker, lambda: bool(stopped))
        except AMQPError as error:
            log.warning("the broker is away (%r), trying again", error)
            time.sleep(1)
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
