"""The web server of a judging: one page, and the few requests that it makes.

    GET  /                      the page, and its scripts and style
    GET  /api/setting           what the page needs to know: who is asked for, the reasons to choose from
    GET  /api/next              the pair to judge now
    GET  /api/pairs/NAME        a pair that was judged before, with the vote
    POST /api/votes             a vote; the answer has the next pair
    POST /api/live              a question of one's own; the answer is lines of JSON, as two models answer it
    GET  /health

Models' names never leave the server: a pair's name on the page is a keyed hash. Errors are {"error": "..."}.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson

from scaletrain.errors import ModelError, StorageError
from scaletrain.judge.judging import Judging, Refused
from scaletrain.judge.live import Duel, Side
from scaletrain.log import get_logger

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_LARGEST_BODY = 64 * 1024
_PAGES = {
    "/": ("judge.html", "text/html"),
    "/judge.js": ("judge.js", "text/javascript"),
    "/live.js": ("live.js", "text/javascript"),
    "/text.js": ("text.js", "text/javascript"),
    "/judge.css": ("judge.css", "text/css"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

log = get_logger(__name__)


def build_app(judging: Judging, *, allowed_hosts: tuple[str, ...]) -> "Starlette":
    """The server's application. Requests for any other host name are refused: no web page elsewhere can reach it."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    pages = [Route(path, _page(*page)) for path, page in _PAGES.items()]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)]
    return Starlette(routes=[*pages, *_api(judging)], middleware=middleware)


def _api(judging: Judging) -> list["Route"]:
    """What the page asks."""
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    def judge_of(request: "Request") -> str:
        return judging.judge_of(request.headers.get("authorization", ""), request.headers.get("x-judge", ""))

    async def setting(_request: "Request") -> Any:
        return {"question": judging.question, "reasons": judging.reasons, "needs_link": bool(judging.judges)}

    async def upcoming(request: "Request") -> Any:
        return await _in_thread(judging.next_for, judge_of(request))

    async def earlier(request: "Request") -> Any:
        return await _in_thread(judging.judged_before, judge_of(request), request.path_params["name"])

    async def vote(request: "Request") -> Any:
        judge, body = judge_of(request), await _json_body(request)

        def keep_and_deal() -> dict[str, object]:
            judging.take(judge, body)
            return judging.next_for(judge)

        return await _in_thread(keep_and_deal)

    async def live(request: "Request") -> Any:
        duel = judging.duel(judge_of(request), await _json_body(request))
        lines = _live_lines(judging, duel)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=_HEADERS)

    async def health(_request: "Request") -> Any:
        await _in_thread(judging.store.check)
        return {"status": "ok"}

    async def no_icon(_request: "Request") -> Response:
        return Response(status_code=204)

    return [
        Route("/api/setting", _answered(setting)),
        Route("/api/next", _answered(upcoming)),
        Route("/api/pairs/{name}", _answered(earlier)),
        Route("/api/votes", _answered(vote), methods=["POST"]),
        Route("/api/live", _answered(live), methods=["POST"]),
        Route("/health", _answered(health)),
        Route("/favicon.ico", no_icon),
    ]


def _page(name: str, media_type: str) -> Callable[["Request"], Awaitable["Response"]]:
    from starlette.responses import Response

    content = (files("scaletrain.judge") / "web" / name).read_bytes()

    async def answer(_request: "Request") -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer


def _answered(handler: Callable[["Request"], Awaitable[Any]]) -> Callable[["Request"], Awaitable["Response"]]:
    """What a handler returns as JSON, or its error."""
    from starlette.responses import Response

    async def answer(request: "Request") -> Response:
        status = 200
        try:
            content = await handler(request)
            if isinstance(content, Response):
                return content
        except Refused as error:
            status, content = error.status, {"error": str(error)}
        except StorageError as error:
            log.error("%s", error)
            message = "the votes cannot be saved or read just now; nothing that you chose is lost"
            status, content = 503, {"error": message}
        return Response(orjson.dumps(content), status, headers=_HEADERS, media_type="application/json")

    return answer


async def _live_lines(judging: Judging, duel: Duel) -> AsyncIterator[bytes]:
    """{"side", "text"} for each piece of an answer; at the end {"name"} to vote on, null where both are the same."""
    answers: dict[Side, str] = {"left": "", "right": ""}
    judging.asking.add(duel.judge)
    try:
        async with aclosing(duel.pieces()) as pieces:
            async for side, text in pieces:
                answers[side] += text
                yield orjson.dumps({"side": side, "text": text}) + b"\n"
        asked = duel.asked(answers)
        name = None if asked is None else await _in_thread(judging.keep_asked, asked)
        yield orjson.dumps({"name": name}) + b"\n"
    except (ModelError, StorageError) as error:
        log.error("a question could not be answered: %s", error)
        yield orjson.dumps({"error": "the models cannot be reached just now; ask again in a moment"}) + b"\n"
    finally:
        judging.asking.discard(duel.judge)


async def _json_body(request: "Request") -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send the vote as application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise Refused(413, f"a vote has at most {_LARGEST_BODY // 1024} KiB")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Refused(400, f"this is not JSON: {exc}") from exc


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """The database is asked in a thread, so that others are served meanwhile."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(function, *arguments)
