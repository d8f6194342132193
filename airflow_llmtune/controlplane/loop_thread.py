"""An event loop of its own in a thread, so that blocking callers can use what is asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs until ``stop``. The thread is a daemon: a caller that forgets to stop does not hang at its end."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_cancel_others())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait for its end, also when this thread is interrupted meanwhile."""
        done: Future[Result] = Future()
        tasks: list[asyncio.Task[Result]] = []

        def launch() -> None:
            tasks.append(self._loop.create_task(coroutine))
            tasks[0].add_done_callback(lambda task: _copy_outcome(task, done))

        self._loop.call_soon_threadsafe(launch)
        try:
            return done.result()
        except BaseException:
            if not done.done():
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                wait([done])
            raise

    def call(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Call a plain function on the loop's thread and wait for its result."""
        done: Future[Result] = Future()

        def work() -> None:
            try:
                done.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  handed over to the waiting thread
                done.set_exception(error)

        self._loop.call_soon_threadsafe(work)
        return done.result()

    def stop(self) -> None:
        """What is still running is cancelled, and waited for."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _copy_outcome(task: asyncio.Task[Result], done: Future[Result]) -> None:
    if task.cancelled():
        done.set_exception(CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


class BackgroundTasks:
    """Coroutines that run for ever; one that ends is a fault, which is kept until somebody looks."""

    def __init__(self, on_crash: Callable[[str, BaseException | None], None]) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._on_crash = on_crash

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        async def body() -> None:
            await run()

        task = asyncio.get_running_loop().create_task(body(), name=name)
        task.add_done_callback(self._ended)
        self._tasks[name] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._on_crash(task.get_name(), task.exception())

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
