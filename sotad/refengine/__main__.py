"""`python -m refengine`: parse flags, take the port, load the model, serve until told to stop."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

from . import __version__
from .flags import Config, parse

DRAIN_SECONDS = 5.0  # how long open streams may go on after SIGTERM


def log(message: str) -> None:
    """One line on stderr."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} INFO refengine: {message}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; 0 after SIGTERM or SIGINT, 1 when it cannot start or its engine died."""
    started = time.perf_counter()
    config = parse(argv)
    log(f"refengine {__version__}, pid {os.getpid()}")
    listener = None
    try:
        listener = _take_port(config)
        return _serve(config, listener, started)
    except (OSError, ValueError) as error:
        print(f"refengine: error: {error}", file=sys.stderr)
        return 1
    finally:
        if listener:
            listener.close()


def _take_port(config: Config) -> socket.socket:
    """Bind before the model is loaded, so that a taken port costs nothing. Raises OSError."""
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; "
            "choose another --port or stop what is using it"
        ) from None
    return listener


def _serve(config: Config, listener: socket.socket, started: float) -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch: the profiler warns at every pause
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # and announces every capture
    from .kvcache import check_capacity

    check_capacity(config.kv_tokens, config.max_model_len)
    from .engine import Engine

    try:
        engine = Engine(config)
    except (RuntimeError, MemoryError) as error:  # torch reports a failed allocation as RuntimeError
        raise ValueError(f"no room for the model: {str(error).splitlines()[0]}; choose a smaller one") from None
    log(
        f"model {config.model_name}: {config.layers} layers, hidden {config.hidden}, {config.heads} heads, "
        f"vocabulary {config.vocab_size}, {engine.model.parameters / 1e6:.1f}M float32 parameters, "
        f"seed {config.seed}"
    )
    log(
        f"KV cache: {config.kv_tokens} tokens, prefix cache {'on' if config.prefix_cache else 'off'}; "
        f"max model len {config.max_model_len}, max batch size {config.max_batch_size}, prefill chunk "
        f"{config.prefill_chunk}, policy {config.schedule_policy}, threads {config.threads}"
    )
    return asyncio.run(_run(engine, config, listener, started))


async def _run(engine: object, config: Config, listener: socket.socket, started: float) -> int:
    from aiohttp import web

    from .engine import Engine
    from .server import Server

    assert isinstance(engine, Engine)
    server = Server(engine, config)
    runner = web.AppRunner(server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    server.start()
    gc.collect()
    gc.freeze()  # weights and modules never become garbage: keep them out of every later collection
    site = web.SockSite(runner, listener)
    await site.start()
    log(f"ready on http://{config.host}:{config.port} after {time.perf_counter() - started:.2f} s")
    asked = await _stop_signal(server.failed)
    if asked:
        log(f"{asked}: finishing open requests")
        await server.drain(DRAIN_SECONDS)
    else:
        print(f"refengine: error: the engine died: {engine.failure!r}", file=sys.stderr)
    await runner.cleanup()
    engine.stop()
    log("stopped")
    return 0 if asked else 1


async def _stop_signal(failed: asyncio.Event) -> str | None:
    """The name of the signal that asks to stop; None when the engine died first."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    names: list[str] = []

    def ask(number: signal.Signals) -> None:
        names.append(number.name)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    waits = [asyncio.create_task(event.wait()) for event in (asked, failed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    return names[0] if names else None


if __name__ == "__main__":
    sys.exit(main())
