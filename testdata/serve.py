"""Call every route of `ptune serve` with the clients that people use: the `openai` and `typesafe-sdk` packages
of Python, `openai` for Node, openai-go, curl, and Chromium for the page.

    python testdata/serve.py bin/ptune        (pip install openai typesafe-sdk websocket-client)

The server has two prompts of the built-in model, trained here, and a chat template beside the model. Node's
package is installed in .bench/node if npm is there. Without npm or chromium their part is left out, which
is said. Exits with 1 if a client gets something else than it should.
"""
import asyncio, json, os, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT, exe = os.path.dirname(HERE), os.path.abspath(sys.argv[1])
REVIEW = "The waiters were rude and the soup was cold."
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def near(a, b):
    assert abs(a - b) < 1e-9, (a, b)


def openai_package(address):
    import openai
    client = openai.OpenAI(base_url=address + "/v1", api_key="a-key", max_retries=0)
    models = client.models.list().data
    assert [m.id for m in models] == ["demo", "stars", "things"] and models[1].parent == "demo", models
    d = client.decisions.create(model="stars", input=REVIEW, questions=[
        dict(type="choice", name="n", instructions="How many?", choices=[dict(value="five stars"), dict(value="one star", description="bad")]),
        dict(type="score", instructions="How many?", levels=[dict(label="one star"), dict(label="five stars")])])
    choice, score = d.answers
    assert choice.type == "choice" and choice.choice == "one star" and choice.name == "n" and d.usage.output_tokens == 0, d
    p = {x.value: x.probability for x in choice.probabilities}
    near(sum(p.values()), 1), near(score.score, p["five stars"]), near(score.probabilities[1].probability, p["five stars"])
    near(choice.confidence, 2 * max(p.values()) - 1)
    predicate = client.decisions.create(model="demo", input=[dict(role="user", content=REVIEW)], questions=[dict(type="predicate", instructions="Is it about food?")]).answers[0]
    assert predicate.type == "predicate" and 0 < predicate.probability < 1, predicate
    body = dict(model="demo", prompt="The", max_tokens=20, temperature=0)
    text = client.completions.create(**body).choices[0].text
    assert text and "".join(c.choices[0].text for c in client.completions.create(**body, stream=True)) == text
    logprobs = client.completions.create(**body, logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) and max(logprobs.token_logprobs) <= 0, logprobs
    messages = [dict(role="user", content="Say something.")]
    whole = client.chat.completions.create(model="demo", messages=messages, max_completion_tokens=10, temperature=0)
    said, usage = "", None
    for c in client.chat.completions.create(model="demo", messages=messages, max_completion_tokens=10, temperature=0, stream=True, stream_options=dict(include_usage=True)):
        said, usage = said + (c.choices[0].delta.content or "" if c.choices else ""), c.usage or usage
    assert said == (whole.choices[0].message.content or "") and usage.total_tokens == whole.usage.total_tokens, (said, whole)
    for wrong, error in ((dict(model="none"), openai.NotFoundError), (dict(best_of=3), openai.BadRequestError), (dict(max_tokens=-1), openai.BadRequestError)):
        try:
            client.completions.create(**body | wrong)
            raise AssertionError(wrong)
        except error as e:
            assert e.body["message"] and e.request_id, e
    try:
        openai.OpenAI(base_url=address + "/v1", api_key="wrong", max_retries=0).models.list()
        raise AssertionError("a wrong key was taken")
    except openai.AuthenticationError:
        pass
    try:
        client.with_options(timeout=0.01).completions.create(**body | dict(max_tokens=400, temperature=2))
        raise AssertionError("it did not time out")
    except openai.APITimeoutError:
        pass
    with client.completions.create(**body | dict(max_tokens=400, temperature=2), stream=True) as stream:
        next(iter(stream))  # leaves in mid-stream

    async def many():  # of both prompts and the base at once, each with its own answer
        c = openai.AsyncOpenAI(base_url=address + "/v1", api_key="a-key", max_retries=0)
        ask = lambda m: c.decisions.create(model=m, input=REVIEW, questions=[dict(type="choice", instructions="?", choices=[])])
        answers = await asyncio.gather(*(ask(m) for _ in range(12) for m in ("stars", "things")), *(c.completions.create(**body) for _ in range(4)))
        for a in answers[::2][:12]:
            assert {x.value: x.probability for x in a.answers[0].probabilities} == p, a  # to the bit
        assert all(a.answers[0].choice == "restaurant" for a in answers[1:24:2])
        assert all(a.choices[0].text == text for a in answers[24:])
    asyncio.run(many())
    return p


def typesafe_package(address, p):
    os.environ.update(TYPESAFE_BASE_URL=address, TYPESAFE_API_KEY="a-key")
    import typesafe_sdk as ts
    with ts.TypeSafeClient() as client:
        names = [m.name for m in client.models.list().models]
        assert names == ["demo", "stars", "things"], names
        r = client.system_one(model="stars", state=REVIEW, questions={
            "stars": ts.Choice(instructions="How many?", criteria={"one star": "bad", "five stars": None}),
            "rank": ts.Score(instructions="How many?", criteria=["one star", "five stars"])})
        assert r.choices["stars"].choice == "one star" and r.choices["stars"].probabilities == p, r
        near(r.scores["rank"].score, p["five stars"])
        assert r.scores["rank"].legend == {0: "one star", 1: "five stars"} and r.usage.output_tokens == 0, r
        r = client.system_one(model="demo", state={"review": REVIEW}, questions={"food": ts.Noul(instructions="Is it about food?", criteria={"true": "it names a dish"})})
        assert 0 < r.nouls["food"].noul < 1, r
        for wrong, error in ((dict(model="none"), ts.TypeSafeNotFoundError), (dict(questions={"x": ts.Choice(criteria={"a": None, "b": None})}), ts.TypeSafeBadRequestError)):
            try:
                client.system_one(**dict(model="stars", state="x", questions={"x": ts.Noul(instructions="?")}) | wrong)
                raise AssertionError(wrong)
            except error as e:
                assert "none" in str(e) or "no label" in str(e), e


def curl(address):
    def get(path, *args, status=200):
        out = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", address + path, *args], check=True, stdout=subprocess.PIPE, text=True).stdout
        body, code = out.rsplit("\n", 1)
        assert int(code) == status, (path, out)
        return body
    key, json_type = ["-H", "Authorization: Bearer a-key"], ["-H", "Content-Type: application/json"]
    assert json.loads(get("/health")) == {"status": "ok"}
    get("/v1/models", status=401), get("/metrics", status=401), get("/", status=401)
    assert "vllm:request_success_total" in get("/metrics", *key)
    assert get("/", *key).startswith("<!DOCTYPE html>")
    data = json.loads(get("/classify", *key, *json_type, "-d", json.dumps(dict(model="things", input=[REVIEW, REVIEW]))))["data"]
    assert [d["label"] for d in data] == ["restaurant"] * 2 and len(data[0]["probs"]) == data[0]["num_classes"] == 6, data
    get("/v1/decisions", *key, *json_type, "-d", "{", status=400)
    get("/v1/decisions", *key, status=405)
    events = get("/v1/completions", *key, *json_type, "-N", "-d", '{"model":"demo","prompt":"The","max_tokens":5,"stream":true}').strip().split("\n\n")
    assert events[-1] == "data: [DONE]" and all(e.startswith("data: {") for e in events[:-1]), events


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        base, prompts, log = work + "/demo", work + "/prompts", work + "/log"
        shutil.copytree(ROOT + "/internal/demo/base", base)
        open(base + "/chat_template.jinja", "w").write(CHAT)
        open(work + "/keys", "w").write("a-key\n")
        for task in ("stars", "things"):
            subprocess.run([exe, "train", "configs/" + task + ".yaml", "--quiet", "--set", f"output.prompt={prompts}/{task}.st", "--set", f"output.dir={work}/{task}"],
                           cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with open(log, "w") as f:
            server = subprocess.Popen([exe, "serve", "--model", base, "--prompts", prompts, "--listen", "127.0.0.1:0", "--api-key-file", work + "/keys"], stderr=f)
        try:
            while "msg=ready" not in open(log).read():
                assert server.poll() is None, open(log).read()
                time.sleep(0.1)
            address = "http://" + open(log).read().split("msg=listening address=")[1].split()[0]
            env = os.environ | dict(SERVER=address)
            p = openai_package(address)
            typesafe_package(address, p)
            print("Python's openai and typesafe-sdk: models, decisions, completions, chats, streaming, errors, cancelling and many at once work")
            curl(address)
            print("curl: every route works")
            subprocess.run(["go", "run", "."], cwd=HERE + "/clients/go", env=env, check=True)
            if shutil.which("npm"):
                folder = ROOT + "/.bench/node"
                os.makedirs(folder, exist_ok=True)
                if not os.path.exists(folder + "/node_modules/openai"):
                    subprocess.run(["npm", "install", "--silent", "--prefix", folder, "openai@6.49.0"], check=True)
                subprocess.run(["node", HERE + "/clients/node.mjs"], env=env | dict(OPENAI=folder + "/node_modules/openai/index.mjs"), check=True)
            else:
                print("no npm: openai for Node was left out")
        finally:
            server.terminate()
        assert server.wait() == 0, open(log).read()
        if shutil.which("chromium"):
            subprocess.run([sys.executable, HERE + "/page.py", exe, prompts], check=True)
        else:
            print("no chromium: the page was left out")


main()
