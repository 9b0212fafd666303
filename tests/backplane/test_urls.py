"""URLs of Redis: parsed as they are meant, and refused where ambiguous."""

import pytest

from cluster_pool import Publisher
from cluster_pool.backplane.urls import check_url, place_of, read_url
from cluster_pool.exceptions import InvalidValueError


def test_an_ambiguous_url_is_refused_without_being_shown() -> None:
    """Part of a password could be read as a port, a host or an option."""
    for url in (
        *("redis://:123#456@127.0.0.1", "redis://:12/34@127.0.0.1", "redis://:12?34@127.0.0.1"),
        *("redis://me:p@12/34@127.0.0.1", "redis://127.0.0.1?password=12&34", "redis://:34 12@x"),
    ):
        with pytest.raises(InvalidValueError, match="percent-encode") as caught:
            Publisher(url)
        assert "12" not in str(caught.value).replace("127.0.0.1", "")
        assert "34" not in str(caught.value)


def test_a_url_of_another_kind_is_refused() -> None:
    """The error comes when it is given."""
    for url in ("http://x", "localhost", "", 5, "redis://127.0.0.1/0?nonsense=1"):
        with pytest.raises(InvalidValueError):
            Publisher(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:s3cret/x@127.0.0.1", "redis://u:s3cret?#@127.0.0.1", "redis://u:a@s3cret@x:y"),
        *("redis://u:s3cret@127.0.0.1:port/0", "redis://u:s3cret@127.0.0.1/0?db=x", "u:s3cret@x"),
        *("redis://127.0.0.1/0?password=s3cret&db=x", "redis://u:s3cret@127.0.0.1/0?nonsense=1"),
        *(
            "redis+sentinel://u:s3cret@a:1,b:2",
            "redis+cluster://u:s3cret@a:1,b:2/3",
        ),
        *("redis+sentinel://a/main?sentinel_password=s3cret&x=1", "redis+cluster://s3cret:p:x/0"),
    ],
)
def test_an_invalid_url_does_not_reveal_its_password(url: str) -> None:
    """Also when its special characters were not percent-encoded."""
    with pytest.raises(InvalidValueError) as caught:
        Publisher(url)
    assert "s3cret" not in str(caught.value)


def test_a_url_of_sentinels_names_all_of_them_and_the_service() -> None:
    """The Sentinels' own port is the default; our options are hidden from redis-py."""
    url = read_url(
        "rediss+sentinel://me:s3cret@a,b:1,[::1]:2/my%20service/3"
        "?sentinel_username=who&ssl_cert_reqs=none&sentinel_password=a%26b&address_remap=x=y"
    )
    assert url.kind == "sentinel"
    assert url.hosts == (("a", 26379), ("b", 1), ("::1", 2))
    assert url.service == "my service"
    assert url.base == "rediss://me:s3cret@a/3?ssl_cert_reqs=none"
    assert url.options == {
        "sentinel_username": "who",
        "sentinel_password": "a&b",
        "address_remap": "x=y",
    }


def test_a_url_of_a_cluster_names_where_to_look_for_it() -> None:
    """Each host may be any node of it."""
    url = read_url("redis+cluster://:s3cret@a,b:7001/0?address_remap=*=c")
    assert url.kind == "cluster"
    assert url.hosts == (("a", 6379), ("b", 7001))
    assert (url.base, url.service) == ("redis://:s3cret@a/0", "")
    assert url.options == {"address_remap": "*=c"}


def test_a_url_of_one_server_is_passed_to_the_client_unchanged() -> None:
    """With any options."""
    for text in ("redis://a:1/2?x=1", "rediss://a", "unix://u@/run/re,dis.sock?db=2"):
        url = read_url(text)
        assert (url.kind, url.base, url.hosts) == ("single", text, ())


WHY = [
    ("redis://a:1,b:2/0", "several hosts are for redis[+]sentinel"),
    ("redis://a/main", "a service's name is for redis[+]sentinel"),
    ("redis+sentinel://a:1", "it ends with /SERVICE"),
    ("redis+sentinel://a:1/", "it ends with /SERVICE"),
    ("redis+sentinel://a/main/other", "/SERVICE/DATABASE"),
    ("redis+sentinel://a,,b/main", "its hosts are HOST or HOST:PORT"),
    ("redis+cluster://a:65536", "its hosts are HOST or HOST:PORT"),
    ("redis+cluster://a/1", "a cluster has no databases"),
    ("redis+cluster://a?db=2", "a cluster has no databases"),
    ("redis+unix://a", "it begins with redis://, rediss:// or unix://, redis[+]sentinel://"),
    ("redis://a?sentinel_username=x", "there is no option 'sentinel_username'"),
    ("redis+cluster://a?sentinel_username=x", "there is no option 'sentinel_username'"),
    ("redis://a?ssl_cert_reqs=none", "'ssl_cert_reqs' is for TLS, which begins with rediss"),
]


@pytest.mark.parametrize(("url", "why"), WHY, ids=[url for url, _ in WHY])
def test_the_error_for_an_invalid_url_has_the_reason(url: str, why: str) -> None:
    """It is quoted where it has no place for a password."""
    with pytest.raises(InvalidValueError, match=why) as caught:
        Publisher(url)
    assert url in str(caught.value)


def test_special_characters_may_be_percent_encoded() -> None:
    """Unencoded ones may not stand where they would end a part."""
    check_url("redis+sentinel://u:p%40%2F%2C@a:1,b/main")
    for url in ("redis+sentinel://u:p@a/ma#in", "redis+cluster://a?x", "redis+sentinel://a/m@in"):
        with pytest.raises(InvalidValueError, match="percent-encode"):
            check_url(url)


def test_hosts_and_ports_are_parsed() -> None:
    """A host, with or without a port; an IPv6 address is in brackets."""
    assert place_of("a.b-c:12", 1) == ("a.b-c", 12)
    assert place_of("[::1]", 1) == ("::1", 1)
    for text in ("", ":1", "a:", "::1", "a:b", "[a]", "a:70000"):
        assert place_of(text, 1) is None
