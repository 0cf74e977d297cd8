"""Package layout that pyproject.toml cannot express: the repository's configs/ is installed as cxr_faith/configs/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cxr_faith*"]), "cxr_faith.configs"],
    package_dir={"cxr_faith.configs": "configs"},
)
