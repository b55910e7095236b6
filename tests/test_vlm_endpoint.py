# SPDX-License-Identifier: Apache-2.0
"""A model behind HTTP, over loopback with a server in a process of its own."""

import base64
import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.pictures import to_uint8
from vlm.endpoint import EndpointDetector, check_url, data_url

SERVER = """
    import json, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    behaviour = sys.argv[1]
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def reply(self, code, content):
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            self.reply(200, json.dumps({"data": [{"id": "served"}]}).encode())

        def do_POST(self):
            global asked
            asked += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = body["messages"][0]["content"]
            kinds = [part["type"] for part in parts]
            sound = kinds == ["image_url", "image_url", "text"] and body["temperature"] == 0
            sound = sound and all(p["image_url"]["url"].startswith("data:image/png;base64,") for p in parts[:2])
            text = '[{"bbox_2d": [0, 250, 500, 1000], "label": "%s"}]' % body["model"] if sound else "bad request"
            good = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            if behaviour == "slow":
                time.sleep(5)
            if behaviour == "busy" and asked < 3:
                return self.reply(503, b"busy")
            if behaviour == "dropped" and asked < 2:
                return self.connection.close()
            self.reply(*{
                "refuses": (401, b"who are you\\nline two"), "html": (200, b"<html>"), "empty": (200, b"{}"),
                "refusal": (200, json.dumps({"choices": [{"message": {"content": "I will not."}}]}).encode()),
                "null": (200, json.dumps({"choices": [{"message": {"content": None}}]}).encode()),
            }.get(behaviour, (200, good)))

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@pytest.fixture
def server(request):
    """URL of a server that behaves as the test asks."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.terminate()


def detect(url: str, **options):
    pictures = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    return EndpointDetector(url, **({"timeout": 5, "patience": (0.01, 0.01)} | options)).detect("a", *pictures)


@pytest.mark.parametrize("server", ["good", "busy", "dropped"], indirect=True)
def test_a_server_answers_at_last(server):
    result = detect(server)
    assert not result.failed
    (finding,) = result.findings
    assert finding.box.corners() == (0, 10, 30, 40) and finding.label == "served"
    assert "at most 3" in result.prompt and result.raw_answer.startswith("[")


@pytest.mark.parametrize("server", ["refuses", "html", "empty", "refusal", "null"], indirect=True)
def test_a_failed_call_is_a_failure_and_nothing_else(server):
    result = detect(server, model="mine")
    assert result.failed and not result.findings


@pytest.mark.parametrize("server", ["slow"], indirect=True)
def test_a_server_that_does_not_answer_in_time_is_given_up(server):
    result = detect(server, timeout=0.2, patience=())
    assert "within 0.2 s" in result.error


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="no connection"):
        EndpointDetector("http://127.0.0.1:9/v1").check()
    assert "no connection" in detect("http://127.0.0.1:9/v1").error, "a failed call, not the end of a training"
    assert "no connection" in detect("http://127.0.0.1:9/v1", model="mine").error


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "file:///etc/passwd", "http://", "http://x:port/v1", "http://a b/v1",
            "http://x/v1?q=1", "http://me:secret@x/v1", "http://[::1"],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(UserError, match="--vlm_endpoint"):
        check_url(url)


def test_a_url_may_end_as_people_paste_it():
    assert check_url("http://x:8000/v1/") == check_url("http://x:8000/v1/chat/completions") == "http://x:8000/v1"


def test_pictures_travel_without_loss():
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1))
    head, _, data = data_url(image).partition(",")
    assert head == "data:image/png;base64"
    back = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(back, to_uint8(image))
    json.dumps(data)
