"""Render conversations with chat templates in transformers, as goldens of internal/chat.

    V/bin/python testdata/chat/make.py testdata/chat/goldens.json                  (templates of this folder)
    V/bin/python testdata/chat/make.py .bench/chat.json DIR …                      (all .jinja and tokenizer_config.json files below DIR)
"""
import glob, json, os, sys

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def turns(*pairs):
    return [dict(role=r, content=c) for r, c in pairs]


CONVERSATIONS = [
    turns(("user", "Hi")),
    turns(("system", "Be brief."), ("user", "What's 2 + 2?")),
    turns(("user", "Hi"), ("assistant", "Hello!"), ("user", "  How are\nyou?  ")),
    turns(("user", "Hi"), ("assistant", "Hello!")),
    turns(("system", "You <b>label</b> texts & \"quotes\"."), ("user", "Größe? 日本 🙂 {{ x }} {% y %}"), ("assistant", "<think>\nwell\n</think>\n\nyes"), ("user", "no\\n"), ("assistant", "ok\n")),
    turns(("assistant", "first")),
    turns(("user", "a"), ("user", "b")),
    turns(("user", "")),
]


def sources(folders):
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, "**/*.jinja"), recursive=True)):
            with open(path, encoding="utf-8", newline="") as f:
                yield os.path.basename(path), f.read()
        for path in sorted(glob.glob(os.path.join(folder, "**/tokenizer_config.json"), recursive=True)):
            with open(path, encoding="utf-8") as f:
                template = json.load(f).get("chat_template")
            if isinstance(template, dict):
                template = [dict(name=k, template=v) for k, v in template.items()]
            for name, source in [("default", template)] if isinstance(template, str) else [(t["name"], t["template"]) for t in template or []]:
                yield os.path.basename(os.path.dirname(path)) + ":" + name, source


def render(template, messages, begin):
    try:
        return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=begin, **TOKENS)
    except Exception:  # the template refuses the conversation or fails on it
        return None


out, folders = sys.argv[1], sys.argv[2:] or [HERE]
goldens = []
for name, source in sources(folders):
    template = _compile_jinja_template(source)
    template.environment.globals.pop("strftime_now", None)  # ptune gives templates no date, so that the same rows give the same tokens tomorrow
    cases = [dict(messages=c, begin=begin, text=render(template, c, begin)) for c in CONVERSATIONS for begin in (False, True)]
    goldens.append(dict(name=name, source=source, cases=cases))
with open(out, "w") as f:
    json.dump(dict(tokens=TOKENS, templates=goldens), f, indent=1, ensure_ascii=False)
print(len(goldens), "templates", sum(c["text"] is not None for g in goldens for c in g["cases"]), "texts")
