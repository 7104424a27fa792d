"""Whose costs hold up whom within one organization."""

import pytest

from pulumi_keystore.control_plane.api.queues import Queue
from pulumi_keystore.control_plane.identity.roles import Principal, Role

CLIENT = Principal("authority", Role.AUTHORITY, "acme")
PERSON = Principal("ops", Role.CUSTOMER_CLOUD_ADMIN, "acme")


@pytest.fixture
def queue():
    return Queue("acme", 16, 0.25)


def test_what_clients_cost_holds_up_no_person(queue):
    assert queue.pay(CLIENT, 10, alone=False) > 20
    assert queue.pay(PERSON, 0.01, alone=False) == 0


def test_what_people_cost_is_not_there_for_clients(queue):
    """Both together have no more than the organization's part of the processor."""
    assert queue.pay(PERSON, 5, alone=False) > 10
    assert queue.pay(CLIENT, 0.01, alone=False) > 10


def test_people_pay_for_themselves(queue):
    assert queue.pay(PERSON, 5, alone=False) > 10
    assert queue.pay(PERSON, 0.01, alone=False) > 10


def test_who_is_alone_rests_never(queue):
    for actor in (CLIENT, PERSON):
        assert queue.pay(actor, 100, alone=True) == 0
