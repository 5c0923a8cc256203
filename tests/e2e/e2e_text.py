"""A language model from its text to its Pareto front, with the real programs: bits per character in the table, result.json and pareto.csv."""
import csv
import json
import random

from rig import check, main

SEARCH = """\
name: words
seed: 3
task: {{kind: language-model, data: {{format: text, train: train.txt, validation: {validation}, test: test.txt}}, context: 16}}
space:
  input: {{tokens: 16, vocabulary: 128}}
  stem: {{width: [16, 32]}}
  stages: [{{block: transformer, depth: [1, 2], heads: [1, 2], expand: [2, 3], head_dim: 16}}]
supernet: {{method: sandwich, random_subnets: 1, epochs: 24, batch: 16, optimizer: {{kind: adamw, lr: 0.005, clip_norm: 1}}}}
search: {{algorithm: random, evaluations: 12}}
{more}
"""


def words(rig, name, seed, n):
    r = random.Random(seed)
    rig.write(name, "".join(r.choice(("lemon ", "pear ", "quince ", "medlar ", "cherry ", "apricot ")) for _ in range(n)))


def text_to_front(rig):
    words(rig, "train.txt", 1, 1000)
    words(rig, "valid.txt", 2, 100)
    words(rig, "test.txt", 3, 100)
    path = rig.write("words.yaml", SEARCH.format(validation="valid.txt", more=""))
    r = rig.client("run", path, "--out", "out", "--threads", "1", timeout=120)
    check(r.returncode == 0, r.stderr)
    check("bits/char" in r.stdout and "test bits/char" in r.stdout, "the table has bits: %s" % r.stdout)
    with open(rig.path("out", "result.json")) as f:
        result = json.load(f)
    check(result["objectives"][0] == {"measure": "bits_per_character", "goal": "min"}, "the default objective: %s" % result["objectives"])
    front = result["front"]
    check(front, "the front has members")
    for m in front:
        # six words of about 7 letters: log2(6) / 7 = 0.37 bits a letter is the least; who knows nothing needs 7
        check(0.3 < m["bits_per_character"] < 1.5 and 0.3 < m["test_bits_per_character"] < 1.5, "bits of %s" % m)
        check(0.6 < m["accuracy"] < 1, "accuracy of %s" % m)
        for o in front:
            check(not (o["bits_per_character"] <= m["bits_per_character"] and o["macs"] < m["macs"] and o is not m), "%s is dominated" % m)
    with open(rig.path("out", "pareto.csv")) as f:
        rows = list(csv.DictReader(f))
    check([float(row["bits_per_character"]) for row in rows] == [m["bits_per_character"] for m in front], "pareto.csv: %s" % rows)
    check(all(row["test_bits_per_character"] for row in rows), "pareto.csv has the test's bits")


def mistakes_are_named(rig):
    words(rig, "train.txt", 1, 100)
    words(rig, "test.txt", 3, 100)
    path = rig.write("bad.yaml", SEARCH.format(validation="0", more=""))
    r = rig.client("run", path, "--out", "out")
    check(r.returncode != 0 and "bits_per_character" in r.stderr, r.stderr)
    path = rig.write("bad.yaml", SEARCH.format(validation="400", more="").replace("context: 16", "context: 99"))
    r = rig.client("run", path, "--out", "out")
    check(r.returncode != 0 and "windows of 16 tokens" in r.stderr, r.stderr)


main(text_to_front, mistakes_are_named)
