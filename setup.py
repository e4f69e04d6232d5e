"""Package metadata of ntmobile; tools are configured in ``pyproject.toml`` and ``tox.ini``."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Read the version from the package without importing it (its dependencies may be absent)."""
    text = (HERE / "ntmobile" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('ntmobile/__init__.py does not set __version__ = "..."')
    return found.group(1)


setup(
    name="ntmobile",
    version=version(),
    description="Devices talk end to end, by name, wherever they are and while they move",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the ntmobile developers",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Intended Audience :: Telecommunications Industry",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet",
        "Topic :: Security :: Cryptography",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    # "twisted.plugins" is a search directory of twisted.plugin, without __init__.py;
    # find_packages does not see such a one, so it is named here.
    packages=[*find_packages(include=["ntmobile", "ntmobile.*"]), "twisted.plugins"],
    package_data={"ntmobile": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "Twisted>=26.4",
        "zope.interface>=8",
        "service-identity>=26.1",
        "pyOpenSSL>=25.1",
        "txdbus>=1.1.2",
        # Before, it went on without TLS where the server had none.
        "PyMySQL>=1.2.4",
        # 47 brought AESGCM.encrypt_into (the data plane) and HPKE, 48 X-Wing in its wheels.
        "cryptography>=48",
        "attrs>=24.1",
        # recvmmsg, in ABI mode: nothing is compiled. cryptography brings it anyhow.
        "cffi>=1.17",
        "msgspec>=0.19",
        "click>=8.1.7",
    ],
    extras_require={
        # Peers and profiler of `make bench`.
        "bench": ["iroh>=1.0", "py-spy>=0.4"],
    },
    entry_points={"console_scripts": ["ntm = ntmobile.commands.main:main"]},
)
