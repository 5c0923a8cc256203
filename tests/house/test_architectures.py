#!/usr/bin/env python3
"""What cmake/cuda_architectures.cmake makes of the option, of what nvcc knows and of the GPUs that nvidia-smi shows: both are programs here that print what the real ones would."""
import os
import subprocess
import tempfile
import unittest

SOURCE = os.environ.get("ESPALIER_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
NEW = (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121)  # nvcc 13.0
OLD = (75, 80, 86, 87, 89, 90)  # 12.0


def program(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)


def chosen(option="", gpus=(), known=NEW):
    """(the list, the flags), or what is said instead of them."""
    with tempfile.TemporaryDirectory() as scratch:
        program(f"{scratch}/nvcc", "printf '" + "".join(rf"compute_{k}\n" for k in known) + "'\n")
        program(f"{scratch}/nvidia-smi", "printf '" + "".join(rf"{g}\n" for g in gpus) + "'\n" if gpus else "echo 'No devices were found'; exit 6\n")
        with open(f"{scratch}/script.cmake", "w", encoding="utf-8") as f:
            f.write(f'cmake_minimum_required(VERSION 3.25)\nset(ESPALIER_CUDA_ARCHITECTURES "{option}")\ninclude({SOURCE}/cmake/cuda_architectures.cmake)\n'
                    f'espalier_cuda_architectures({scratch}/nvcc flags)\nmessage("${{ESPALIER_CUDA_ARCHITECTURES}}|${{flags}}")\n')
        r = subprocess.run(["cmake", "-P", f"{scratch}/script.cmake"], capture_output=True, text=True, env={**os.environ, "PATH": f"{scratch}:{os.environ['PATH']}"}, timeout=60)
        if r.returncode != 0:
            return " ".join(r.stderr.split())
        return tuple(r.stderr.strip().split("|"))


def real(*numbers):
    return [f"-gencode arch=compute_{n},code=sm_{n}" for n in numbers]


class Architectures(unittest.TestCase):
    def test_no_gpu(self):
        self.assertEqual(chosen(), ("80-virtual;90a", "-gencode arch=compute_80,code=compute_80 " + real("90a")[0]))

    def test_the_gpus_that_are_here(self):
        self.assertEqual(chosen(gpus=["8.6"]), ("86", real("86")[0]))
        self.assertEqual(chosen("native", ["9.0", "9.0"]), ("90a", real("90a")[0]))
        self.assertEqual(chosen(gpus=["8.9", "9.0"]), ("89;90a", " ".join(real("89", "90a"))))
        self.assertEqual(chosen(gpus=["7.5", "8.0"])[0], "80")
        self.assertEqual(chosen(gpus=["7.5"])[0], "80-virtual;90a")  # built here for elsewhere
        self.assertEqual(chosen(gpus=["12.0"], known=OLD), ("90-virtual", "-gencode arch=compute_90,code=compute_90"))

    def test_lists(self):
        self.assertEqual(chosen("86,90a", ["8.0"]), ("86;90a", " ".join(real("86", "90a"))))
        self.assertEqual(chosen("80-virtual")[1], "-gencode arch=compute_80,code=compute_80")
        self.assertEqual(chosen("all")[1], " ".join(real("80", "86", "89", "90a")) + " -gencode arch=compute_90,code=compute_90")
        self.assertEqual(chosen("all", known=(75, 80, 86))[0], "80;86")

    def test_refused(self):
        for option, gpus, known in (("75", (), NEW), ("sm_80", (), NEW), ("89", (), (75, 80, 86)), ("native", (), NEW), ("native", ["7.5"], NEW), ("8.6", (), NEW)):
            said = chosen(option, gpus, known)
            self.assertIsInstance(said, str, option)
            self.assertIn("ESPALIER_CUDA_ARCHITECTURES", said)


if __name__ == "__main__":
    unittest.main()
