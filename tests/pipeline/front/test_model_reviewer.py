"""Reviews by a language model, asked over HTTP at a server that speaks the OpenAI protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast_pipeline.domain import make_domain
from holdfast_pipeline.model_reviewer import ModelReviewer, read
from holdfast_pipeline.reviewer import Case, RuleReviewer, verdict
from holdfast_pipeline.samples import Samples
from holdfast_pipeline.settings import Settings
from holdfast_sdk import PENDING, RESOLVED, UNRESOLVED, Context
from holdfast_sdk.reviews import Review

from .test_domain import Loop, loop

__all__ = ["loop"]

SPEC = {"sql": "select sum(netto) as net from orders_valid", "inputs": [{"node": "orders-valid", "type": "validator"}]}
CASE = Case("by-region", "permanent", "column 'netto' not found", {"spec": SPEC, "node_type": "transformer"})
FIXED = """UNRESOLVED: the column is called net now, so the query must name it so.
confidence: 0.85
```json
[{"op": "replace", "path": "/sql", "value": "select sum(net) as net from orders_valid"}]
```"""


class Endpoint:
    """Answers chat completions with :attr:`answer`: a text, or a status to fail with."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answer: Callable[[int], str | int] = lambda n: FIXED
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append({"path": self.path, **body})
                endpoint.keys.append(self.headers.get("Authorization", ""))
                answer = endpoint.answer(len(endpoint.asked))
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                message = {"role": "assistant", "content": answer}
                reply = {
                    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }  # fmt: skip
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reviewer(self, seconds: float = 60.0) -> ModelReviewer:
        return ModelReviewer(self.url, "small-model", "secret", RuleReviewer(), seconds)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.server.shutdown()
    running.server.server_close()


async def test_a_model_explains_and_proposes_a_fix(endpoint: Endpoint) -> None:
    reply = await endpoint.reviewer().review(CASE)

    assert verdict(reply.text) == UNRESOLVED
    assert reply.confidence == 0.85
    assert reply.fix == [{"op": "replace", "path": "/sql", "value": "select sum(net) as net from orders_valid"}]
    assert "```" not in reply.text
    [asked] = endpoint.asked
    assert (asked["path"], asked["model"], endpoint.keys) == ("/v1/chat/completions", "small-model", ["Bearer secret"])
    said = "\n".join(str(m["content"]) for m in asked["messages"])
    assert all(part in said for part in ("by-region", "column 'netto' not found", "select sum(netto)"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RESOLVED: a passing condition", RESOLVED), ("", PENDING), ("   ", PENDING), ("I cannot tell.", UNRESOLVED),
        ("This is RESOLVED, or rather UNRESOLVED", UNRESOLVED),
    ],
)  # fmt: skip
async def test_words_decide(endpoint: Endpoint, text: str, expected: object) -> None:
    endpoint.answer = lambda n: text

    assert verdict((await endpoint.reviewer().review(CASE)).text) == expected


async def test_a_failing_endpoint_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.answer = lambda n: 400 if n == 1 else "RESOLVED"

    assert (await endpoint.reviewer().review(CASE)).text == "RESOLVED"


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_rules_answer_where_the_model_cannot_be_asked_and_say_so(endpoint: Endpoint, status: int) -> None:
    endpoint.answer = lambda n: status

    reply = await endpoint.reviewer(seconds=10).review(CASE)

    assert verdict(reply.text) == UNRESOLVED
    assert "the model could not be asked" in reply.text


async def test_an_endpoint_that_hangs_or_is_gone_delays_no_longer_than_allowed(endpoint: Endpoint) -> None:
    leave = threading.Event()

    def hang(n: int) -> str:
        leave.wait(20)
        return ""

    endpoint.answer = hang
    hanging = await endpoint.reviewer(seconds=0.5).review(CASE)
    leave.set()
    gone = ModelReviewer("http://127.0.0.1:9/v1", "m", "", RuleReviewer(), 10)

    assert "could not be asked" in hanging.text
    assert "could not be asked" in (await gone.review(CASE)).text


def test_only_a_json_patch_is_a_fix() -> None:
    assert read('UNRESOLVED\n```json\n{"op": "replace"}\n```').fix == []
    assert read("UNRESOLVED\n```\nselect 1\n```").fix == []
    assert read('UNRESOLVED\n```json\n[{"op": "exec", "path": "/x"}]\n```').fix == []
    assert read("UNRESOLVED\nConfidence: 90%").confidence == 0.9
    assert read("UNRESOLVED\nconfidence: 7").confidence is None


async def test_a_question_is_bounded_whatever_failed(endpoint: Endpoint) -> None:
    big = {"spec": {"sql": "x" * 500_000}, "sample": [["y" * 100_000]], "more": "z" * 200_000}

    await endpoint.reviewer().review(Case("t", "r", "e" * 300_000, big))

    assert sum(len(str(m["content"])) for m in endpoint.asked[0]["messages"]) < 32_000


async def test_rows_are_shown_to_the_model_only_where_that_is_allowed(
    endpoint: Endpoint, loop: Loop, tmp_path: Path
) -> None:
    await loop.converge()
    chosen = Settings(pipeline_root=tmp_path)
    for rows, seen in ((0, False), (2, True)):
        domain = make_domain(chosen, endpoint.reviewer(), Samples(chosen.engine(), rows))
        assert domain.reviews is not None
        review = Review("by-region", reason="permanent", error="failed", context={"spec": SPEC})
        answered = await domain.reviews(review, Context("default", "main", "i", "ai-review-by-region", 1, 1, 0.0))
        said = json.dumps(endpoint.asked[-1]["messages"])
        assert ("Rows of its inputs" in said and "amount" in said) is seen
        assert "_sha" not in said
        assert answered.fix == {"patch": read(FIXED).fix}
