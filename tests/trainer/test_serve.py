"""The model server as the process that a pod runs, asked over HTTP in the shapes that OpenAI documents."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny_adapter
from model_server import CHAT, CHAT_AS_TEXT, KEY, PROMPT, Server, started


@dataclass(frozen=True)
class Adapters:
    """Two adapters of the tiny model, and what peft alone answers to PROMPT."""

    tuned: Path
    other: Path
    answers: dict[str, str]


@pytest.fixture(scope="session")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    folder = tmp_path_factory.mktemp("adapters")
    answers = {}
    for seed, name in enumerate(("tuned", "other")):
        made = tiny_adapter.build_adapter(model, folder / name, seed)
        answers |= {"base": made["base"], name: made["adapted"]}
    assert len(set(answers.values())) == 3
    return Adapters(folder / "tuned", folder / "other", answers)


@pytest.fixture(scope="session")
def server(model: Path, adapters: Adapters) -> Iterator[Server]:
    """Given its flags as KServe's huggingfaceserver and vLLM take them."""
    object_ = json.dumps({"name": "tuned", "path": str(adapters.tuned)})
    lora = ("--enable-lora", f"--lora-modules={object_}", "--lora_modules", f"other={adapters.other}")
    flags = ("--model_dir", str(model), "--model_name=base", "--dtype", "float32", "--gpu-memory-utilization=0.9")
    with started(*flags, *lora, VLLM_API_KEY=KEY) as server:
        yield server


@pytest.fixture(scope="session")
def without_template(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has no chat template, and whose author wants answers drawn from the one best token."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    folder.mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    (folder / "generation_config.json").write_text(json.dumps({**generation, "top_k": 1}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("route", ["/v1", "/openai/v1"])
def test_the_models_are_the_base_and_its_adapters(server: Server, model: Path, adapters: Adapters, route: str) -> None:
    listed = server.client.get(f"{route}/models").json()
    assert listed["object"] == "list"
    assert [(card["id"], card["root"], card["parent"]) for card in listed["data"]] == [
        ("base", str(model), None),
        ("tuned", str(adapters.tuned), "base"),
        ("other", str(adapters.other), "base"),
    ]
    assert {card["max_model_len"] for card in listed["data"]} == {256}
    assert server.client.get(f"{route}/models/tuned").json() == listed["data"][1]


def test_each_name_answers_as_peft_alone_computes_it(server: Server, adapters: Adapters) -> None:
    """The base model too, before and after its adapters were used."""
    for name in ("base", "tuned", "base", "other", "tuned", "base"):
        assert server.text(name) == adapters.answers[name]


def test_requests_for_different_adapters_at_once_do_not_mix(server: Server, adapters: Adapters) -> None:
    names = ["base", "tuned", "other"] * 8
    with ThreadPoolExecutor(max_workers=12) as pool:
        assert list(pool.map(server.text, names)) == [adapters.answers[name] for name in names]


def test_a_short_request_does_not_wait_for_a_long_one(server: Server, adapters: Adapters) -> None:
    body = {"model": "base", "prompt": PROMPT, "max_tokens": 240, "temperature": 0, "stream": True}
    alone = server.text("base", max_tokens=240)
    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        server.client.stream("POST", "/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        first = next(lines)
        rest = pool.submit(list, lines)
        assert adapters.answers["tuned"].startswith(server.text("tuned", max_tokens=2))
        assert not rest.done()
        *events, end = [line.removeprefix("data: ") for line in [first, *rest.result()] if line]
    assert end == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == alone


def test_a_chat_is_the_template_completed(server: Server) -> None:
    chat = server.chat("tuned")
    plain = server.complete("tuned", prompt=CHAT_AS_TEXT)
    assert chat["object"] == "chat.completion"
    assert chat["id"].startswith("chatcmpl-")
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": plain["choices"][0]["text"]}
    assert chat["usage"] == plain["usage"]
    parts = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    assert server.chat("tuned", messages=parts)["choices"] == chat["choices"]


def test_usage_counts_tokens_and_length_ends_an_answer(server: Server) -> None:
    whole = server.complete("base")
    assert whole["choices"][0]["finish_reason"] == "length"
    used = whole["usage"]
    assert (used["completion_tokens"], used["total_tokens"]) == (12, used["prompt_tokens"] + 12)
    # vLLM's default for a completion; a chat's is the rest of the context.
    assert server.complete("base", max_tokens=None)["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("name", ["base", "tuned"])
def test_streamed_text_is_the_whole_text(server: Server, name: str) -> None:
    whole = server.complete(name, max_tokens=60)
    options = {"stream_options": {"include_usage": True}}
    body = {"model": name, "prompt": PROMPT, "max_tokens": 60, "temperature": 0, **options}
    *events, last = server.stream("/v1/completions", body)
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None] * (len(events) - 1) + [whole["choices"][0]["finish_reason"]]
    assert len(events) > 10
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_a_streamed_chat_begins_with_the_role(server: Server) -> None:
    events = server.stream("/openai/v1/chat/completions", {"model": "tuned", "messages": CHAT, "temperature": 0})
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    deltas = [event["choices"][0]["delta"] for event in events]
    assert (deltas[0], deltas[-1]) == ({"role": "assistant", "content": ""}, {})
    streamed = "".join(delta.get("content", "") for delta in deltas)
    assert streamed == server.chat("tuned", max_tokens=None)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stop", ["eggs", ["never", "ggs0", "eggs�"]], ids=["one", "several, over tokens"])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(server: Server, adapters: Adapters, stop: Any) -> None:
    expected = adapters.answers["base"].split("eggs")[0]
    choice = server.complete("base", stop=stop)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (expected, "stop")
    body = {"model": "base", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stop": stop}
    choices = [event["choices"][0] for event in server.stream("/v1/completions", body)]
    assert "".join(part["text"] for part in choices) == expected
    assert choices[-1]["finish_reason"] == "stop"


def test_a_seed_repeats_a_drawn_answer_and_binds_no_other_request(server: Server) -> None:
    drawn = {"temperature": 1.5, "max_tokens": 24}
    first, second = (server.text("tuned", seed=7, **drawn) for _ in range(2))
    assert first == second
    others = ({"temperature": 0}, {"seed": 8, **drawn}, drawn, {"seed": 7, **drawn}) * 4
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(lambda fields: server.text("tuned", **fields), others))[3::4] == [first] * 4
    free = {server.text("tuned", **drawn) for _ in range(3)}
    assert len({first, server.text("tuned", seed=8, **drawn), *free}) == 5


def test_several_prompts_as_text_or_as_tokens_are_several_choices(server: Server, model: Path) -> None:
    vocabulary = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    token = vocabulary["cat"] if "cat" in vocabulary else vocabulary["c"]
    texts = server.complete("base", prompt=[PROMPT, CHAT_AS_TEXT])
    assert [choice["index"] for choice in texts["choices"]] == [0, 1]
    assert texts["choices"][0]["text"] == server.text("base")
    as_tokens = server.complete("base", prompt=[[token], [token]])["choices"]
    assert as_tokens[0]["text"] == as_tokens[1]["text"] == server.text("base", prompt=[token])


@pytest.mark.parametrize(
    ("route", "change", "status", "words"),
    [
        ("completions", {"model": "org/other"}, 404, "The model `org/other` does not exist."),
        ("chat/completions", {"model": ""}, 404, "The model `` does not exist."),
        ("completions", {"n": 2}, 400, "`n`=2 is not supported by this server. Fix: send one request per answer."),
        ("completions", {"logprobs": 0}, 400, "`logprobs`=0 is not supported"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 2}, 400, "`top_logprobs`=2 is not supported"),
        ("chat/completions", {"tools": [{"type": "function"}]}, 400, "`tools`="),
        ("completions", {"temperature": 3}, 400, "`temperature`=3: Input should be less than or equal to 2"),
        ("completions", {"max_tokens": 0}, 400, "`max_tokens`=0"),
        ("completions", {"stop": ""}, 400, '`stop`=""'),
        ("completions", {"prompt": ""}, 400, "`prompt` is empty"),
        ("completions", {"prompt": 5}, 400, "`prompt`=5: Input should be a valid string or "),
        ("completions", {"prompt": [9999]}, 400, "token 9999"),
        ("completions", {"prompt": "cat " * 300}, 400, "maximum context length is 256 tokens"),
        ("completions", {"max_tokens": 255}, 400, "up to 255 of the answer are more. Fix: shorten `prompt` or lower"),
        ("chat/completions", {"messages": []}, 400, "`messages`=[]"),
        ("chat/completions", {"messages": [{"role": "user"}]}, 400, "`messages.0.content`: Field required"),
        ("chat/completions", {"messages": [{"role": "boss", "content": ""}]}, 400, '`messages.0.role`="boss"'),
        ("chat/completions", {"messages": CHAT, "stream_options": {}}, 400, "`stream_options`"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_shape(
    server: Server, route: str, change: dict[str, Any], status: int, words: str
) -> None:
    asked = {"messages": CHAT} if route.startswith("chat") else {"prompt": PROMPT}
    for stream in (False, True):
        body = {"model": "base", "max_tokens": 4, "stream": stream, **asked, **change}
        response = server.client.post(f"/v1/{route}", json=body)
        if stream and "stream_options" in change:
            assert response.status_code == 200
            continue
        assert response.status_code == status
        error = response.json()["error"]
        assert words in error["message"]
        assert error["code"] == status
        assert error["type"] == {400: "BadRequestError", 404: "NotFoundError"}[status]
        assert error["param"].split(".")[0] in {*asked, *change}


@pytest.mark.parametrize(
    ("method", "route", "content", "status"),
    [("POST", "/v1/completions", "{", 400), ("POST", "/v1/completions", "[]", 400), ("GET", "/v1/x", None, 404)],
)
def test_a_broken_body_and_an_unknown_route_are_answered_in_openais_shape(
    server: Server, method: str, route: str, content: str | None, status: int
) -> None:
    response = server.client.request(method, route, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("route", ["completions", "chat/completions"])
def test_half_a_character_is_refused_wherever_it_stands(server: Server, route: str) -> None:
    bodies = [{"model": "base\ud83d", "prompt": PROMPT}, {"model": "base", "prompt": [PROMPT, "\ud83d"]}]
    if route.startswith("chat"):
        part = [{"type": "text", "text": "\ud83d"}]
        bodies = [{"model": "base", "messages": [{"role": "user", "content": said}]} for said in ("\ud83d", part)]
    for body in bodies:
        headers = {"content-type": "application/json"}
        response = server.client.post(f"/v1/{route}", content=json.dumps(body), headers=headers)
        assert (response.status_code, response.json()["error"]["type"]) == (400, "BadRequestError")


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded"])  # the latter is what curl -d sends
def test_a_body_that_does_not_say_that_it_is_json_is_told_the_header(server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = server.client.post("/v1/completions", content=b'{"model": "base"}', headers=headers)
    assert response.status_code == 400
    assert "Fix: send the header `Content-Type: application/json`" in response.json()["error"]["message"]
    wrong = server.client.delete("/v1/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


def test_a_generation_that_fails_is_answered_and_leaves_the_connection_open(server: Server) -> None:
    """Proxies send one client's request on the connection of another."""
    address = server.client.base_url
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=60)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    # No probability is left of the tokens of the prompt.
    failing = {"model": "base", "prompt": PROMPT, "repetition_penalty": 1e-300}
    connection.request("POST", "/v1/completions", json.dumps(failing), headers)
    response = connection.getresponse()
    message = json.loads(response.read())["error"]["message"]
    assert (response.status, message.startswith("The generation failed: RuntimeError: ")) == (500, True)
    socket_before = connection.sock
    connection.request("GET", "/v1/models", headers=headers)
    assert connection.getresponse().status == 200
    assert connection.sock is socket_before
    connection.close()
    (*_, last) = server.stream("/v1/completions", failing)
    assert last["error"]["message"] == message


def test_the_key_is_required_except_for_the_probe(server: Server) -> None:
    assert server.client.get("/health", headers={"authorization": ""}).status_code == 200
    for given in ("", "Bearer wrong", KEY):
        response = server.client.get("/v1/models", headers={"authorization": given})
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "AuthenticationError"


def test_what_clients_send_by_default_is_taken(server: Server, adapters: Adapters) -> None:
    usual = {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "presence_penalty": 0, "frequency_penalty": 0.0}
    assert server.text("base", user="me", logit_bias={}, **usual) == adapters.answers["base"]
    reply = {"role": "assistant", "content": "Milk.", "tool_calls": None, "refusal": None}
    assert server.chat("base", messages=[*CHAT, reply, *CHAT], response_format={"type": "text"})["choices"]


def test_a_client_that_leaves_stops_the_generation(without_template: Path) -> None:
    """With vLLM's flags, no adapter and no chat template; the length that a client may ask for is the server's."""
    flags = ("--model", str(without_template), "--served-model-name", "plain", "alias", "--max-model-len=200")
    with started(*flags) as server:
        body = {"model": "plain", "prompt": PROMPT, "max_tokens": 180, "temperature": 0}
        with server.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
            next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/completions", json=body, timeout=0.05)
        # The author's top_k=1 is a default: what is drawn is the best token.
        assert server.text("alias", temperature=1) == server.text("plain")
        cards = server.client.get("/v1/models").json()["data"]
        assert [(card["id"], card["parent"]) for card in cards] == [("plain", None), ("alias", None)]
        refused = server.client.post("/v1/chat/completions", json={"model": "plain", "messages": CHAT})
        assert (refused.status_code, "no chat template" in refused.text) == (400, True)
        server.process.terminate()
        assert server.process.wait(timeout=20) == 0
        assert server.process.stdout is not None
        lines = server.process.stdout.read().splitlines()
    left = [line for line in lines if line.endswith("client gone")]
    assert left, lines
    assert not any("+180 tokens" in line for line in lines)


def test_a_signal_lets_the_request_in_flight_finish(model: Path) -> None:
    """Also when nobody takes its log any more."""
    with started("--model_dir", str(model)) as server:
        assert server.process.stdout is not None
        server.process.stdout.close()
        assert server.text("model")
        body = {"model": "model", "prompt": PROMPT, "max_tokens": 240, "temperature": 0, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            events = [line for line in lines if line]
        assert events[-1] == "data: [DONE]"
        assert server.process.wait(timeout=20) == 0
        with pytest.raises(httpx.ConnectError):
            server.client.get("/health")
