"""A server of transformers and PEFT that holds several prompt-tuning adapters and switches between them.

    python testdata/peft_server.py --model BASE --adapters DIR [--port 8090] [--dtype float32|bfloat16]

It is what `make load` compares `ptune serve` with: POST /classify {"model", "input"} scores an adapter's labels
in one padded batch, and POST /v1/completions {"model", "prompt", "max_tokens"} generates greedily. DIR has one
folder for each adapter, as `ptune export --peft` writes it, with a labels.json [label, ...] beside it.
"""
import argparse, json, os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(base, adapters, dtype):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    names = sorted(os.listdir(adapters))
    peft = PeftModel.from_pretrained(model, os.path.join(adapters, names[0]), adapter_name=names[0])
    for name in names[1:]:
        peft.load_adapter(os.path.join(adapters, name), adapter_name=name)
    labels = {n: json.load(open(os.path.join(adapters, n, "labels.json"))) for n in names}
    return peft.eval(), AutoTokenizer.from_pretrained(base), labels


class Server:
    def __init__(self, base, adapters, dtype):
        self.model, self.tok, self.labels = load(base, adapters, dtype)
        self.tok.pad_token = self.tok.pad_token or self.tok.eos_token
        self.lock = threading.Lock()

    def classify(self, name, text, template):
        labels = self.labels[name]
        ids = self.tok(template.replace("{text}", text), add_special_tokens=False).input_ids
        ends = [self.tok(" " + l, add_special_tokens=False).input_ids for l in labels]
        longest = max(map(len, ends))
        rows = [ids + e + [self.tok.pad_token_id] * (longest - len(e)) for e in ends]
        mask = [[1] * (len(ids) + len(e)) + [0] * (longest - len(e)) for e in ends]
        with self.lock, torch.inference_mode():
            self.model.set_adapter(name)
            logits = self.model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask)).logits
        logits = logits[:, -len(rows[0]):].float().log_softmax(-1)
        scores = torch.stack([sum(logits[k, len(ids) + i - 1, t] for i, t in enumerate(e)) for k, e in enumerate(ends)])
        return dict(label=labels[int(scores.argmax())], probs=scores.softmax(0).tolist())

    def complete(self, name, text, tokens):
        ids = self.tok(text, add_special_tokens=False, return_tensors="pt")
        with self.lock, torch.inference_mode():
            self.model.set_adapter(name)
            out = self.model.generate(**ids, max_new_tokens=tokens, do_sample=False, pad_token_id=self.tok.pad_token_id)
        new = out[0, ids.input_ids.shape[1]:]
        return self.tok.decode(new), len(new)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--adapters", required=True)
    p.add_argument("--port", type=int, default=8090)
    p.add_argument("--dtype", default="float32")
    p.add_argument("--template", default="{text}")
    a = p.parse_args()
    server = Server(a.model, a.adapters, a.dtype)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, answer):
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.reply(dict(status="ok"))

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/classify":
                found = server.classify(asked["model"], asked["input"], a.template)
                self.reply(dict(data=[found], usage=dict(completion_tokens=0)))
            else:
                text, n = server.complete(asked["model"], asked["prompt"], asked["max_tokens"])
                self.reply(dict(choices=[dict(text=text)], usage=dict(completion_tokens=n)))

    class Listener(ThreadingHTTPServer):
        request_queue_size = 128

    Listener(("127.0.0.1", a.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
