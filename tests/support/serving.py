"""InferenceServices whose model server is a few lines of Python, and runtimes that run it."""

from __future__ import annotations

from typing import Any

from objects import Object

MODE = "serving.kserve.io/deploymentMode"
ADDRESS = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
PROBE = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1}
SERVER = """
import http.server, os, pathlib, sys
files = [pathlib.Path(one) for one in sys.argv[1:]]
text = "".join(one.read_text() for one in files) or os.environ.get("ANSWER", "")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
"""


def container(answer: str = "one", **fields: Any) -> Object:
    env = [ADDRESS, {"name": "ANSWER", "value": answer}]
    command = ["python", "-c", SERVER]
    return {"name": "kserve-container", "image": "x", "command": command, "env": env, "readinessProbe": PROBE, **fields}


def inference_service(name: str = "model", *, mode: str = "", annotations: Object | None = None, **spec: Any) -> Object:
    notes = {**({MODE: mode} if mode else {}), **(annotations or {})}
    metadata: Object = {"name": name, "namespace": "default", **({"annotations": notes} if notes else {})}
    return {"metadata": metadata, "spec": {"predictor": {"containers": [container()]}, **spec}}


def with_model(name: str = "model", *, mode: str = "", annotations: Object | None = None, **model: Any) -> Object:
    """Of a format, so that a runtime serves it."""
    predictor = {"model": {"modelFormat": {"name": "huggingface"}, **model}}
    return inference_service(name, mode=mode, annotations=annotations, predictor=predictor)


def runtime(name: str = "cheap", model_format: str = "cheap", **spec: Any) -> Object:
    """It answers with what its model's files hold, or with its variable ``ANSWER``."""
    formats = [{"name": model_format, "autoSelect": True}]
    return {"metadata": {"name": name}, "spec": {"supportedModelFormats": formats, "containers": [container()], **spec}}
