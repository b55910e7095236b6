# SPDX-License-Identifier: Apache-2.0
"""A vision-language model behind an OpenAI-compatible server: vLLM, SGLang, llama-server and the like."""

import base64
import io
import json
import time
from collections.abc import Callable
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.pictures import to_uint8

from .boxes import BoxFrame, parse_answer
from .defects import DetectionResult
from .prompts import defect_prompt

TIMEOUT = 120.0
"""Seconds for one attempt; a 2B model on a CPU needs about a minute."""
PATIENCE = (1.0, 4.0)
"""Seconds before the second and the third attempt."""
LONGEST_REPLY = 4_000_000
MOST_TOKENS = 512
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Status codes after which the same request may succeed."""


class EndpointDetector:
    """Sends rendering and photo as PNG data URLs and reads the answer's boxes."""

    name = "endpoint"
    judged = True

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        max_boxes: int = 3,
        timeout: float = TIMEOUT,
        patience: tuple[float, ...] = PATIENCE,
    ) -> None:
        self._base = check_url(url)
        self._timeout, self._patience = timeout, patience
        self._opener = _opener(self._base)
        self._prompt = defect_prompt(max_boxes)
        self.model = model

    def views(self) -> None:
        """No wish."""

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """Ask about one view; whatever goes wrong on the way is the result's error."""
        try:
            self.model = self.model or self._patiently(self._first_model)
            reply = self._post("chat/completions", request_body(self.model, self._prompt, render, photo))
            text = answer_text(reply)
        except EndpointError as error:
            return DetectionResult(prompt=self._prompt, error=str(error))
        frame = BoxFrame.of(render.shape[2], render.shape[1])
        return parse_answer(text, frame).result(self._prompt, text)

    def check(self) -> None:
        """Is anybody there? A server that does not list its models will do when the model is named.

        Raises:
            UserError: nobody answers, or no model is named and none is listed.
        """
        try:
            self._get("models") if self.model else self._first_model()
        except EndpointError as error:
            if not self.model or not error.reached:
                raise UserError(f"--vlm_endpoint {self._base}: {error}; start the server, or check the URL") from error

    def _first_model(self) -> str:
        """The first model that the server offers."""
        try:
            return str(self._get("models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError("does not say which models it has, give --vlm_endpoint_model") from error

    def _get(self, path: str) -> Any:
        return self._once(Request(f"{self._base}/{path}", headers={"Accept": "application/json"}))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = Request(f"{self._base}/{path}", json.dumps(body).encode(), headers, method="POST")
        return self._patiently(lambda: self._once(request))

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """Try again while that may help."""
        for pause in self._patience:
            try:
                return attempt()
            except EndpointError as error:
                if not error.passing:
                    raise
                time.sleep(pause)
        return attempt()

    def _once(self, request: Request) -> Any:
        """One attempt."""
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                content = reply.read(LONGEST_REPLY + 1)
        except HTTPError as error:
            told = error.read(200).decode(errors="replace").strip()
            raise EndpointError(f"status {error.code} {told}", passing=error.code in BUSY) from error
        except TimeoutError as error:
            raise EndpointError(f"no answer within {self._timeout:g} s", passing=True, reached=False) from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise EndpointError(f"no connection ({reason})", passing=True, reached=False) from error
        if len(content) > LONGEST_REPLY:
            raise EndpointError(f"a reply of more than {LONGEST_REPLY} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise EndpointError("the reply is not JSON") from error


class EndpointError(Exception):
    """A call that failed; `passing` when it may succeed later, `reached` when a server did answer."""

    def __init__(self, text: str, *, passing: bool = False, reached: bool = True) -> None:
        super().__init__(text)
        self.passing, self.reached = passing, reached


def check_url(url: str) -> str:
    """The base URL without a slash at its end.

    Raises:
        UserError: it is no http or https URL of a server.
    """
    advice = "give something like http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise UserError(f"--vlm_endpoint {url!r}: not a URL ({error}); {advice}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise UserError(f"--vlm_endpoint {url!r}: not an http or https URL; {advice}")
    if parts.query or parts.fragment or parts.username:
        raise UserError(f"--vlm_endpoint {url!r}: wants scheme, host, port and path only; {advice}")
    return url.rstrip("/").removesuffix("/chat/completions")


def request_body(model: str, prompt: str, render: Tensor, photo: Tensor) -> dict[str, Any]:
    """The body of a chat completion: rendering, photo, question; temperature 0."""
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in (render, photo)]
    content = [*pictures, {"type": "text", "text": prompt}]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": MOST_TOKENS, "stream": False}


def data_url(image: Tensor) -> str:
    """An image [3, H, W] as a PNG data URL; JPEG's artefacts could be taken for defects."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def answer_text(reply: Any) -> str:
    """The text of the first choice.

    Raises:
        EndpointError: the reply has no such thing.
    """
    try:
        text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise EndpointError("the reply has no choices[0].message.content") from error
    if not isinstance(text, str):
        raise EndpointError("the reply's content is no text")
    return text


def _opener(url: str) -> OpenerDirector:
    """A proxy is not asked for servers on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return build_opener(ProxyHandler({})) if local else build_opener()
