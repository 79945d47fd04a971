"""Write small safetensors files, valid and damaged, with what the Rust library reads from each. A test
compares ptune with it.

    V/bin/python testdata/differential.py [--files 1000] [--seed N] OUT.jsonl       (needs safetensors)
"""
import argparse, base64, json, random, struct

from safetensors import SafetensorError, deserialize

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8}
NAMES = ["a", "b", "c", "d", "w.0.weight", "é", "", " ", "日本", "x" * 40, "x" * 600] + ["y%d" % i for i in range(20)] + ["__metadata__"]


def tensors(r):
    at, out = 0, []
    for name in r.sample(NAMES, r.choice([0, 1, 1, 2, 3])):
        dtype = r.choice(list(SIZES))
        shape = [r.choice([0, 1, 2, 3, 4]) for _ in range(r.choice([0, 1, 1, 2, 2, 3]))]
        n = SIZES[dtype]
        for d in shape:
            n *= d
        out.append([name, {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}])
        at += n
    return out, at


def spoil(r, pairs):
    """Damage the description of one tensor."""
    name, t = r.choice(pairs)
    key = r.choice(["dtype", "shape", "data_offsets"])
    what = r.randrange(12)
    odd = r.choice([-1, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, 2**64, 1.0, 1.5, "1", None, True, [], {}])
    if what == 0:
        del t[key]
    elif what == 1:
        t[key] = odd
    elif what == 2 and t["shape"]:
        t["shape"][r.randrange(len(t["shape"]))] = odd
    elif what == 3:
        t["data_offsets"][r.randrange(2)] = odd
    elif what == 4:
        t["data_offsets"][r.randrange(2)] += r.choice([-2, -1, 1, 2])
    elif what == 5:
        t["data_offsets"] = t["data_offsets"][::-1]
    elif what == 6:
        t["data_offsets"] = t["data_offsets"][:1] + t["data_offsets"]
    elif what == 7:
        t["dtype"] = r.choice(["f32", "F31", "", "F4", "F6_E2M3", "F8_E8M0", "C64", "F8_E4M3FNUZ"])
    elif what == 8:
        t["shape"] = [1] * r.randrange(4, 12) + t["shape"]
    elif what == 9:
        t[r.choice(["more", "Dtype", "shape "])] = odd
    elif what == 10:
        t["shape"] = [r.choice([0, 2**20, 2**32, 2**62])] * r.randrange(1, 5)
    else:
        pairs.append([name, dict(t)])


def text(r, pairs):
    """The header as JSON, in one of several spellings."""
    ascii, space = r.random() < 0.5, r.choice(["", "", "", " ", "\n", "\t"])
    dump = lambda v: json.dumps(v, ensure_ascii=ascii, separators=("," + space, ":" + space))
    fields = [dump(k) + ":" + space + dump(v) for k, v in pairs]
    if r.random() < 0.3:
        meta = r.choice([{"format": "pt"}] * 8 + [{}, {"n": 1}, {"a": None}, "x", None, [], {"é": "ü"}, {"a": {"b": "c"}}])
        fields.insert(r.choice([0, len(fields)]), '"__metadata__":' + dump(meta))
    if r.random() < 0.02 and fields:
        fields.append(r.choice(fields))
    return ("{" + (space + "," + space).join(fields) + "}").encode()


def file(r):
    pairs, size = tensors(r)
    for _ in range(r.choice([0, 0, 0, 1, 1, 2])):
        if pairs:
            try:
                spoil(r, pairs)
            except (KeyError, TypeError, IndexError):
                pass  # already damaged
    header = text(r, pairs)
    if r.random() < 0.3:
        header += b" " * r.randrange(9)
    if r.random() < 0.1:
        header = r.choice([b" ", b"\n", b"\xef\xbb\xbf", b"[", b"{"]) + header
    if r.random() < 0.1:
        header += r.choice([b"}", b"x", b"\n", b"\0", b",", b" {}"])
    header = bytearray(header)
    for _ in range(r.choice([0] * 7 + [1, 1, 2])):
        i = r.randrange(len(header))
        how = r.randrange(4)
        if how == 0:
            header[i] = r.randrange(256)
        elif how == 1:
            del header[i]
        elif how == 2:
            header[i:i] = r.choice([b"\\", b'"', b"\\ud800", b"\\u0061", b"0", b"1", b"-", b"e1", b".0", b"\xff", b"\xc3", b"\0", b"]", b"["])
        else:
            j = r.randrange(len(header))
            header[min(i, j) : max(i, j)] = header[min(i, j) : max(i, j)][: r.randrange(1, 9)]
        if not header:
            header = bytearray(b" ")
    n = len(header) + r.choice([0] * 40 + [-1, 1, 8, 2**24, 2**32, 2**63])
    return struct.pack("<Q", max(0, n)) + bytes(header) + r.randbytes(max(0, size + r.choice([0] * 40 + [-1, 1, 8])))


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("out")
p.add_argument("--files", type=int, default=1000)
p.add_argument("--seed", type=int, default=1)
a = p.parse_args()
r = random.Random(a.seed)
with open(a.out, "w") as out:
    for _ in range(a.files):
        data = file(r)
        try:
            found = {name: {"dtype": t["dtype"], "shape": t["shape"], "data": base64.b64encode(bytes(t["data"])).decode()} for name, t in deserialize(data)}
        except SafetensorError:
            found = None
        print(json.dumps({"file": base64.b64encode(data).decode(), "tensors": found}), file=out)
