"""What setup.cfg cannot say: the folder configs/ is installed as flowsr_jax/configs/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["flowsr_jax*"]), "flowsr_jax.configs"],
    package_dir={"flowsr_jax.configs": "configs"},
)
