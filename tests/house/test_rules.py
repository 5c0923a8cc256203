#!/usr/bin/env python3
"""Each house rule can fail: a small tree breaking exactly one rule is refused with that rule's name, its twin without the breach passes."""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import unittest

SOURCE = os.environ.get("ESPALIER_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.dont_write_bytecode = True
LOADER = importlib.machinery.SourceFileLoader("check_source", os.path.join(SOURCE, "scripts", "check-source"))
CHECK = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_source", LOADER))
LOADER.exec_module(CHECK)


def check(files, *options):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, name)) or root, exist_ok=True)
            with open(os.path.join(root, name), "w", encoding="utf-8") as f:
                f.write(text)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            rc = CHECK.main(["--root", root, *options])
        return rc, out.getvalue()


def header(name):
    guard = name.upper().replace(".", "_")
    return f"/* {name} - a thing. */\n#ifndef {guard}\n#define {guard}\n#endif\n"


def function(lines, above=""):
    return above + "int f(void)\n{\n" + "    g();\n" * (lines - 3) + "}\n"


HEADERS = {f"{d}/{d}.h": header(f"{d}.h") for d in ("base", "kernels", "search", "supernet", "daemon", "worker", "client")}
HEADERS["supernet/space/space.h"] = header("space.h")
HEADERS["daemon/wire/peer.h"] = header("peer.h")


class Rules(unittest.TestCase):
    def refused(self, rule, where, files, *options):
        rc, out = check({**HEADERS, **files}, *options)
        self.assertEqual(rc, 1, out)
        self.assertIn(f"{where}: {rule}: ", out)
        self.assertIn(" 1 breaches", out)

    def passes(self, files, *options):
        rc, out = check({**HEADERS, **files}, *options)
        self.assertEqual(rc, 0, out)

    def test_include_direction(self):
        for who, whom in (("base", "search/search.h"), ("kernels", "search/search.h"), ("search", "kernels/kernels.h"),
                          ("supernet", "daemon/daemon.h"), ("daemon", "supernet/supernet.h"), ("daemon", "kernels/kernels.h"),
                          ("worker", "daemon/daemon.h"), ("client", "worker/worker.h"), ("client", "supernet/supernet.h")):
            self.refused("include", f"{who}/x.c:2", {f"{who}/x.c": f'\n#include "{whom}"\n'})
        for who, whom in (("kernels", "base/base.h"), ("supernet", "kernels/kernels.h"), ("daemon", "supernet/space/space.h"),
                          ("worker", "daemon/wire/peer.h"), ("client", "daemon/wire/peer.h"), ("daemon", "schemas/w.pb-c.h")):
            self.passes({f"{who}/x.c": f'#include "{whom}"\n'})

    def test_rooms(self):
        for who, whom in (("store", "coord/coord.h"), ("wire", "auth/auth.h"), ("coord", "driver/hunt.h"), ("auth", "server.h"), ("driver", "http/http.h")):
            self.refused("include", f"daemon/{who}/x.c:1", {f"daemon/{who}/x.c": f'#include "daemon/{whom}"\n', f"daemon/{whom}": header(os.path.basename(whom))})
        for who, whom in (("coord/", "store/db.h"), ("driver/", "coord/coord.h"), ("store/", "store/db.h"), ("", "http/http.h"), ("", "server.h")):
            self.passes({f"daemon/{who}x.c": f'#include "daemon/{whom}"\n', f"daemon/{whom}": header(os.path.basename(whom))})
        self.refused("include", "daemon/attic/x.c:1", {"daemon/attic/x.c": "int x;\n"})
        for top, who in (("worker", "coord/coord.h"), ("client", "store/db.h"), ("client", "auth/roles.h")):
            self.refused("include", f"{top}/x.c:1", {f"{top}/x.c": f'#include "daemon/{who}"\n', f"daemon/{who}": header(os.path.basename(who))})

    def test_rooms_have_an_order(self):
        for top, rooms in CHECK.ROOMS.items():
            above = []
            for room, others in rooms.items():
                self.assertLessEqual(set(others), set(above), f"{top}/{room} looks into a room that is not named above it")
                above.append(room)

    def test_include_from_the_root(self):
        self.refused("include", "base/x.c:1", {"base/x.c": '#include "base.h"\n'})
        self.refused("include", "base/x.c:1", {"base/x.c": '#include "../base/base.h"\n'})

    def test_banned(self):
        for name in ("strcpy", "strcat", "sprintf", "gets", "strtok", "atoi", "atof", "rand", "srand", "system", "alloca", "usleep"):
            self.refused("banned", "base/x.c:2", {"base/x.c": f"int y;\nint x = {name} (z);\n"})
            if name == "system":
                continue
            self.refused("banned", "tests/base/test_x.c:1", {"tests/base/test_x.c": f"int x = {name}(z);\n"})
        self.passes({"base/x.c": '/* strcpy(a) */ // atoi(b)\nchar *s = "system(x)"; int a = my_rand(1) + r.rand(2) + p->rand(3);\n'})

    def test_file_length(self):
        self.refused("file", "base/x.c:801", {"base/x.c": "int x;\n" * 801})
        self.passes({"base/x.c": "int x;\n" * 800})

    def test_function_length(self):
        self.refused("function", "base/x.c:1", {"base/x.c": function(81)})
        self.refused("function", "base/x.c:4", {"base/x.c": "int y;\n\n/* why */\n" + function(81)})
        self.refused("function", "base/x.c:82", {"base/x.c": function(80) + "\n" + function(81)})
        self.passes({"base/x.c": function(80)})
        self.passes({"base/x.c": function(81, "/* long: one table, one screen */\n")})
        self.passes({"tests/base/test_x.c": function(200)})

    def test_header(self):
        self.refused("header", "base/x.h:1", {"base/x.h": header("y.h")})
        self.refused("header", "base/x.h:1", {"base/x.h": "/* x.h - a thing. */\nint x;\n"})

    def test_todo(self):
        self.refused("todo", "base/x.c:1", {"base/x.c": "/* TO" "DO */\n"})

    def test_path(self):
        self.refused("path", "docs/x.md:1", {"docs/x.md": "see /wo" "rk/x\n"})
        self.refused("path", "base/x.c:1", {"base/x.c": 'char *p = "/ro' 'ot/x";\n'})
        self.passes({"docs/x.md": "the network/work/sharing and https://example.org/work/x\n"})

    def test_mention(self):
        self.refused("mention", "docs/x.md:2", {"docs/x.md": "\nsee `base/gone.c`\n"})
        self.refused("mention", "base/x.c:1", {"base/x.c": "/* tests/base/gone.py shows it */\n"})
        self.passes({"docs/x.md": "`base/base.h`, base/<name>.c, base/*.c, build/base/x.c, ../base/x.c, https://x.org/base/x.c\n"})
        there = {"base/y.c": "int y;\n", "tests/base/test_y.c": "int y;\n", "scripts/try": "exit\n"}
        for text in ("run `scripts/no`", "build, then tests/base/z once", "what gone.c does", "below base/rooms/ it is"):
            self.refused("mention", "docs/x.md:2", {**there, "docs/x.md": f"\n{text}\n"})
        self.passes({**there, "docs/x.md": "in base/: y.c, test_y.c, `scripts/try`, build/tests/base/y; tests/base/y, tests/base/test_*.c\n"})
        self.refused("mention", "base/x.c:2", {**there, "base/x.c": "int x;\n/* as gone.c\n * does */\n"})
        self.passes({**there, "base/x.c": 'const char *s = "gone.c"; /* and/or search/replace as y.c */ int n = here.c;\n'})

    @unittest.skipUnless(shutil.which("clang-format"), "clang-format is not installed")
    def test_format(self):
        with open(os.path.join(SOURCE, ".clang-format"), encoding="utf-8") as f:
            style = f.read()
        self.refused("format", "base/x.c:1", {".clang-format": style, "base/x.c": "int   x;\n"}, "--format")
        self.passes({".clang-format": style, "base/x.c": "int x;\n"}, "--format")


if __name__ == "__main__":
    unittest.main()
