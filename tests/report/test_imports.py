"""The room draws what records and summary hold: importing all of it loads neither a model nor Lightning."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import cxr_faith.report

names = [module.name for module in pkgutil.walk_packages(cxr_faith.report.__path__, "cxr_faith.report.")]
for name in names:
    importlib.import_module(name)
assert len(names) > 20
print(*sorted(sys.modules))
"""


def test_no_module_of_the_report_loads_a_model_or_lightning() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "cxr_faith.report.results" in loaded
    assert loaded & {"cxr_faith.vlm", "cxr_faith.attribution", "cxr_faith.run", "transformers", "lightning"} == set()
