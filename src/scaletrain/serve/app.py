"""The HTTP application: OpenAI's routes, health, metrics, feedback and the web page, over any engines.

https://platform.openai.com/docs/api-reference. Errors have OpenAI's shape on every path.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scaletrain import __version__
from scaletrain.config_serve import ServeSection
from scaletrain.listening import is_loopback
from scaletrain.log import get_logger
from scaletrain.serve.api_errors import ApiError, draining
from scaletrain.serve.api_request import Generation, parse_chat, parse_completion
from scaletrain.serve.feedback import FeedbackFile
from scaletrain.serve.generation import Deadlines, answer
from scaletrain.serve.host_check import for_this_machine
from scaletrain.serve.keys import Key, KeyRing
from scaletrain.serve.limits import Limits
from scaletrain.serve.models import Models, Offer
from scaletrain.serve.service_metrics import ServiceMetrics
from scaletrain.serve.wire import Client, ClientGoneError

WEB = Path(__file__).with_name("web")
# The page is of its own files alone: a script in a message has nowhere to run.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_METHODS = ("GET", "HEAD", "OPTIONS", "POST")

log = get_logger(__name__)

Handler = Callable[["Service", Client], Awaitable[None]]


@dataclass
class Service:
    """What a server knows while it runs. `running`: requests for answers that have not ended."""

    section: ServeSection
    models: Models
    keys: KeyRing | None = None
    feedback: FeedbackFile | None = None
    limits: Limits = field(default_factory=Limits)
    is_draining: bool = False
    running: int = 0

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.section.timeout_s)
        self.metrics = ServiceMetrics(lambda: [(offer.name, offer.engine.status()) for offer in self.models.all()])

    def authorise(self, client: Client, *, admin: bool = False) -> Key | None:
        """The key of a client, None where no keys are asked for; raises ApiError."""
        if self.keys is None:
            return None
        scheme, _, secret = client.header("authorization").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ApiError(401, "no API key was given; send it as Authorization: Bearer KEY", code="missing_api_key")
        key = self.keys.find(secret.strip())
        if key is None:
            raise ApiError(401, "the API key is wrong, or has been revoked", code="invalid_api_key")
        if admin and not key.admin:
            raise ApiError(403, "this needs a key that was added with --admin", code="not_allowed")
        return key


def make_app(service: Service) -> ASGIApp:
    """The application of a service."""

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, _Endpoint(service, handler, method))

    routes: list[Any] = [
        route("/v1/chat/completions", _chat, "POST"),
        route("/v1/completions", _completion, "POST"),
        route("/v1/models", _list_models),
        route("/v1/models/{model:path}", _show_model),
        route("/v1/feedback", _feedback, "POST"),
        route("/v1/scaletrain/settings", _settings),
        route("/admin/reload", _reload, "POST"),
        route("/health", _health),
        route("/ready", _ready),
        route("/metrics", _metrics),
        Mount("/", _Page(directory=WEB, html=True)),
    ]
    origins = list(service.section.allow_origins)
    cross_origin = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["retry-after"],
        max_age=600,
    )
    app = Starlette(
        routes=routes,
        middleware=[cross_origin] if origins else [],
        exception_handlers={HTTPException: _not_found},
    )
    needs_check = service.keys is None and is_loopback(service.section.host)
    return _counted(for_this_machine(app) if needs_check else app, service.metrics)


# --- Routes -------------------------------------------------------------------------------------------------------


async def _chat(service: Service, client: Client) -> None:
    await _generate(service, client, parse_chat)


async def _completion(service: Service, client: Client) -> None:
    await _generate(service, client, parse_completion)


async def _generate(service: Service, client: Client, parse: Callable[..., Generation]) -> None:
    key = service.authorise(client)
    if service.is_draining:
        raise draining()
    section = service.section
    service.running += 1
    try:
        request = parse(await client.read_json(limit_bytes=section.max_body_bytes), max_choices=section.max_choices)
        offer = service.models.find(request.model)
        async with offer.model.lease():
            await client.while_there(
                answer(
                    request,
                    offer,
                    client,
                    key=key,
                    limits=service.limits,
                    metrics=service.metrics,
                    deadlines=service.deadlines,
                )
            )
    finally:
        service.running -= 1


async def _list_models(service: Service, client: Client) -> None:
    service.authorise(client)
    await client.send_json({"object": "list", "data": [_model_card(offer) for offer in service.models.all()]})


async def _show_model(service: Service, client: Client) -> None:
    service.authorise(client)
    await client.send_json(_model_card(service.models.find(client.path_parameter("model"))))


def _model_card(offer: Offer) -> dict[str, Any]:
    origin = offer.model.origin
    return {
        "id": offer.name,
        "object": "model",
        "created": offer.model.created,
        "owned_by": "scaletrain",
        "parent": origin.name if offer.name != origin.name else None,
        "context_tokens": offer.engine.context_tokens,
        "version": origin.version,
    }


async def _feedback(service: Service, client: Client) -> None:
    service.authorise(client)
    if service.feedback is None:
        raise ApiError(404, "this server keeps no feedback; it is started with --feedback FILE", code="not_found")
    service.feedback.add(await client.read_json(limit_bytes=service.section.max_body_bytes))
    await client.send_json({"status": "stored"})


async def _settings(service: Service, client: Client) -> None:
    settings = {
        "default_model": service.models.find(None).name,
        "feedback": service.feedback is not None,
        "keys": service.keys is not None,
        "version": __version__,
    }
    await client.send_json(settings)


async def _reload(service: Service, client: Client) -> None:
    service.authorise(client, admin=True)
    await client.send_json({"replaced": await service.models.reload()})


async def _health(service: Service, client: Client) -> None:
    await client.send_json({"status": "alive"})


async def _ready(service: Service, client: Client) -> None:
    if service.is_draining:
        raise draining()
    if failed := service.models.failed():
        raise ApiError(503, f"{', '.join(failed)}: failed, and will be loaded again", code="engine_failed")
    await client.send_json({"status": "ready"})


async def _metrics(service: Service, client: Client) -> None:
    service.authorise(client, admin=True)
    text, content_type = service.metrics.text()
    await client.send(200, text, {"content-type": content_type})


# --- What all routes share ----------------------------------------------------------------------------------------


class _Endpoint:
    """A route's handler as an ASGI application; what it raises becomes an answer."""

    def __init__(self, service: Service, handler: Handler, method: str) -> None:
        self._service = service
        self._handler = handler
        self._methods = (method, "HEAD") if method == "GET" else (method,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(scope, receive, send)
        try:
            if scope["method"] not in self._methods:
                raise ApiError(405, f"{scope['path'][:200]} takes {self._methods[0]}, not {scope['method']}")
            await self._handler(self._service, client)
        except ClientGoneError:
            return
        except ApiError as error:
            if not client.has_begun:
                await client.send_error(error)
        except Exception:
            log.exception("a request of %s failed", scope["path"])
            if not client.has_begun:
                await client.send_error(ApiError(500, "the server failed; its log tells why", code="internal_error"))


class _Page(StaticFiles):
    """The web chat's files, which ask the browser to trust nothing else."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _not_found(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses, in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path[:200]}; the API begins at /v1, as /v1/chat/completions"
    told = ApiError(error.status_code, message, code="not_found" if error.status_code == 404 else None)
    return Response(
        orjson.dumps(told.body()),
        status_code=error.status_code,
        headers={**(error.headers or {}), **told.headers()},
        media_type="application/json",
    )


def _counted(app: ASGIApp, metrics: ServiceMetrics) -> ASGIApp:
    """Count requests by route and status."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status = 499  # what nginx calls a client that went away before an answer began

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, noting)
        finally:
            endpoint = scope.get("endpoint")
            path = scope["path"] if isinstance(endpoint, _Endpoint) else "page"
            if path.startswith("/v1/models/"):
                path = "/v1/models/{model}"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(path, method, str(status)).inc()

    return counting
