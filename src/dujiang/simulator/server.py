"""Runs the simulator: inside an event loop, or in a thread of its own beside a test."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from .control import Control, begin_anew, ledger_of
from .gateway import Gateway
from .host import Host
from .images import Images
from .settings import SimulatorSettings
from .superbed import Superbed
from .vendor import Clock, Vendor
from .wire import OpenProtocol

_KEEP_ALIVE_S = 75  # as common proxies do


class Simulator:
    """A simulated vendor and image host that listen on one port, inside the running event loop."""

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._settings = settings or SimulatorSettings()
        _check_host(self._settings)
        self.vendor = Vendor(self._settings, clock, wall_clock)
        self.host = Host(self.vendor)
        images = Images(self.vendor)
        self._images = images
        self._gateway = Gateway(self.vendor, images, self._close_door)
        self._superbed = Superbed(self.vendor, self.host)
        self._control = Control(self.vendor, images, self.host).app
        self._state = ServerState()
        self._protocol: Callable[[], OpenProtocol]
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: the busy routes go past the framework."""
        path = scope["path"]
        with contextlib.suppress(asyncio.CancelledError):  # only a stop cancels, and nobody listens any more
            if path == "/":
                await self._gateway(scope, receive, send)
            elif path.startswith("/images/"):
                await self._images(scope, receive, send)
            elif path in {"/upload", "/delete"} or path.startswith("/item/"):
                await self._superbed(scope, receive, send)
            else:
                await self._control(scope, receive, send)

    async def __aenter__(self) -> Self:
        config = Config(
            self,
            interface="asgi3",
            lifespan="off",
            ws="none",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        config.load()
        self._protocol = lambda: OpenProtocol(config, self._state, {})
        self._server = await self._listen(self._settings.port)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def _listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._protocol, host=self._settings.host, port=port, backlog=2048)

    async def _close_door(self) -> None:
        """Refuse connections for a while. The open ones stay, and whoever is let in already is served."""
        server = self._server
        if server is None or self._opening is not None:
            return
        port = server.sockets[0].getsockname()[1]
        let_in = [connection for listener in server.sockets for connection in _waiting_at(listener)]
        server.close()
        self._opening = asyncio.create_task(self._open_door(port))
        loop = asyncio.get_running_loop()
        for connection in let_in:
            await loop.connect_accepted_socket(self._protocol, connection)

    async def _open_door(self, port: int) -> None:
        settings = self.vendor.settings
        await asyncio.sleep(settings.seconds(settings.closed_door_s))
        self._server = await self._listen(port)
        self._opening = None

    async def __aexit__(self, *_: object) -> None:
        """Stop at once. Whoever still waits for an answer is cut off, as by a vendor that goes down."""
        assert self._server is not None
        if self._opening is not None:
            self._opening.cancel()
        self._server.close()
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # those that hang notice by themselves
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)


def _waiting_at(listener: socket.socket) -> list[socket.socket]:
    """Connections that the system has made and nobody has taken yet: a listener that closes would reset them."""
    waiting = []
    with listener.dup() as own, contextlib.suppress(BlockingIOError):
        own.setblocking(False)
        while True:
            waiting.append(own.accept()[0])
    return waiting


def _check_host(settings: SimulatorSettings) -> None:
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(settings.host).is_loopback:
            return
    if settings.host != "localhost" and not settings.any_host:
        raise ValueError(f"the simulator listens on loopback addresses only, not on {settings.host}")


async def serve(
    settings: SimulatorSettings,
    *,
    ready: Callable[[str], None] | None = None,
    until: asyncio.Event | None = None,
) -> None:
    """Serve until cancelled, or until the event is set. `ready` is told the base URL."""
    async with Simulator(settings) as simulator:
        if ready is not None:
            ready(simulator.url)
        await (until or asyncio.Event()).wait()


class RunningSimulator:
    """A simulator in a thread of this process, as seen from the others."""

    def __init__(self, simulator: Simulator, loop: asyncio.AbstractEventLoop) -> None:
        self._simulator = simulator
        self._loop = loop
        self.url = simulator.url

    def ledger(self) -> dict[str, Any]:
        """What `GET /_sim/ledger` answers."""
        ledger: dict[str, Any] = self._ask(lambda: ledger_of(self._simulator.vendor, self._simulator.host))
        return ledger

    def configure(self, **partial: Any) -> None:
        """What `POST /_sim/config` does."""
        self._ask(lambda: self._simulator.vendor.change(partial))

    def plan_faults(self, kind: str, *names: str | None) -> None:
        """What `POST /_sim/faults/next` does."""
        self._ask(lambda: self._simulator.vendor.chance.plan_faults(kind, names))

    def reset(self) -> None:
        """What `POST /_sim/reset` does."""
        self._ask(lambda: begin_anew(self._simulator.vendor, self._simulator.host))

    def _ask(self, question: Callable[[], Any]) -> Any:
        async def answer() -> Any:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result()


@contextlib.contextmanager
def running(
    settings: SimulatorSettings | None = None,
    *,
    clock: Clock = time.monotonic,
    wall_clock: Clock = time.time,
) -> Iterator[RunningSimulator]:
    """A simulator in a thread of its own, for as long as the block lasts."""
    simulator = Simulator(settings, clock=clock, wall_clock=wall_clock)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()
    failures: list[BaseException] = []

    async def serve_until_stopped() -> None:
        async with simulator:
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve_until_stopped())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="simulator", daemon=True)
    thread.start()
    started.wait()
    try:
        if failures:
            raise failures[0]
        yield RunningSimulator(simulator, loop)
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed already: it failed
            loop.call_soon_threadsafe(stop.set)
        thread.join()
