"""Flows (`pulumi_keystore.vault.requests`) run without a transport, against what a test says a server answers."""

from pulumi_keystore.vault.requests import Pause


def drive(flow, answer, paused=lambda _: None):
    """Run a flow to its end: `answer` is asked for the response to each request, and told nothing of pauses."""
    response = None
    while True:
        try:
            step = flow.send(response)
        except StopIteration as end:
            return end.value
        if isinstance(step, Pause):
            paused(step.seconds)
            response = None
        else:
            response = answer(step)
