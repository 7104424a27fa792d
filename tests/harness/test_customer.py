"""What a customer of the harness says of a service that refuses."""

import http.server
import json
import threading
from types import SimpleNamespace

import pytest
from keystore_harness.customer import Customer
from keystore_harness.errors import HarnessError


@pytest.fixture
def refusing():
    """A customer of a service that refuses everything with the problem document that is put in."""
    problem: dict[str, object] = {}

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(405)
            self.end_headers()
            self.wfile.write(json.dumps(problem).encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        customer = Customer.__new__(Customer)
        customer.name, customer._admin = "acme", "token"
        customer.testbed = SimpleNamespace(service=SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}"))
        yield customer, problem
        server.shutdown()


@pytest.mark.parametrize(("detail", "says"), [({}, "Method Not Allowed"), ({"detail": "not now"}, "not now")])
def test_a_refusal_says_why_with_and_without_a_detail(refusing, detail, says):
    customer, problem = refusing
    problem |= {"type": "about:blank", "title": "Method Not Allowed", "status": 405, **detail}
    with pytest.raises(HarnessError, match=f"^the service says 405: {says}$"):
        customer.call("GET", "")
