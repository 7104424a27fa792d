"""The outbox: what one message, or its server, does is no other message's affair."""

import itertools
import threading
import time
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address

import pytest
from keystore_harness import wait_until
from sqlalchemy import func, select, text, update

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications import mail, outbox, webhooks
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.outbox import NotAccepted, Undeliverable
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.notifications.webhooks import Call
from pulumi_keystore.control_plane.runtime import background

MESSAGE = Message("test", "A subject", "A body")


@pytest.fixture
def leave(factory):
    numbers = itertools.count()

    def leave(*recipients, owner=None):
        """Leave a mail for each; without an owner each address is that of an organization of its own."""
        with factory.begin() as session:
            for recipient in recipients:
                number = owner if owner is not None else sum(recipient.encode())
                mail.put(session, number, f"event-{next(numbers)}", recipient, MESSAGE)

    return leave


def rows(factory):
    with factory() as session:
        return {row.recipient: row for row in session.scalars(select(Mail))}


def send(factory, table, deliver):
    """Send in one round, and wait for all turns to end; return how many messages were taken."""
    turns = background.Turns("test", outbox.AT_A_TIME)
    taken = select(func.count()).where(table.sent_at.is_not(None))
    with factory() as session:
        before = session.scalar(taken)
    outbox.send_due(factory, table, deliver, turns)
    wait_until(lambda: not turns._busy, "the turns to end", 120, 0.01)
    with factory() as session:
        return session.scalar(taken) - before


def test_a_message_that_nobody_can_send_holds_up_no_other(factory, leave):
    leave("bad@example.com", "good@example.com")

    def deliver(message):
        if message.recipient.startswith("bad"):
            raise ZeroDivisionError

    assert send(factory, Mail, deliver) == 1
    found = rows(factory)
    assert found["good@example.com"].sent_at is not None
    bad = found["bad@example.com"]
    assert (bad.sent_at, bad.attempts, bad.last_error) == (None, 1, "internal error (ZeroDivisionError)")
    assert bad.next_at > bad.created_at


def test_no_transaction_is_open_while_a_server_is_waited_for(factory, leave):
    leave(*(f"a{number}@example.com" for number in range(3)))
    seen, all_here, one = [], threading.Barrier(3), threading.Lock()

    def deliver(_message):
        # All three are with their servers now; each asks alone, as its own question is a transaction.
        all_here.wait(60)
        with one, factory() as session:
            own = "pid <> pg_backend_pid() AND datname = current_database()"
            idle = f"SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND {own}"
            seen.append(session.scalar(text(idle)))
        all_here.wait(60)

    assert send(factory, Mail, deliver) == 3
    assert seen == [0, 0, 0]


def test_an_organization_whose_webhooks_let_us_wait_holds_up_no_other(factory):
    """However many it has due, and however many servers they are on."""
    with factory.begin() as session:
        for number in range(30):
            call = Call(b"", f"row-{number}")
            webhooks.put(session, f"slow-{number}", call, {"organization": "hostile", "summary": "x"})
        webhooks.put(session, "other", Call(b"", "row"), {"organization": "acme", "summary": "x"})
    other_is_there, waiting = threading.Event(), []

    def deliver(hook):
        if hook.body["organization"] == "acme":
            other_is_there.set()
        else:
            waiting.append(hook.event_id)
            assert other_is_there.wait(20)

    assert send(factory, Hook, deliver) == 31
    assert waiting[0] == "slow-0"


def test_an_organization_that_names_those_of_another_as_its_own_delays_no_alert_of_theirs(factory, leave, monkeypatch):
    """Its mails let us wait, and there are many: those of the other go to the same person meanwhile."""
    monkeypatch.setattr(background, "TURN_S", 600)  # all in one turn, on a busy machine, too
    leave(*(["victim@example.com"] * 30), *(f"slow{number}@example.com" for number in range(30)), owner=1)
    leave("victim@example.com", owner=2)
    theirs_is_there, waited_for = threading.Event(), []

    def deliver(message):
        if message.organization_id == 2:
            theirs_is_there.set()
        elif not theirs_is_there.wait(20):
            waited_for.append(message.recipient)
            theirs_is_there.set()

    assert send(factory, Mail, deliver) == 61
    assert waited_for == []


def test_an_organization_whose_server_is_slow_holds_up_no_later_round(factory, leave, monkeypatch):
    """An alert that becomes due while a webhook of another one hangs does not wait for that."""
    monkeypatch.setattr(background, "TURN_S", 0.1)
    go_on, sent = threading.Event(), []

    def deliver(message):
        if message.organization_id == 1:
            assert go_on.wait(60)
        sent.append(message.recipient)

    turns = background.Turns("test", outbox.AT_A_TIME)
    leave("slow@example.com", owner=1)
    assert outbox.send_due(factory, Mail, deliver, turns) == 0
    leave("later@example.com", owner=2)
    outbox.send_due(factory, Mail, deliver, turns)
    wait_until(lambda: sent == ["later@example.com"], "the later mail", 60, 0.01)
    outbox.send_due(factory, Mail, deliver, turns)
    go_on.set()
    wait_until(lambda: not turns._busy, "the turns to end", 60, 0.01)
    # Nobody was sent anything twice.
    assert sorted(sent) == ["later@example.com", "slow@example.com"]


def test_a_receiver_that_has_had_its_turn_waits_for_the_others(factory, leave, monkeypatch):
    monkeypatch.setattr(background, "TURN_S", 0)
    leave("a@example.com", "a@example.com", "a@example.com", "b@example.com")
    for sent in ("ab", "a", "a", ""):
        to = []
        assert send(factory, Mail, lambda message, to=to: to.append(message.recipient[0])) == len(sent)
        assert sorted(to) == sorted(sent)


def test_a_receiver_gets_its_messages_in_order(factory, leave):
    leave(*["a@example.com", "b@example.com"] * 20)
    order = []

    def deliver(message):
        time.sleep(0.001 * (message.id % 3))
        order.append((message.recipient, message.id))

    assert send(factory, Mail, deliver) == 40
    for who in ("a@example.com", "b@example.com"):
        mine = [number for recipient, number in order if recipient == who]
        assert mine == sorted(mine)


def test_a_refused_message_comes_later_each_time(factory, leave):
    leave("a@example.com")

    def deliver(_message):
        raise NotAccepted("421")

    assert send(factory, Mail, deliver) == 0
    assert send(factory, Mail, deliver) == 0  # it is not due yet
    found = rows(factory)["a@example.com"]
    assert (found.attempts, found.last_error) == (1, "421")


def test_a_message_that_is_refused_for_good_or_for_too_long_is_given_up(factory, leave):
    leave("nobody@example.com", "busy@example.com")

    def deliver(message):
        raise (Undeliverable if message.recipient.startswith("nobody") else NotAccepted)("no")

    assert send(factory, Mail, deliver) == 0
    found = rows(factory)
    assert found["nobody@example.com"].given_up_at is not None
    assert found["busy@example.com"].given_up_at is None
    with factory.begin() as session:
        session.execute(update(Mail).values(created_at=now_utc() - timedelta(days=6), next_at=now_utc()))
    tried = []
    assert send(factory, Mail, lambda message: (tried.append(message.recipient), deliver(message))) == 0
    assert tried == ["busy@example.com"]
    assert rows(factory)["busy@example.com"].given_up_at is not None


@pytest.mark.parametrize("recipient", ["a@example.com", "o'brien+x=y@example.com", "=?utf-8?q?=0A?=@example.com"])
def test_a_mail_goes_to_the_address_that_was_checked_or_nowhere(factory, leave, recipient):
    leave(recipient)
    sender = mail.MailSender(factory, "smtp://127.0.0.1:9", "keystore@example.com", "Keystore")
    row = rows(factory)[recipient]
    try:
        message = sender._message(row)
    except (ValueError, IndexError, MessageError):
        return
    assert message["To"].addresses == (Address(addr_spec=recipient),)
    assert message["To"].addresses[0].addr_spec == recipient


def test_an_organization_leaves_so_many_mails_in_a_day(factory, leave, monkeypatch):
    """A keystore that comes and goes each minute, with twenty recipients, would send thirty thousand."""
    monkeypatch.setattr(mail, "MOST_A_DAY", 3)
    leave(*(f"a{number}@example.com" for number in range(5)), owner=1)
    leave("b@example.com", owner=2)
    assert sorted(rows(factory)) == ["a0@example.com", "a1@example.com", "a2@example.com", "b@example.com"]
    with factory.begin() as session:
        session.execute(update(Mail).values(created_at=now_utc() - timedelta(days=1, minutes=1)))
    leave("later@example.com", owner=1)
    assert "later@example.com" in rows(factory)


def test_of_many_messages_of_one_organization_the_first_are_looked_at(factory, leave, monkeypatch):
    monkeypatch.setattr(outbox, "_MOST_OF_ONE", 2)
    leave(*(["a@example.com"] * 5), owner=1)
    leave("b@example.com", owner=2)
    assert [send(factory, Mail, lambda _: None) for _ in range(4)] == [3, 2, 1, 0]


def test_what_was_sent_or_given_up_long_ago_is_forgotten(factory, leave):
    leave("sent@example.com", "given-up@example.com", "waiting@example.com", "today@example.com")
    long_ago = now_utc() - timedelta(days=31)
    with factory.begin() as session:
        of = {
            name: update(Mail).where(Mail.recipient == f"{name}@example.com") for name in ("sent", "given-up", "today")
        }
        session.execute(of["sent"].values(sent_at=long_ago))
        session.execute(of["given-up"].values(given_up_at=long_ago))
        session.execute(of["today"].values(sent_at=now_utc()))
        outbox.forget_old(session, now_utc())
    assert sorted(rows(factory)) == ["today@example.com", "waiting@example.com"]
