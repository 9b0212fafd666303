"""Close codes and reasons of a refusal when the WebSocket is open already."""

from cluster_pool.transports.base import refusal_close


def test_a_status_becomes_a_close_code_and_its_text_a_reason() -> None:
    """400 and 403 are final, 409 is the code of a lost id, other codes invite the client back."""
    codes = {status: refusal_close(status, "why")[0] for status in (400, 403, 409, 503)}
    assert codes == {400: 1008, 403: 1008, 409: 4409, 503: 1013}
    assert refusal_close(503, "why") == (1013, "why")


def test_a_text_is_cut_to_a_reason_at_a_whole_character() -> None:
    """A reason has 123 bytes at most."""
    _, reason = refusal_close(400, "é" * 100)
    assert reason == "é" * 61
