"""One of the processes that torchrun starts for a test: trains case after case, all in one company.

    torchrun --nproc-per-node 2 processes.py CASES

CASES is a JSON file: a list of mixture, packs, out and the keys of the train section.
"""

import json
import sys
from pathlib import Path

from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.distributed import company
from polyclinic.train.run import follow, train_mixture


def main(cases: Path) -> None:
    with company() as leads:
        if not leads:
            follow()
            return
        for mixture, packs, out, keys in json.loads(cases.read_text()):
            train_mixture(MoeTrainingSection(**keys), Path(mixture), Path(packs), Path(out), 0, Silent())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
