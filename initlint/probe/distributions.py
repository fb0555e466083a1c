"""What to install for a module that is missing: the name of its distribution is not always its own."""

from __future__ import annotations

import re
import sys

# Import names of packages that are installed under another name (names that differ in "-" and "_" only are the same).
_NAMES = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "distutils": "setuptools",  # the standard library's went with Python 3.12
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "git": "gitpython",
    "hydra": "hydra-core",
    "mpl_toolkits": "matplotlib",
    "OpenGL": "pyopengl",
    "PIL": "pillow",
    "pkg_resources": "'setuptools<81'",  # which version 81 announced to remove, and 82 did
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
_MISSING = re.compile(r"No module named '?([\w.]+)")


def remedy(name: str, reason: str) -> str:
    """What to do where ``name`` (dotted) cannot be imported for a reason, an exception's words."""
    missing = _MISSING.search(reason)
    top = (missing[1] if missing else name).split(".")[0]
    if missing is None and top in sys.modules:
        return f"Install a version of {_NAMES.get(top, top)} in which that import works, or mend the import."
    return f"Install {_NAMES.get(top, top)} into this environment."
