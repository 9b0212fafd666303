"""Names that our protocol needs of uvicorn's."""

import pytest

from cluster_pool.transports import uvicorn_fit


def test_the_installed_uvicorn_fits_and_a_lack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods are looked up in the class, attributes where they are stored first."""
    assert uvicorn_fit.missing() == []
    assert {"conn", "queue", "scope"} <= uvicorn_fit.stored()
    monkeypatch.setattr(uvicorn_fit, "METHODS", ("send", "handle_dream"))
    monkeypatch.setattr(uvicorn_fit, "ATTRIBUTES", ("conn", "hope"))
    assert uvicorn_fit.missing() == ["handle_dream", "hope"]
