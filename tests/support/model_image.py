"""A stand-in for the model server's image: it takes the server's flags and answers in milliseconds."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from trainer_image import make_image

# What it serves tells what becomes of it: `broken` crashes, `hungry` takes 400 MiB, `slow` needs two seconds,
# `endless` never comes up, `mute` answers nothing, `chatless` has no template for chats.
SERVER = """
import argparse
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--model_dir", "--model", dest="model")
parser.add_argument("--model_name", "--served-model-name", dest="names", nargs="+")
parser.add_argument("--lora-modules", nargs="+", type=json.loads, default=[])
parser.add_argument("--host")
parser.add_argument("--port", type=int)
flags, _ = parser.parse_known_args(sys.argv[3:])
served = dict.fromkeys(flags.names, flags.model) | {module["name"]: module["path"] for module in flags.lora_modules}
about = " ".join(map(str, [*served, *served.values()]))
if "broken" in about:
    print(f"ValueError: no adapter at {about}", flush=True)
    sys.exit(1)
if "hungry" in about:
    eaten = [b"x" * 2**20 for _ in range(400)]
    time.sleep(60)
if "slow" in about:
    time.sleep(2)
if "endless" in about:
    time.sleep(600)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] not in served:
            self.answer(404, {"error": {"message": "no such model"}})
        elif "messages" in body and "chatless" in about:
            self.answer(400, {"error": {"message": "the tokenizer has no chat template"}})
        else:
            text = "" if "mute" in about else f"served from {served[body['model']]}"
            message = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
            self.answer(200, {"choices": [message]})

    def answer(self, code, body):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


print("serving", served, flush=True)
ThreadingHTTPServer((flags.host, flags.port), Handler).serve_forever()
"""


def make_model_image(prefix: Path) -> Path:
    """Put its programs below an empty folder."""
    (prefix / "bin").mkdir()
    (prefix / "server.py").write_text(SERVER)
    script = prefix / "bin" / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {prefix}/server.py "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return prefix


def make_training_and_serving_image(prefix: Path) -> Path:
    """Put both stand-ins below an empty folder: as in the real image, the module's name says which one is meant."""
    for folder in ("trainer", "server"):
        (prefix / folder).mkdir()
    image, server = make_image(prefix / "trainer"), make_model_image(prefix / "server")
    program = image / "bin" / "python"
    trainer = program.rename(program.with_name("python-trainer"))
    choice = f'case "$*" in *llmtune_trainer.serve*) exec {server}/bin/python "$@";; esac'
    program.write_text(f'#!/bin/sh\n{choice}\nexec {trainer} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return image
