"""Package metadata; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'"(\d.+)"', (HERE / "baselines_lite/common/system/version.py").read_text(encoding="utf-8"))[1]

# Lower bounds are to pass `python tests/bounds.py oldest`, the newest releases `newest`. Upper ones are the next major
# release, or the next minor one where private API is used (TensorFlow, Gymnasium) or every minor one may break what it
# likes (ale-py, ruff).
EXTRAS = {
    "mpi": ["mpi4py>=4.1,<5", "mpich>=4.2.3,<6"],
    "mujoco": ["gymnasium[mujoco]>=1.2.1,<1.5", "mujoco>=3.2.5,<5"],
    "video": ["moviepy>=2.1,<3", "imageio-ffmpeg>=0.6,<1", "pygame>=2.1.3,<3"],
    "tensorboard": ["tensorboard>=2.20,<3"],
    "plot": ["plotly>=6,<8"],
    "benchmark": ["rliable>=1.2,<2", "pandas>=2.2,<3", "plotly>=6,<8", "box2d>=2.3.10,<3"],
    "docs": ["mkdocs-material>=9.5,<10", "latex2mathml>=3.78,<4"],
    "test": ["pytest>=8.0,<10", "pytest-xdist>=3.4,<4", "ruff>=0.17,<0.18"],
    "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
}

setup(
    name="baselines-lite",
    version=VERSION,
    description="MPI-parallel reinforcement learning in the style of OpenAI Baselines, on TensorFlow 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["baselines_lite", "baselines_lite.*"]),
    package_data={"": ["py.typed", "*.pyi"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "numpy>=1.26,<3",
        "scipy>=1.11.3,<2",
        "gymnasium>=1.2.1,<1.5",
        "ale-py>=0.12,<0.13",
        "cloudpickle>=2.2,<4",
        "threadpoolctl>=3.1,<4",
        "safetensors>=0.8,<1",
        "matplotlib>=3.8,<4",
        "rich>=13.3.1,<16",
        "tqdm>=4.64,<5",
    ],
    extras_require={**EXTRAS, "all": sorted({p for name in EXTRAS if name != "gpu" for p in EXTRAS[name]})},
    entry_points={"console_scripts": ["baselines-lite=baselines_lite.run:console"]},
)
