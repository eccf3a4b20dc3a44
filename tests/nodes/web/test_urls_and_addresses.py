from __future__ import annotations

import socket

import pytest

from graphflow import Problem
from graphflow.nodes.web.address import is_public, refusal, resolve
from graphflow.nodes.web.url import Url, parse_url


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "255.255.255.255"),
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
        *("192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00::1", "fdff::1"),
        *("ff02::1", "ff0e::1", "2001:db8::1", "2001::1", "2002:7f00:1::", "100::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    ],
)
def test_addresses_inside_of_a_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1", "::1", "localhost"])
def test_every_spelling_of_this_machine_is_refused_once_resolved(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES", raising=False)
    try:
        addresses = resolve(host, 443, 10)
    except socket.gaierror:
        pytest.skip("this resolver does not know that spelling")
    assert addresses
    for _, text, _ in addresses:
        problem = refusal(host, text)
        assert problem is not None and problem.code == "url.address"


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("0", False), ("", False), ("true", False)])
def test_private_addresses_are_allowed_by_1_alone(value: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES", value)
    assert (refusal("router", "192.168.1.1") is None) is allowed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Example.ORG", Url("example.org", 443, "/")),
        ("HTTPS://example.org:443/a.png?b=c#d", Url("example.org", 443, "/a.png?b=c")),
        ("https://example.org:8443/%20%C3%A4", Url("example.org", 8443, "/%20%C3%A4")),
        ("https://bücher.example/käse?größe=1", Url("xn--bcher-kva.example", 443, "/k%C3%A4se?gr%C3%B6%C3%9Fe=1")),
        ("https://[2606:4700::1111]:444/a", Url("2606:4700::1111", 444, "/a")),
    ],
)
def test_urls_are_read(text: str, expected: Url) -> None:
    assert parse_url(text) == expected
    assert parse_url(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("http://example.org/a", "url.scheme"), ("ftp://example.org/a", "url.scheme")),
        ("//example.org", "url.scheme"),
        *(("https:///a.png", "url.form"), ("https:a.png", "url.form"), ("https://", "url.form")),
        *(("https://user@example.org/", "url.form"), ("https://user:secret@example.org/", "url.form")),
        *(("https://example.org:99999/", "url.form"), ("https://example.org:x/", "url.form")),
        *(("https://example.org:0/", "url.form"), ("https://[::1/", "url.form"), ("https://[::1%25eth0]/", "url.form")),
        *(("https://a b.org/", "url.form"), ("https://example.org/a\nb", "url.form"), ("https://a\\b/", "url.form")),
        *(("https://a..b/", "url.form"), ("https://-a.org/", "url.form"), ("https://exa$mple.org/", "url.form")),
        (f"https://{'a' * 70}.org/", "url.form"),
        (f"https://example.org/{'a' * 5000}", "url.form"),
    ],
)
def test_what_is_no_https_url_is_refused(text: str, code: str) -> None:
    found = parse_url(text)
    assert isinstance(found, Problem)
    assert found.code == code
    assert "secret" not in found.message


def test_a_redirect_may_be_relative_and_is_held_to_the_same_rules() -> None:
    base = Url("example.org", 8443, "/a/b?c")
    assert parse_url("../d.png", base) == Url("example.org", 8443, "/d.png")
    assert parse_url("//other.org/d", base) == Url("other.org", 443, "/d")
    found = parse_url("http://example.org/d", base)
    assert isinstance(found, Problem) and found.code == "url.scheme"


def test_messages_do_not_show_the_query_of_a_url() -> None:
    url = parse_url("https://example.org/a.png?signature=secret")
    assert isinstance(url, Url)
    assert url.shown == "https://example.org/a.png"
