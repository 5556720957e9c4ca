"""Load on a running relay, wherever it is, with Locust: streams, OFREP, and changes.

    make load                                                    # a private Redis and relay, 200 streams, 30 s
    locust -f loadtests/locustfile.py --host https://relay.example --access-key … [--redis-url …]

Three kinds of users. `StreamUser` holds a stream, and checks that nothing is skipped, repeated or cut off. `OfrepUser`
evaluates. `ChangeUser`, of which there is one however many processes take part, changes a flag of its own.
docs/operations.md says what the names of the requests mean. `python loadtests/locustfile.py` lists all options: `locust
--help` does not know those that a locustfile adds.
"""

import json
import random
import sys
import time
from argparse import Namespace
from contextlib import closing, suppress
from itertools import count

import gevent
import orjson
from load_chart import PATH, Chart
from load_link import RedisFailed, RedisLink
from load_stream import Arrival, Broken, Order, Stream, Target, Wire
from locust import FastHttpUser, User, between, constant_throughput, events, stats, task
from locust.argument_parser import LocustArgumentParser, get_parser
from locust.env import Environment
from locust.exception import StopTest, StopUser
from locust.runners import WorkerRunner
from locust.web import WebUI

from flagrelay.errors import MessageError

STREAMS = {"definitions": "/v1/stream", "evaluated": "/v1/evaluations/stream"}
BULK = "/ofrep/v1/evaluate/flags"

SAMPLE = 20
"""One of how many streams tells how late this program looked."""

CLOCKS_EVERY = 30.0
"""Seconds between two comparisons of the clocks."""

RETRY = (0.5, 1.5)
"""Seconds until a stream is opened again, between these two, where nobody said when."""

ORDERLY = ("drain", "lifetime", "behind")
"""Reasons of a goodbye that are a relay's own affair; the others are something that should not be in a load test."""


def two_digits(milliseconds: float) -> float:
    """What a response time is rounded to for percentiles: Locust's whole milliseconds are too coarse for a relay."""
    return float(f"{milliseconds:.2g}")


stats.bucket_response_time = two_digits  # type: ignore[assignment]  # it is typed for whole milliseconds


# -- options ----------------------------------------------------------------------------------------------------------


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """What is asked for on the command line, in the environment and on the web page."""
    switch = ("on", "off")
    parser.add_argument(
        "--access-key",
        env_var="LOCUST_ACCESS_KEY",
        default="",
        is_secret=True,
        help="an access key of kind server, of the environment whose flags are streamed",
    )
    parser.add_argument(
        "--redis-url",
        env_var="LOCUST_REDIS_URL",
        default="",
        is_secret=True,
        help="the relay's Redis, to make changes and to compare clocks. Empty: no changes are made, those of others "
        "are measured, and the clocks of this machine and of Redis must agree",
    )
    parser.add_argument(
        "--redis-env",
        env_var="LOCUST_REDIS_ENV",
        default="production",
        help="the environment that changes, the access key's",
    )
    parser.add_argument(
        "--redis-prefix", env_var="LOCUST_REDIS_PREFIX", default="flagrelay", help="the relay's prefix in Redis"
    )
    parser.add_argument(
        "--changes-per-second", env_var="LOCUST_CHANGES_PER_SECOND", type=float, default=5.0, help="0 for none"
    )
    parser.add_argument(
        "--change-flag",
        env_var="LOCUST_CHANGE_FLAG",
        default="",
        help="the flag that changes, which must not exist: it is removed at the end. Empty: one with a name of its own",
    )
    parser.add_argument(
        "--stream-kind",
        env_var="LOCUST_STREAM_KIND",
        choices=tuple(STREAMS),
        default="definitions",
        help="what streams carry: flag definitions, or values evaluated for a context",
    )
    parser.add_argument(
        "--contexts",
        env_var="LOCUST_CONTEXTS",
        type=int,
        default=1000,
        help="how many contexts are evaluated for, by OFREP and by streams of evaluated values",
    )
    parser.add_argument(
        "--gzip", env_var="LOCUST_GZIP", choices=switch, default="on", help="whether compressed answers are asked for"
    )
    parser.add_argument(
        "--tls-verify",
        env_var="LOCUST_TLS_VERIFY",
        choices=switch,
        default="on",
        help="whether certificates are checked",
    )


@events.init.add_listener
def refuse_early(environment: Environment, **_: object) -> None:
    """End at once where nothing can come of it. What is entered on the web page is looked at when users start."""
    if not _options(environment).headless or isinstance(environment.runner, WorkerRunner):
        return
    try:
        chosen = _require(environment)
        if chosen.redis_url:
            with closing(RedisLink(chosen.redis_url, chosen.redis_env, chosen.redis_prefix)) as link:
                link.begin(chosen.change_flag)
    except (StopTest, RedisFailed) as error:
        sys.exit(f"locust: error: {error}")


@events.init.add_listener
def add_chart(environment: Environment, web_ui: WebUI | None, **_: object) -> None:
    """A page with what all this is about."""
    if web_ui and web_ui.app:
        chart = Chart(environment, "SSE", "propagation")
        gevent.spawn(chart.keep)
        web_ui.app.add_url_rule(PATH, view_func=web_ui.auth_required_if_enabled(chart.page), endpoint="propagation")


def _options(environment: Environment) -> Namespace:
    chosen = environment.parsed_options
    if not isinstance(chosen, Namespace):
        raise TypeError("locust has parsed no options")
    return chosen


def _require(environment: Environment) -> Namespace:
    chosen = _options(environment)
    if not environment.host:
        raise StopTest("no relay is named (--host)")
    if not chosen.access_key:
        raise StopTest("no access key is given (--access-key)")
    return chosen


def _headers(chosen: Namespace) -> dict[str, str]:
    coding = "gzip" if chosen.gzip == "on" else "identity"
    return {"authorization": f"Bearer {chosen.access_key}", "accept-encoding": coding}


def _context(chosen: Namespace) -> dict[str, str]:
    """One of the evaluation contexts."""
    number = random.randrange(max(1, chosen.contexts))
    plan = "pro" if number % 2 else "free"
    return {"targetingKey": f"user-{number}", "email": f"user-{number}@example.com", "plan": plan}


# -- Redis ------------------------------------------------------------------------------------------------------------


class Redis:
    """This process's link to Redis, while a test runs that was given one."""

    def __init__(self) -> None:
        self.link: RedisLink | None = None
        self._comparing: gevent.Greenlet | None = None

    def open(self, environment: Environment) -> RedisLink | None:
        """The link; made when it is first asked for.

        Raises:
            StopTest: it cannot be made.
        """
        chosen = _options(environment)
        if chosen.redis_url and not self.link:
            try:
                self.link = RedisLink(chosen.redis_url, chosen.redis_env, chosen.redis_prefix)
            except RedisFailed as error:
                environment.process_exit_code = 1
                raise StopTest(str(error)) from error
            self._comparing = gevent.spawn(self._compare, self.link)
        return self.link

    def close(self) -> None:
        """End it; the flag that changed is removed."""
        link, self.link = self.link, None
        if self._comparing:
            self._comparing.kill()
        if link:
            link.close()

    @staticmethod
    def _compare(link: RedisLink) -> None:
        while True:
            gevent.sleep(CLOCKS_EVERY)
            with suppress(RedisFailed):  # while Redis is away, the last comparison holds
                link.compare_clocks()


redis = Redis()


@events.test_stop.add_listener
def close_redis(**_: object) -> None:
    """The end of a test, once its users have stopped."""
    redis.close()


# -- users ------------------------------------------------------------------------------------------------------------


class StreamUser(User):
    """Holds one stream, and opens it again when it ends."""

    weight = 10
    _number = count()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        chosen = _require(environment)
        evaluated = chosen.stream_kind == "evaluated"
        self._link = redis.open(environment)
        self._target = Target(
            str(environment.host).rstrip("/") + STREAMS[chosen.stream_kind],
            _headers(chosen),
            json.dumps({"context": _context(chosen)}).encode() if evaluated else b"",
            verify=chosen.tls_verify == "on",
        )
        self._order = Order(holes=evaluated)
        self._last_id = ""
        self._tells_delay = next(self._number) % SAMPLE == 0

    @task
    def hold(self) -> None:
        """One connection, to its end, and the wait until the next."""
        stream = None
        wait: float | None = None
        try:
            began = time.time()
            with Wire(self._target) as wire:
                wire.send(self._target.request(self._last_id))
                stream = Stream(wire)
                self._follow(stream, began)
        except (Broken, MessageError, OSError) as error:
            self._fire("stream", None, failure=error)
            if isinstance(error, Broken):
                if error.final:
                    raise StopUser from error
                wait = error.wait
        if wait is None and stream:
            wait = stream.retry
        gevent.sleep(random.uniform(*RETRY) if wait is None else wait)

    def _follow(self, stream: Stream, began: float) -> None:
        resumed, first = bool(self._last_id), True
        for arrival in stream.arrivals():
            if first:
                name = "reconnect to first event" if resumed else "connect to first put"
                self._fire(name, arrival.at - began, arrival.size)
                first = False
            match arrival.event.type:
                case "put":
                    self._check(arrival)
                case "patch":
                    self._check(arrival)
                    self._propagated(arrival, began if resumed else 0)
                case "goodbye":
                    self._goodbye(arrival)
                    return
        raise Broken("the stream ended without a goodbye")

    def _check(self, arrival: Arrival) -> None:
        problem = self._order.problem(arrival.event)
        if problem:
            self._fire("stream", None, failure=problem)
        self._last_id = arrival.event.id

    def _propagated(self, arrival: Arrival, began: float) -> None:
        offset = self._link.offset if self._link else 0.0
        changed = orjson.loads(arrival.event.data)["at"] / 1e6 - offset
        name = "propagation" if changed >= began else "propagation after reconnect"
        self._fire(name, arrival.at - changed, arrival.size)
        if self._tells_delay:
            self._fire("reading delay", time.time() - arrival.at, kind="LOCUST")

    def _goodbye(self, arrival: Arrival) -> None:
        reason = orjson.loads(arrival.event.data)["reason"]
        failure = None if reason in ORDERLY else f"a stream was ended as {reason}"
        self._fire(f"goodbye: {reason}", None, arrival.size, failure=failure)

    def _fire(
        self,
        name: str,
        seconds: float | None,
        size: int = 0,
        *,
        kind: str = "SSE",
        failure: Exception | str | None = None,
    ) -> None:
        _fire(self.environment, kind, name, None if seconds is None else seconds * 1000, size, failure)


class OfrepUser(FastHttpUser):
    """Evaluates, as a provider without flags of its own does: everything now and then, single flags in between."""

    weight = 1
    wait_time = between(0.5, 1.5)

    def __init__(self, environment: Environment) -> None:
        chosen = _require(environment)
        self.insecure = chosen.tls_verify == "off"
        self.default_headers = _headers(chosen)
        super().__init__(environment)
        self._body = {"context": _context(chosen)}
        self._etag = ""
        self._flags: list[str] = []

    def on_start(self) -> None:
        """Learn which flags there are."""
        self.evaluate_all()

    @task(1)
    def evaluate_all(self) -> None:
        """Every flag, unless nothing has changed."""
        headers = {"if-none-match": self._etag} if self._etag else {}
        with self.client.post(BULK, json=self._body, headers=headers, name=BULK, catch_response=True) as response:
            if response.status_code == 304:
                response.request_meta["name"] = f"{BULK} (not modified)"
            elif response.status_code == 200:
                self._etag = response.headers["etag"]
                self._flags = [flag["key"] for flag in response.json()["flags"]]

    @task(4)
    def evaluate_one(self) -> None:
        """One flag."""
        if not self._flags:
            return
        path = f"{BULK}/{random.choice(self._flags)}"
        with self.client.post(path, json=self._body, name=f"{BULK}/{{key}}", catch_response=True) as response:
            if response.status_code == 404:  # somebody has deleted it since
                response.success()


class ChangeUser(User):
    """Changes a flag at the rate that was asked for; one of its kind, however many processes there are."""

    fixed_count = 1

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        chosen = _require(environment)
        self._link = redis.open(environment) if chosen.changes_per_second > 0 else None
        self._pace = constant_throughput(chosen.changes_per_second if self._link else 1)
        if self._link:
            try:
                self._link.begin(chosen.change_flag)
            except RedisFailed as error:
                environment.process_exit_code = 1
                raise StopTest(str(error)) from error

    def wait_time(self) -> float:
        """Until the next change is due."""
        return float(self._pace(self))

    @task
    def change(self) -> None:
        """Write one change."""
        if not self._link:
            return
        try:
            _fire(self.environment, "CHANGE", "write", self._link.change())
        except RedisFailed as error:
            _fire(self.environment, "CHANGE", "write", None, failure=error)


def _fire(
    environment: Environment,
    kind: str,
    name: str,
    milliseconds: float | None,
    size: int = 0,
    failure: Exception | str | None = None,
) -> None:
    """Tell Locust of a request, which has no duration where that would say nothing."""
    environment.events.request.fire(
        request_type=kind,
        name=name,
        response_time=milliseconds,
        response_length=size,
        exception=failure,
        context={},
    )


if __name__ == "__main__":
    get_parser().print_help()
