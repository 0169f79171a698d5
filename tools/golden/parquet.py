"""Fixtures of Parquet calibration files: tests/golden/parquet, each beside the .jsonl of the same content, and files that lie.

Needs pyarrow 26.0.1 only. Run: python tools/golden/parquet.py --out tests/golden/parquet --pictures examples/pictures
"""
import argparse
import base64
import json
import pathlib
import struct

import pyarrow as pa
import pyarrow.parquet as pq

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--pictures", type=pathlib.Path, required=True)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))


def stored(name):
    return {"bytes": (args.pictures / name).read_bytes(), "path": name}


def source(name):
    return "data:image;base64," + base64.b64encode((args.pictures / name).read_bytes()).decode()


def save(name, columns, types, lines, **how):
    schema = pa.schema(types)
    pq.write_table(pa.table(columns, schema=schema), args.out / f"{name}.parquet", **how)
    (args.out / f"{name}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


# Four row groups of up to 7 rows; a dictionary, an extra number and a time that no reader needs.
body = [f"Row number {i} tells of {'rain and wind' if i % 3 else 'a dry summer, of Käse and 雨'}; " * (1 + i % 5) for i in range(25)]
kind = ["even" if i % 2 == 0 else "odd" for i in range(25)]
save("texts", {"body": body, "kind": pa.array(kind).dictionary_encode(), "number": list(range(25)),
               "when": [i * 10**6 for i in range(25)]},
     [("body", pa.string()), ("kind", pa.dictionary(pa.int32(), pa.string())), ("number", pa.int64()), ("when", pa.timestamp("us"))],
     [{"body": b, "kind": k, "number": i} for i, (b, k) in enumerate(zip(body, kind))], row_group_size=7, compression="zstd")

# Content as a string, with a member that most turns do not have.
talks = [[{"role": "system", "content": "Be brief."}] * (i % 2) +
         [{"role": "user", "content": f"What is {i} plus {i}?"}, {"role": "assistant", "content": f"It is {2 * i}."}] for i in range(6)]
talks[3][-1]["name"] = "adder"
save("messages", {"messages": talks},
     [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])))],
     [{"messages": t} for t in talks], row_group_size=4)

# Content as a list of items with a picture in some of them.
seen = ["shapes_a.png", None, "shapes_b.png"]
rows, lines = [], []
for i, name in enumerate(seen):
    ask = {"type": "text", "text": f"Question {i}?", "image": None}
    show = [{"type": "image", "text": None, "image": stored(name)}] if name else []
    answer = {"role": "assistant", "content": [{"type": "text", "text": f"Answer {i}.", "image": None}]}
    rows.append([{"role": "user", "content": show + [ask]}, answer])
    spelled = [{"type": "image", "image": source(name)}] if name else []
    lines.append({"messages": [{"role": "user", "content": spelled + [{"type": "text", "text": f"Question {i}?"}]},
                               {"role": "assistant", "content": [{"type": "text", "text": f"Answer {i}."}]}]})
item = pa.struct([("type", pa.string()), ("text", pa.string()), ("image", PICTURE)])
save("items", {"messages": rows}, [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(item))])))], lines)

# LLaVA's columns: one picture, none, a path only.
talks = [[{"from": "human", "value": ("<image>\n" if i != 1 else "") + f"What is it, {i}?"}, {"from": "gpt", "value": f"A shape, {i}."}]
         for i in range(3)]
save("llava", {"id": ["a", "b", "c"], "image": [stored("shapes_a.png"), None, {"bytes": None, "path": "../../../examples/pictures/shapes_b.png"}],
               "conversations": talks},
     [("id", pa.string()), ("image", PICTURE), ("conversations", TURNS)],
     [{"image": source("shapes_a.png"), "conversations": talks[0]}, {"conversations": talks[1]},
      {"image": "../../../examples/pictures/shapes_b.png", "conversations": talks[2]}], row_group_size=1)

# Several pictures a row, as plain bytes.
talks = [[{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "The first."}]]
names = ["shapes_a.png", "shapes_b.png"]
save("pairs", {"image": [[stored(n)["bytes"] for n in names]], "conversations": talks},
     [("image", pa.list_(pa.binary())), ("conversations", TURNS)],
     [{"image": [source(n) for n in names], "conversations": talks[0]}], compression="gzip")


# Footers written by hand (Thrift compact protocol) that no library would write.
def varint(n):
    out = b""
    while n >= 128:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def element(name, children=None, repetition=1):
    out = b"" if children is not None else b"\x15" + varint(2 * 6)             # 1: type = BYTE_ARRAY
    out += (b"\x25" if children is None else b"\x35") + varint(2 * repetition)  # 3: repetition
    out += b"\x18" + varint(len(name)) + name                                  # 4: name
    if children is not None:
        out += b"\x15" + varint(2 * children)                                  # 5: num_children
    return out + b"\x00"


def listed(elements):
    return (bytes([len(elements) << 4 | 12]) if len(elements) < 15 else b"\xfc" + varint(len(elements))) + b"".join(elements)


def footer(elements, rows, groups):
    body = b"\x15\x02\x19" + listed(elements) + b"\x16" + varint(2 * rows) + b"\x19" + listed(groups) + b"\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


def group(rows):  # without columns
    return b"\x19\x0c" + b"\x16\x00" + b"\x16" + varint(2 * rows) + b"\x00"


flat = [element(b"schema", 1), element(b"text")]
(args.out / "lying_count.bin").write_bytes(footer(flat, 5, [group(3)]))
(args.out / "lying_rows.bin").write_bytes(footer(flat, 10**15, [group(10**15)]))
(args.out / "lying_columns.bin").write_bytes(footer(flat, 3, [group(3)]))
(args.out / "lying_tree.bin").write_bytes(footer([element(b"schema", 7), element(b"text")], 0, []))
