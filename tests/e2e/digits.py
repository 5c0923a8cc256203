"""digits.py DIR [TRAIN TEST]: small images of digits as IDX files: a 5x7 font at a random place of 12x12 pixels, with noise. Always the same bytes."""
import random
import struct
import sys

FONT = ["0E11131519110E", "040C040404040E", "0E11010204081F", "1F02040201110E", "02060A121F0202",
        "1F101E0101110E", "0608101E11110E", "1F010204080808", "0E11110E11110E", "0E11110F01020C"]


def image(rng, digit):
    px = [rng.randrange(60) for _ in range(144)]
    top, left = rng.randrange(1, 5), rng.randrange(1, 7)
    ink = 150 + rng.randrange(105)
    for y in range(7):
        row = int(FONT[digit][2 * y:2 * y + 2], 16)
        for x in range(5):
            if row >> (4 - x) & 1 and rng.random() > 0.06:
                px[(top + y) * 12 + left + x] = ink
    return bytes(px)


def write(prefix, count, seed):
    rng = random.Random(seed)
    labels = [i % 10 for i in range(count)]
    rng.shuffle(labels)
    with open(prefix + "-images-idx3-ubyte", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, count, 12, 12))
        f.writelines(image(rng, d) for d in labels)
    with open(prefix + "-labels-idx1-ubyte", "wb") as f:
        f.write(struct.pack(">II", 0x801, count) + bytes(labels))


where = sys.argv[1]
write(where + "/train", int(sys.argv[2]) if len(sys.argv) > 2 else 1400, 1)
write(where + "/test", int(sys.argv[3]) if len(sys.argv) > 3 else 400, 2)
