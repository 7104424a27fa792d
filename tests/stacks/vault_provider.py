"""A stand-in for pulumi-vault's plugin, whose download is not served here: five resource types, on a real server.

The engine and pulumi-vault's own Python package are real; what the plugin would send to the server, hvac sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any, ClassVar

import grpc
import hvac
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

Properties = dict[str, Any]


class VaultProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Makes what is declared on one server."""

    def __init__(self, client: Callable[..., hvac.Client]) -> None:
        self._client = client
        self._kinds: dict[str, type[Kind]] = {
            "mount:Mount": Mount,
            "authBackend:AuthBackend": AuthBackend,
            "audit:Audit": Audit,
            "policy:Policy": Policy,
            "certAuthBackendRole:CertAuthBackendRole": Role,
        }

    def _kind(self, urn: str, properties: Properties) -> Kind:
        made = self._kinds[urn.split("::")[2].rsplit("$", 1)[-1].removeprefix("vault:index/")]
        return made(self._client(namespace=properties.get("namespace", "")))

    def GetPluginInfo(self, request, context):  # noqa: N802
        return plugin_pb2.PluginInfo(version="7.14.0")

    def CheckConfig(self, request, context):  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):  # noqa: N802
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request, context):  # noqa: N802
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Attach(self, request, context):  # noqa: N802
        return empty_pb2.Empty()

    def Cancel(self, request, context):  # noqa: N802
        return empty_pb2.Empty()

    def Check(self, request, context):  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request, context):  # noqa: N802
        olds, news = _plain(request.old_inputs), _plain(request.news)
        kind = self._kind(request.urn, news)
        differ = [name for name in {*olds, *news} if not name.startswith("__") and olds.get(name) != news.get(name)]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if differ else provider_pb2.DiffResponse.DIFF_NONE,
            replaces=[name for name in differ if name in (kind.named_by, "namespace")],
            diffs=differ,
        )

    def Create(self, request, context):  # noqa: N802
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        properties = _plain(request.properties)
        kind = self._kind(request.urn, properties)
        try:
            kind.write(properties)
        except hvac.exceptions.VaultError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return provider_pb2.CreateResponse(id=str(properties[kind.named_by]), properties=request.properties)

    def Update(self, request, context):  # noqa: N802
        if not request.preview:
            news = _plain(request.news)
            self._kind(request.urn, news).write(news)
        return provider_pb2.UpdateResponse(properties=request.news)

    def Read(self, request, context):  # noqa: N802
        if not self._kind(request.urn, _plain(request.properties)).exists(request.id):
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Delete(self, request, context):  # noqa: N802
        self._kind(request.urn, _plain(request.properties)).delete(request.id)
        return empty_pb2.Empty()


class Kind:
    """How one type of resource is made on the server."""

    named_by = "path"

    def __init__(self, client: hvac.Client) -> None:
        self.client = client

    def write(self, properties: Properties) -> None:
        raise NotImplementedError

    def exists(self, name: str) -> bool:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError


class Mount(Kind):
    def write(self, properties):
        self.client.sys.enable_secrets_engine(properties["type"], properties["path"], options=properties["options"])

    def exists(self, name):
        return f"{name}/" in self.client.sys.list_mounted_secrets_engines()["data"]

    def delete(self, name):
        self.client.sys.disable_secrets_engine(name)


class AuthBackend(Kind):
    def write(self, properties):
        self.client.sys.enable_auth_method(properties["type"], path=properties["path"])

    def exists(self, name):
        return f"{name}/" in self.client.sys.list_auth_methods()["data"]

    def delete(self, name):
        self.client.sys.disable_auth_method(name)


class Audit(Kind):
    named_by = "type"  # what the path is, unless it is given

    def write(self, properties):
        self.client.sys.enable_audit_device(properties["type"], options=properties["options"])

    def exists(self, name):
        return f"{name}/" in self.client.sys.list_enabled_audit_devices()["data"]

    def delete(self, name):
        self.client.sys.disable_audit_device(name)


class Policy(Kind):
    named_by = "name"

    def write(self, properties):
        self.client.sys.create_or_update_policy(properties["name"], properties["policy"])

    def exists(self, name):
        return name in self.client.sys.list_policies()["data"]["policies"]

    def delete(self, name):
        self.client.sys.delete_policy(name)


class Role(Kind):
    named_by = "name"
    fields: ClassVar = {
        "certificate": "certificate",
        "allowedCommonNames": "allowed_common_names",
        "tokenPolicies": "token_policies",
        "tokenNoDefaultPolicy": "token_no_default_policy",
        "tokenTtl": "token_ttl",
        "tokenMaxTtl": "token_max_ttl",
        "tokenType": "token_type",
    }

    def write(self, properties):
        body = {self.fields[name]: value for name, value in properties.items() if name in self.fields}
        self.client.write_data(f"auth/{properties['backend']}/certs/{properties['name']}", data=body)

    def exists(self, name):
        return self.client.read(f"auth/cert/certs/{name}") is not None

    def delete(self, name):
        self.client.delete(f"auth/cert/certs/{name}")


def _plain(properties: struct_pb2.Struct) -> Properties:
    found = json_format.MessageToDict(properties)
    # The engine sends whole numbers as floats.
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in found.items()
    }


@contextmanager
def serving(client: Callable[..., hvac.Client]) -> Iterator[dict[str, str]]:
    """Serve the provider; yield the environment in which the engine uses it. `client` makes one of a namespace."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(VaultProvider(client), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield {"PULUMI_DEBUG_PROVIDERS": f"vault:{port}"}
    finally:
        server.stop(None).wait()
