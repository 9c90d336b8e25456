"""The versions of what decides a run's output: they stand in the keys of its steps."""

from importlib.metadata import PackageNotFoundError, version

import polyclinic

PINNED = ("torch", "transformers", "tokenizers", "pyarrow", "py3langid", "lm-eval", "numpy")


def versions() -> dict[str, str]:
    """Return the version of each package, ours first."""
    out = {"polyclinic": polyclinic.__version__}
    for name in PINNED:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out
