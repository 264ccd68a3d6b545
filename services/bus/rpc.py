"""Asking another service, and answering: nameko's RPC on queues that the topology step declares.

    @serve
    def open_cases(self, after: str, limit: int) -> list[dict[str, Any]]:
        ...

    rpc = caller()
    ...
    entries, behind = self.rpc.call("dispatch-village", "live_entries", "", 500)

nameko's own queue consumer declares what it reads, which no service may; a right that is
missing ends its process, and it can't be stopped while the broker is away
(``docs/decisions/``). So only that part is replaced: what goes over the bus is nameko's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event as Flag
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import eventlet
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.messaging import Consumer
from nameko.amqp.publish import Publisher
from nameko.exceptions import BadRequest, RemoteError, UnknownService
from nameko.extensions import DependencyProvider, ProviderCollector, SharedExtension
from nameko.rpc import RPC_REPLY_QUEUE_TEMPLATE, MethodProxy, ReplyListener, Rpc, RpcConsumer

from services.bus import logs, wire
from services.bus.errors import Retry
from services.bus.publisher import CONNECTION_ERRORS
from services.bus.topology import ANSWER_SECONDS, RPC, rpc_queue

log = logs.get(__name__)

_HEARTBEAT_SECONDS = 60
_TICK_SECONDS = 1.0
_LEAVES_SECONDS = 3.0
_CONFIRM_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
# More than the merges that wait for a desk: those must not hold up what is quick.
_AT_ONCE = 20

_EXCHANGE = Exchange(RPC, type="topic", durable=True, no_declare=True)


class NoAnswer(Exception):
    """Nobody answered in time, or the answer was an error; says which."""


class Reader(SharedExtension, ProviderCollector):
    """Reads the queues of its providers; takes the place of nameko's ``QueueConsumer``.

    It does not hold up the start of its service, connects again after whatever went wrong,
    and stops within a second or two whether the broker is there or not. Unlike a
    :class:`services.bus.reading.Reading` it stops in steps: once a provider has left, nothing is
    taken for it, while what is in hand is still answered, and heard of, over the same connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopping = Flag()
        self._left = Flag()
        self._left.set()
        self._connection: Any = None
        self._reading = False
        self._consumers: dict[Any, Consumer] = {}
        self._late: list[Any] = []

    def setup(self) -> None:
        """See nameko's ``Extension``."""
        # Else who lacks a queue or a right would take part, and neither ask nor answer.
        self.container.config["READINESS"].register("rpc", lambda: self._reading)

    def start(self) -> None:
        """See nameko's ``Extension``."""
        self._left.clear()
        self.container.spawn_managed_thread(self._run, identifier="rpc reader")

    def unregister_provider(self, provider: Any) -> None:
        """Takes nothing more for it; what is in hand can still be answered."""
        super().unregister_provider(provider)
        if not self._providers:
            self._stopping.set()

    def stop(self) -> None:
        """See nameko's ``Extension``."""
        self._stopping.set()
        # Two can't read one socket, and to close it is to read the answer.
        if self._left.wait(_LEAVES_SECONDS):
            self._disconnect()

    def ack_message(self, message: Any) -> None:
        """Acknowledges it, unless the connection that brought it is gone: then it comes again."""
        try:
            message.ack()
        except CONNECTION_ERRORS as error:
            log.debug("a question could not be acknowledged", why=str(error))

    def requeue_message(self, message: Any) -> None:
        """Leaves it to another replica."""
        try:
            message.requeue()
        except CONNECTION_ERRORS as error:
            log.debug("a question could not be given back", why=str(error))

    def _run(self) -> None:
        try:
            self._read()
        finally:
            self._left.set()

    def _read(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._connect()
                self._reading = True
                pause = _FIRST_PAUSE_SECONDS
                while not self._stopping.is_set():
                    self._drain()
            except CONNECTION_ERRORS as error:
                if not self._stopping.is_set():
                    log.warning("questions and answers are interrupted", why=str(error))
                self._disconnect()
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _connect(self) -> None:
        uri = self.container.config["AMQP_URI"]
        self._connection = wire.connection(uri, heartbeat=_HEARTBEAT_SECONDS, connect_timeout=10)
        self._connection.connect()
        channel = self._connection.default_channel
        channel.basic_qos(0, _AT_ONCE, False)
        # What the old connection had comes again.
        self._consumers, self._late = {}, []
        for provider in list(self._providers):
            take = partial(self._take, provider)
            self._consumers[provider] = Consumer(
                channel,
                [provider.queue],
                callbacks=[take],
                accept=["json"],
                on_decode_error=lambda message, _error: message.reject(),
            )
            self._consumers[provider].consume()

    def _drain(self) -> None:
        for provider in self._consumers.keys() - self._providers:
            # Here, because two can't read one socket.
            self._consumers.pop(provider).cancel()
        while self._late:
            self.requeue_message(self._late.pop())
        self._connection.heartbeat_check()
        try:
            self._connection.drain_events(timeout=_TICK_SECONDS)
        except TimeoutError:
            return

    def _take(self, provider: Any, body: Any, message: Any) -> None:
        if provider not in self._providers:
            # It would come again at once: it is given back when its consumer is gone.
            self._late.append(message)
            return
        take = partial(provider.handle_message, body, message)
        self.container.spawn_managed_thread(take, identifier="rpc message")

    def _disconnect(self) -> None:
        self._reading = False
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.release()
            except CONNECTION_ERRORS as error:
                log.debug("a broken connection could not be closed", why=str(error))


class _Publisher(Publisher):
    """nameko's, which waits for a confirm only so long."""

    def publish(self, payload: Any, **kwargs: Any) -> None:
        super().publish(payload, confirm_timeout=_CONFIRM_SECONDS, **kwargs)


class _Questions(RpcConsumer):
    """The questions to this instance: each level's desk is a service of its own."""

    queue_consumer = Reader()
    queue: Any

    def setup(self) -> None:
        if self.queue is None:
            self.queue = Queue(rpc_queue(self.container.config["INSTANCE"]), no_declare=True)
            self.queue_consumer.register_provider(self)

    def get_provider_for_method(self, routing_key: str) -> Any:
        _instance, method, *_level = routing_key.split(".")
        return super().get_provider_for_method(f"{self.container.service_name}.{method}")

    def handle_result(self, message: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        """An answer that can't be sent must not end the service: whoever asked asks again."""
        behind = any(check() for check in self.container.config["BEHIND"])
        said = {"answer": result, "behind": behind}
        try:
            answered: tuple[Any, Any] = super().handle_result(message, said, exc_info)
        except Exception as error:  # noqa: BLE001 - nameko would end the process
            log.warning("an answer could not be sent", why=str(error))
            self.queue_consumer.ack_message(message)
            return result, exc_info
        return answered


class _Serve(Rpc):
    """The nameko entrypoint behind :func:`serve`."""

    rpc_consumer = _Questions()

    def __init__(self) -> None:
        super().__init__(expected_exceptions=(Retry,))

    def handle_message(self, body: Any, message: Any) -> None:
        """A question of a desk has its level as ``desk``: the broker lets it name no other."""
        _instance, _method, *level = message.delivery_info["routing_key"].split(".")
        if level:
            body["kwargs"]["desk"] = level[0]
        super().handle_message(body, message)


class _Answers(ReplyListener):
    """The answers to this process, in a queue of its own that ends soon after it."""

    queue_consumer = Reader()
    queue: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Who waits no longer for an answer leaves nothing here.
        self._reply_events = WeakValueDictionary[str, Any]()

    def setup(self) -> None:
        super().setup()
        made = self.queue
        self.queue = Queue(
            RPC_REPLY_QUEUE_TEMPLATE.format(self.container.config["INSTANCE"], self.routing_key),
            exchange=_EXCHANGE,
            routing_key=made.routing_key,
            queue_arguments=made.queue_arguments,
        )


class _Method(MethodProxy):
    publisher_cls = _Publisher


class Caller:
    """Asks other services; a question is answered in time or not at all."""

    def __init__(self, worker: Any, answers: _Answers) -> None:
        self._worker = worker
        self._answers = answers

    def call(
        self, instance: str, method: str, *arguments: Any, seconds: float = ANSWER_SECONDS
    ) -> tuple[Any, bool]:
        """What an instance (``intake``, ``dispatch-village``) answers, and whether it is behind.

        Who is behind has more events waiting than it can take at once: it will know more soon.

        :raises NoAnswer: it did not, within so many seconds or at all.
        """
        late = NoAnswer(f"{instance} did not answer within {seconds:g} s")
        try:
            with eventlet.Timeout(seconds, late):
                level = self._worker.container.config["LEVEL"]
                key = f"{method}.{level}" if level else method
                ask = _Method(self._worker, instance, key, self._answers)
                said = ask(*arguments)
                return said["answer"], said["behind"]
        except UnknownService as error:
            raise NoAnswer(f"{instance} has no queue: run the topology step") from error
        except (RemoteError, BadRequest) as error:
            raise NoAnswer(f"{instance} could not answer: {error}") from error
        except (OperationalError, *CONNECTION_ERRORS) as error:
            raise NoAnswer(f"{instance} could not be asked: {error}") from error


class _Attachment(DependencyProvider):
    """Injects a :class:`Caller`."""

    answers = _Answers()

    def get_dependency(self, worker_ctx: Any) -> Caller:
        return Caller(worker_ctx, self.answers)


Method = TypeVar("Method", bound=Callable[..., Any])


def serve(method: Method) -> Method:
    """Makes a method of a service answer questions; ``SERVES`` in the topology names it."""
    decorated: Method = _Serve.decorator(method)
    return decorated


def caller() -> Caller:
    """A :class:`Caller` as an attribute of a nameko service class."""
    return cast(Caller, _Attachment())
