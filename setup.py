"""Package metadata. What was tested is pinned in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "titokcodec" / "__init__.py").read_text()).group(1)

train = ["tensorboard>=2.15"]
figures = ["matplotlib>=3.8", "jinja2>=3.1", "plotly>=5.20"]  # charts, and the report's page
bench = ["pytest-benchmark>=4", "pillow-jxl-plugin>=1.3", "ssimulacra2>=0.3", "scipy>=1.8", *figures]
convert = ["pyyaml>=6"]  # published configs are YAML; a checkpoint whose shapes tell all needs none
hub = ["huggingface_hub>=0.24"]
browser = ["selenium>=4.20"]  # the report in a real Chromium, which must be there with its chromedriver
test = [
    "click>=8.2",
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest-benchmark>=4",
    "pytest-xdist>=3.5",
    "pytest>=8",
    "ruff>=0.8",
    "setuptools>=68",
    *figures,
]

setup(
    name="titokcodec",
    version=version,
    description="Pictures in 60 to 200 bytes: TiTok as a codec, with file format, weights, command line and training",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["titokcodec", "titokcodec.*"]), "titokcodec.training", "titokcodec.bench"],
    package_dir={"titokcodec.training": "training", "titokcodec.bench": "bench"},
    package_data={"titokcodec": ["assets/*.safetensors", "py.typed"], "titokcodec.bench": ["page/*"]},
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "constriction>=0.4.2,<0.6",
        "pillow>=10.3",
        "click>=8.1",
        "safetensors>=0.4.3",
    ],
    extras_require={"train": train, "bench": bench, "test": test, "hub": hub, "convert": convert, "browser": browser},
    entry_points={
        "console_scripts": [
            "titok-compress=titokcodec.cli.start:compress",
            "titok-decompress=titokcodec.cli.start:decompress",
            "titok-info=titokcodec.cli.start:info",
            "titok-truncate=titokcodec.cli.start:truncate",
            "titok-convert=titokcodec.cli.start:convert",
            "titok-generate=titokcodec.cli.start:generate",
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Graphics :: Graphics Conversion",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
