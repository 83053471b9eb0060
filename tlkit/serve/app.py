"""App: what can be asked of a served head, and the answers.

In: a `Classifier`, options. Out: an ASGI application, described in OpenAPI at /openapi.json.
Not here: who may ask, and how much (guard.py), the network (desk.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, File, Query, Request, Security, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from tlkit.card import versions
from tlkit.classifier import Classifier
from tlkit.data.folder import ENDINGS
from tlkit.data.images import BadImage, most_pixels
from tlkit.errors import TlkitError, listing, printable
from tlkit.options import PredictOptions, ServeOptions
from tlkit.predict.run import Prediction
from tlkit.predict.session import sessions
from tlkit.predict.tta import POLICIES
from tlkit.report.explain import Explainer, explainer
from tlkit.serve import problems
from tlkit.serve.desk import Desk
from tlkit.serve.guard import guarded
from tlkit.serve.metrics import ANSWERED, UNREADABLE, UNSURE, Metrics, metrics

STATIC = Path(__file__).parent / "static"

TOP = 3
"""Classes of an answer, as `tlkit predict` shows."""

REFUSALS = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503, 504)
"""Of what takes images."""


class Likely(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class")
    probability: float


class Answer(BaseModel):
    """What the head makes of one image; of one that cannot be read, why."""

    path: str = Field(description="Its name, as it was sent.")
    answer: str | None = Field(description='The likeliest class, or "unsure".')
    unsure: bool
    familiarity: float | None = Field(
        description="The share of the validation images that were less like what was learnt from."
    )
    top: list[Likely] = Field(description="The likeliest classes, likeliest first.")
    error: str | None = Field(description="Why it cannot be read.")

    @staticmethod
    def of(path: str, one: Prediction | BadImage, top: int) -> Answer:
        """What was found out of an image, or that it could not be read."""
        if isinstance(one, BadImage):
            return Answer(
                path=path, answer=None, unsure=False, familiarity=None, top=[], error=one.reason
            )
        return Answer(
            path=path,
            answer=one.label,
            unsure=one.unsure,
            familiarity=one.familiarity,
            top=[
                Likely.model_validate({"class": name, "probability": p}) for name, p in one.top(top)
            ],
            error=None,
        )


class Answers(BaseModel):
    """One answer for each image, in their order."""

    tta: str
    answers: list[Answer]


class Policy(BaseModel):
    """A test-time policy."""

    name: str
    about: str
    views: int


class About(BaseModel):
    """What is served."""

    head: str
    classes: list[str]
    policies: list[Policy] = Field(description="The first is taken where none is named.")
    rejects: bool = Field(description='Whether an answer may be "unsure".')
    tells_familiarity: bool = Field(description="Whether that decides about answers.")
    explains: bool
    explains_not: str = Field(description="Why not, where it does not.")
    endings: list[str] = Field(description="Of the files that are taken from a folder.")
    most_images: int
    most_mb: float
    most_pixels: int


class Health(BaseModel):
    """That it is so."""

    ok: bool


@dataclass(frozen=True, kw_only=True)
class Service:
    """A head that is served."""

    classifier: Classifier
    options: PredictOptions
    serving: ServeOptions
    token: str
    desk: Desk
    explainer: Explainer | TlkitError
    """Or why there is none."""
    metrics: Metrics

    async def predict(self, images: list[UploadFile], tta: str, top: int) -> Answers:
        """Raises `TlkitError`, and `HTTPException` for too many images."""
        if len(images) > self.serving.most_images:
            raise problems.refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too many images in one request",
                found=f"{len(images)}", expected=f"at most {self.serving.most_images}",
                do="send them in several; --most-images sets the limit",
            )  # fmt: skip
        self.must_be_open()
        names = [printable(one.filename or "") for one in images]
        asked = [
            asyncio.wrap_future(self.desk.predict(tta, Path(name), await one.read()))
            for name, one in zip(names, images, strict=True)
        ]
        found = await asyncio.gather(*asked)
        for one in found:
            self.metrics.images.labels(_kind(one)).inc()
        return Answers(
            tta=tta,
            answers=[Answer.of(name, one, top) for name, one in zip(names, found, strict=True)],
        )

    async def explain(self, image: UploadFile, target: str) -> bytes:
        """Raises `TlkitError`, and `HTTPException` for what cannot be read."""
        self.must_be_open()
        if isinstance(self.explainer, TlkitError):
            raise self.explainer
        name = printable(image.filename or "")
        asked = self.desk.explain(self.explainer, Path(name), await image.read(), target)
        found = await asyncio.wrap_future(asked)
        if isinstance(found, BadImage):
            raise problems.refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} cannot be read",
                found=found.reason, expected="an image", do="send another",
            )  # fmt: skip
        return found

    def about(self) -> About:
        """What is served."""
        heads = self.classifier.heads
        return About(
            head=", ".join(printable(one.path.parent.name or one.path.name) for one in heads),
            classes=list(self.classifier.classes),
            policies=[
                Policy(name=name, about=POLICIES[name].about, views=one.views)
                for name, one in self.desk.sessions.items()
            ],
            rejects=next(iter(self.desk.sessions.values())).rule.rejects,
            tells_familiarity=self.options.reject_unlike > 0,
            explains=not isinstance(self.explainer, TlkitError),
            explains_not=self.explainer.about if isinstance(self.explainer, TlkitError) else "",
            endings=sorted(ENDINGS),
            most_images=self.serving.most_images,
            most_mb=self.serving.most_mb,
            most_pixels=most_pixels(),
        )

    def must_be_open(self) -> None:
        """Raise `HTTPException` where nothing is answered any more."""
        if not self.desk.open:
            raise problems.refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping",
                found="a closed desk", expected="an open one", do="ask again when it is back",
            )  # fmt: skip


def _kind(one: Prediction | BadImage) -> str:
    if isinstance(one, BadImage):
        return UNREADABLE
    return UNSURE if one.unsure else ANSWERED


def service(
    classifier: Classifier, options: PredictOptions, serving: ServeOptions, token: str = ""
) -> Service:
    """Start to serve; the caller closes the desk. Raises `TlkitError`."""
    counted = metrics()
    explained: Explainer | TlkitError
    found = sessions(classifier.heads, options)
    try:
        explained = explainer(classifier.head, device=options.device)
    except TlkitError as error:
        explained = error
    desk = Desk(
        found,
        options,
        gather_s=serving.gather_ms / 1000,
        told=counted.batches.observe,
    )
    return Service(
        classifier=classifier,
        options=options,
        serving=serving,
        token=token,
        desk=desk,
        explainer=explained,
        metrics=counted,
    )


def app_of(served: Service) -> ASGIApp:
    """The application."""
    api = FastAPI(
        title="tlkit",
        version=versions()["tlkit"],
        description="Name what is on images.",
        docs_url=None,  # their pages come from a network
        redoc_url=None,
        exception_handlers={
            HTTPException: _handler(problems.response),
            TlkitError: _handler(problems.of_error),
            RequestValidationError: _handler(_not_as_described),
            Exception: _handler(problems.of_fault),
        },
    )
    api.include_router(_questions(served))
    api.include_router(_states(served))

    @api.head("/", include_in_schema=False)
    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    api.mount("/static", StaticFiles(directory=STATIC))
    paths = {"/", "/openapi.json", *api.openapi()["paths"]}
    return guarded(api, served.serving, served.token, served.metrics, paths=paths)


def _security(served: Service) -> list[Any]:
    """For the description: the guard has looked at the token before."""
    return [Security(HTTPBearer(auto_error=False))] if served.token else []


def _questions(served: Service) -> APIRouter:
    router = APIRouter(
        prefix="/api", dependencies=_security(served), responses=problems.described(*REFUSALS)
    )
    first = next(iter(served.desk.sessions))
    files = File(
        description=f"Images, as files; at most {served.serving.most_images}.", min_length=1
    )
    file = File(description="An image, as a file.")
    kinds = {"image": {"contentType": "image/png, image/jpeg, image/*"}}
    tta = Query(
        first,
        description="The test-time policy: the views that are averaged over.",
        json_schema_extra={"enum": list(served.desk.sessions)},
    )
    top = Query(TOP, ge=1, description="How many classes of each image are told.")
    target = Query(
        "",
        alias="class",
        description="The class; of the image the likeliest, where none is named.",
        json_schema_extra={"enum": ["", *served.classifier.classes]},
    )

    @router.post("/predict")
    async def predict(images: list[UploadFile] = files, tta: str = tta, top: int = top) -> Answers:
        """Name what is on images. Each gets its answer, or the reason why it cannot be read."""
        return await served.predict(images, tta, top)

    @router.post(
        "/explain",
        openapi_extra={"requestBody": {"content": {"multipart/form-data": {"encoding": kinds}}}},
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The image with the map."}},
    )
    async def explain(image: UploadFile = file, target: str = target) -> Response:
        """Show where on an image a class was seen: a class activation map over it, as a PNG."""
        return Response(await served.explain(image, target), media_type="image/png")

    return router


def _states(served: Service) -> APIRouter:
    router = APIRouter()
    guarded_too: Any = {
        "dependencies": _security(served),
        "responses": problems.described(400, 401, 403),
    }

    @router.get("/api/head", **guarded_too)
    async def head() -> About:
        """What is served: classes, policies, limits."""
        return served.about()

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live", responses=problems.described(400, 403))
    async def live() -> Health:
        """Whether the server runs."""
        return Health(ok=True)

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready", responses=problems.described(400, 403, 503))
    async def ready() -> Health:
        """Whether questions are answered."""
        served.must_be_open()
        return Health(ok=True)

    @router.get("/metrics", response_class=Response, **guarded_too)
    async def counts() -> Response:
        """What was counted, in the text format of Prometheus."""
        return Response(served.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _handler(made: Any) -> Any:
    async def handle(request: Request, error: Any) -> JSONResponse:
        response: JSONResponse = made(error)
        return response

    return handle


def _not_as_described(error: RequestValidationError) -> JSONResponse:
    faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    wrong = problems.refused(
        HTTPStatus.UNPROCESSABLE_ENTITY, "the request is not as it is described",
        found=listing(faults), expected="what /openapi.json describes", do="correct it",
    )  # fmt: skip
    return problems.response(wrong)
