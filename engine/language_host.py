"""A Python language host for a Pulumi engine that was built from source.

Pulumi's own host is a Go program whose module is not published; this one serves the same gRPC interface
(`pulumirpc.LanguageRuntime`) over the SDK's inline-program server and runs the program in the interpreter it was
started with, which the shim beside it chooses: the project's virtual environment.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2


class LanguageHost(LanguageServer):
    """Run Python programs, and Python policy packs, for the engine."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return plugin_pb2.PluginInfo(version="0.1.0")

    def InstallDependencies(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        yield language_pb2.InstallDependenciesResponse(stdout=b"the virtual environment is used as it is\n")

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return language_pb2.GetProgramDependenciesResponse()

    def Run(self, request: Any, context: Any) -> Any:  # noqa: N802
        program = Path(request.info.program_directory) / (request.info.entry_point or ".")
        if program.is_dir():
            program /= "__main__.py"
        sys.path.insert(0, str(program.parent))
        os.chdir(request.pwd or request.info.program_directory)

        def run_program() -> None:
            runpy.run_path(str(program), run_name="__main__")

        self.program = run_program
        result = super().Run(request, context)
        if result.error:
            # It is logged already: the engine need not tell it a second time.
            result.error, result.bail = "", True
        return result

    def RunPlugin(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        module = ["-m", "pulumi.policy"] if request.kind == "analyzer" else []
        # A policy pack may have a virtual environment of its own beside it.
        own = Path(request.info.program_directory) / ".venv" / "bin" / "python"
        python = str(own) if module and own.exists() else sys.executable
        process = subprocess.Popen(
            [python, "-u", *module, *request.args, request.info.program_directory],
            cwd=request.pwd or None,
            env={**os.environ, **dict(item.split("=", 1) for item in request.env)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        errors: list[bytes] = []
        assert process.stdout is not None  # noqa: S101 - both were asked for above
        assert process.stderr is not None  # noqa: S101
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)
        reader.start()
        for line in process.stdout:
            yield language_pb2.RunPluginResponse(stdout=line)
        reader.join()
        if errors[0]:
            yield language_pb2.RunPluginResponse(stderr=errors[0])
        yield language_pb2.RunPluginResponse(exitcode=process.wait())


def main() -> None:
    """Serve on a free loopback port, print it as the engine expects, and end quietly when told to."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    parent = os.getppid()
    while not done.wait(1):
        if os.getppid() != parent:
            # The engine was killed and could not tell.
            break
    server.stop(0)
    # A program that the engine gave up on may still wait for answers: nothing waits for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
