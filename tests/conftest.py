"""Backends that tests run against: fakeredis, and every real server there is."""

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Backend
from tests.servers import BINARIES, CLUSTER, SENTINEL, Cluster, RedisServer, Sentinel

TESTS = Path(__file__).parent
_numbers = itertools.count()
STARTED = {"own_server", "redis", "servers", "shared_cluster", "shared_sentinel"}
"""Fixtures that start a server."""
FIRST = next(iter(BINARIES))
SEVERAL: dict[str, type[Cluster | Sentinel]] = {CLUSTER: Cluster, SENTINEL: Sentinel}
"""Those in the place of one server that are several."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what is to run in the background, and a child would never hear its Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # So nohup starts it, and a child would take the end of a terminal for nothing.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with a real server ``real``. Modules that start processes mark themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and _is_real(item):
            item.add_marker(pytest.mark.real)


def _is_real(item: pytest.Function) -> bool:
    """Whether a test has a server as a parameter, or a fixture that starts one."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    kinds = {*BINARIES, *SEVERAL}
    flavours = any(isinstance(value, str) and value in kinds for value in parameters)
    return flavours or not STARTED.isdisjoint(item.fixturenames)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, RedisServer]]:
    """One server of each flavour, shared by all tests that do not harm it."""
    running: dict[str, RedisServer] = {}
    try:
        for flavour in BINARIES:
            running[flavour] = RedisServer(flavour)
            running[flavour].start()
        yield running
    finally:
        for server in running.values():
            server.__exit__()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A Redis Cluster, shared by all tests that do not harm it."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def unused() -> Iterator[dict[str, list[Cluster | Sentinel]]]:
    """At most one of each kind that a test has used alone and left as it was."""
    left: dict[str, list[Cluster | Sentinel]] = {CLUSTER: [], SENTINEL: []}
    yield left
    for one in itertools.chain(*left.values()):
        one.__exit__()


@pytest.fixture(scope="session")
def shared_sentinel() -> Iterator[Sentinel]:
    """A Redis under sentinels, shared by all tests that do not harm it."""
    with Sentinel() as sentinel:
        yield sentinel


@pytest.fixture(params=["fake", *BINARIES, SENTINEL, CLUSTER])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A Redis of each kind, under a prefix that no other test uses; nothing may be left there."""
    prefix = f"cluster_pool:test{next(_numbers)}"
    if request.param == "fake":
        made = Backend(None, prefix)
    elif request.param in SEVERAL:
        made = Backend(request.getfixturevalue(f"shared_{request.param}"), prefix)
    else:
        made = Backend(request.getfixturevalue("servers")[request.param], prefix)
    yield made
    assert made.leaked() == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Scripts and links are tried with every server, and with several of them. Elsewhere it is the
    surroundings of what is tested: there the first one does, and for nodes a Redis Cluster."""
    if "own_server" in metafunc.fixturenames and not _names_its_server(metafunc):
        folder = metafunc.definition.path.relative_to(TESTS).parts[0]
        kinds = {"cluster": [*BINARIES, *SEVERAL], "backplane": [*BINARIES]}
        others = [FIRST, CLUSTER] if folder == "server" else [FIRST]
        metafunc.parametrize("own_server", kinds.get(folder, others), indirect=True)


def _names_its_server(metafunc: pytest.Metafunc) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any("own_server" in str(mark.args[0]) for mark in marks)


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[RedisServer | Cluster | Sentinel]:
    """A real server for this test alone, which may kill and freeze it; or several of them."""
    if request.param in BINARIES:
        with RedisServer(request.param) as server:
            yield server
        return
    unused = request.getfixturevalue("unused")[request.param]
    several = unused.pop() if unused else SEVERAL[request.param]().__enter__()
    try:
        yield several
    except BaseException:
        several.__exit__()
        raise
    if several.is_as_new():
        unused.append(several)
    else:
        several.__exit__()
