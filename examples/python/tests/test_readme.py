# SPDX-License-Identifier: MIT
"""The sessions of the README and of the package's docstring print what they say."""

import doctest
import re
import unittest
from pathlib import Path

import pipesched

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```pycon\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.S | re.M)


def has_pipelining():
    try:
        import torch.distributed.pipelining  # noqa: F401
    except ImportError:
        return False
    return True


class Sessions(unittest.TestCase):
    def run_sessions(self, text, name):
        test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        self.assertGreater(len(test.examples), 2)
        runner, printed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), []
        runner.run(test, out=printed.append)
        self.assertEqual(runner.failures, 0, "".join(printed))

    def test_readme(self):
        self.run_sessions("\n".join(b for b in BLOCKS if "torch" not in b.split("\n")[0]), "README.md")

    @unittest.skipUnless(has_pipelining(), "needs PyTorch")
    def test_readme_of_pytorch(self):
        self.run_sessions("\n".join(b for b in BLOCKS if "torch" in b.split("\n")[0]), "README.md: PyTorch")

    def test_docstring(self):
        self.run_sessions(pipesched.__doc__, "pipesched")


if __name__ == "__main__":
    unittest.main()
