"""The distribution `labelbeam`: what it is, what it needs, what a wheel of it holds.

The tools' settings are in pyproject.toml. After a change of requirements, `make lock` renews the exact versions in
requirements.txt, requirements-dev.txt and requirements-torch.txt.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

REPOSITORY = "https://github.com/labelbeam/labelbeam"
ROOT = Path(__file__).parent
README = ROOT / "README.md"
MANIFEST = ROOT / "MANIFEST.in"  # names what an image of Dataflow's workers is built from, beside the packages

REQUIREMENTS = [
    # the pipeline
    "apache-beam[gcp]==2.77.*",  # a worker's Beam must equal the launcher's
    "google-cloud-storage>=2.18.2,<4",
    "google-api-core>=2.20",  # the storage's errors
    "google-auth>=2.30",
    "google-cloud-dataflow-client>=0.8",  # what a job has used
    "requests>=2.31",  # asks an image's registry
    "docker>=7,<8",
    "backports.zstd>=1; python_version < '3.14'",
    # the models
    "torch>=2.6",
    "tokenizers>=0.22,<1",
    "transformers>=5,<6",
    "accelerate>=1.1",
    "sentencepiece>=0.2,<0.2.3",  # tokenizers such as DeBERTa-v3's; 0.2.3 needs a protobuf that Beam has not
    "safetensors>=0.4",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    # search, reports, model cards
    "optuna>=4",
    "matplotlib>=3.9",
    "jinja2>=3.1",
    "huggingface_hub>=1",
    # data and settings
    "datasets>=4",
    "fsspec>=2024.9",
    "numpy>=2",
    "orjson>=3.9.7,<4",
    "pandas>=2.2",
    "pyarrow>=18",
    "pydantic>=2.7,<3",
    "rich>=13",
    "tomli-w>=1",
    "threadpoolctl>=3",
]

# Other runtimes for scoring on a CPU: inference.scoring.runtimes says what each is for.
OPENVINO = ["openvino>=2025.4", "nncf>=2.19"]  # nncf makes int8 variants
S3 = ["boto3>=1.36", "botocore>=1.36"]  # files in s3://; these versions write under conditions
ONNXRUNTIME = ["onnxruntime>=1.24", "onnx>=1.17", "onnxscript>=0.5"]

TOOLS = [
    *OPENVINO,
    *ONNXRUNTIME,
    *S3,
    "build",
    "codespell",
    "duckdb",  # reads what export and a run write
    "flask",  # moto's server
    "flask-cors",
    "gcp-storage-emulator",
    "hypothesis",
    "import-linter",
    "mkdocs-material",  # the documentation's site
    "moto[s3]>=5.1",  # a server for S3
    "mypy",
    "pytest",
    "pytest-cov",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "setuptools",  # builds and installs without a download
]


class BuildPy(build_py):
    """Also adds what is no part of a package.

    labelbeam.pth goes beside the packages, where Python reads it when it starts; labelbeam.py says why. What an image
    is built from goes into inference/dataflow/image, so that an installation can build one without a clone.
    """

    def run(self) -> None:
        """Copy the files to where the modules go; for an editable installation that is a wheel without modules."""
        super().run()
        install = self.distribution.get_command_obj("install")
        self.copy_file("labelbeam.pth", install.install_lib if self.editable_mode else self.build_lib)
        if MANIFEST.exists() and not self.editable_mode:  # an image's own wheel is made without it
            for name in MANIFEST.read_text(encoding="utf-8").split()[1:]:
                target = Path(self.build_lib, "inference/dataflow/image", name)
                self.mkpath(str(target.parent))
                self.copy_file(name, str(target))


setup(
    name="labelbeam",
    version="0.1.0",
    description="Train a transformer text classifier, then label JSONL corpora with Apache Beam",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    author="The labelbeam contributors",
    project_urls={
        "Homepage": REPOSITORY,
        "Documentation": "https://labelbeam.github.io/labelbeam/",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Source": REPOSITORY,
    },
    keywords=[
        "text classification",
        "batch inference",
        "apache beam",
        "dataflow",
        "transformers",
        "openvino",
        "jsonl",
        "nlp",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Distributed Computing",
        "Topic :: Text Processing :: Linguistic",
    ],
    py_modules=["labelbeam"],
    packages=find_packages(include=["models*", "training*", "inference*"]),
    package_data={
        "models": ["templates/*"],
        "training": ["configs/*.toml", "configs/students/*.toml", "templates/*"],
        "inference": ["*.txt"],
        "inference.audits": ["templates/*"],
        "inference.cost": ["*.toml"],
        "inference.runs": ["templates/*"],
    },
    cmdclass={"build_py": BuildPy},
    # Puts the clone on the path, where a package goes before a folder of its name in the working folder.
    options={"editable_wheel": {"mode": "compat"}},
    entry_points={"console_scripts": ["labelbeam=labelbeam:main"]},
    python_requires=">=3.11,<3.14",
    install_requires=REQUIREMENTS,
    extras_require={"openvino": OPENVINO, "onnxruntime": ONNXRUNTIME, "s3": S3, "dev": TOOLS},
)
