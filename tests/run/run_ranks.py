"""Runs `evaluate` and keeps the torchmetrics values of rank 0; Lightning starts it again for every further rank.

python tests/run/run_ranks.py VALUES_FILE [arguments of cxr-faith evaluate]
"""

import json
import os
import sys
from pathlib import Path

from cxr_faith.cli.lightning_cli import EvaluateCLI
from cxr_faith.run.evaluate import check, evaluate

if __name__ == "__main__":
    cli = EvaluateCLI(sys.argv[2:])
    identity = check(cli.model, cli.datamodule, cli.options)
    values = evaluate(cli.model, cli.datamodule, cli.trainer, cli.options, cli.resolved_config(), identity)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        plain = {f"{s} {m}": {name: v.tolist() for name, v in named.items()} for (s, m), named in values.items()}
        Path(sys.argv[1]).write_text(json.dumps(plain))
